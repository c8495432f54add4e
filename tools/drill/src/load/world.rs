//! What all clients of a load share: the doors, the clock, the counters, and how far the run is. It decides nothing.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::sync::{Semaphore, watch};

use super::plan::Plan;
use super::tally::Tally;
use super::zipf::Zipf;
use crate::clock::Clock;

type Mint = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Where clients connect, and with what.
pub struct Entrances {
    urls: watch::Receiver<Vec<String>>,
    token: Mint,
}

impl fmt::Debug for Entrances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entrances").field("urls", &*self.urls.borrow()).finish_non_exhaustive()
    }
}

impl Entrances {
    /// URLs of all gateways, `ws://host:port/ws`, as they change during the run, and who gives a user a token that may
    /// read and write everything.
    pub fn new(
        urls: watch::Receiver<Vec<String>>,
        token: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self { urls, token: Box::new(token) }
    }

    /// URLs that stay.
    pub fn fixed(urls: Vec<String>, token: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self::new(watch::channel(urls).1, token)
    }

    pub(super) fn token(&self, user: &str) -> Option<String> {
        (self.token)(user)
    }

    /// One of them, the same for the same number as long as they stay.
    pub(super) fn url(&self, number: usize) -> String {
        let urls = self.urls.borrow();
        urls.get(number % urls.len().max(1)).cloned().unwrap_or_default()
    }

    /// All of them, this one first.
    pub(super) fn from(&self, number: usize) -> Vec<String> {
        let mut urls = self.urls.borrow().clone();
        let places = urls.len().max(1);
        urls.rotate_left(number % places);
        urls
    }

    pub(super) fn changes(&self) -> watch::Receiver<Vec<String>> {
        self.urls.clone()
    }
}

/// How far a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Everybody connects and subscribes.
    Gather,
    /// Everybody does as the plan says.
    Run,
    /// Nothing new is sent, nobody leaves or stops reading; everybody comes back and goes on asking.
    Quiet,
    /// What has no answer is given up.
    Settle,
    /// Everybody says goodbye.
    End,
}

/// What clients share.
#[derive(Debug)]
pub(super) struct World {
    pub plan: Plan,
    /// The room that everybody reads.
    pub beacon_room: String,
    pub clock: Clock,
    pub popularity: Arc<Zipf>,
    pub entrances: Entrances,
    pub tally: Tally,
    /// Places for first connections at once.
    pub first: Semaphore,
    pub ready: AtomicU32,
    phase: watch::Receiver<Phase>,
}

/// A publish without an answer is given up after this, microseconds.
const GIVE_UP_US: u64 = 60_000_000;
/// First connections at once: a gateway has other work than to greet a crowd.
const FIRST_AT_ONCE: usize = 16;

impl World {
    pub(super) fn new(plan: Plan, entrances: Entrances, clock: Clock, phase: watch::Receiver<Phase>) -> Self {
        let (popularity, beacon_room) = (Arc::new(plan.popularity()), plan.beacon_room());
        let (tally, first) = (Tally::default(), Semaphore::new(FIRST_AT_ONCE));
        Self {
            plan,
            beacon_room,
            clock,
            popularity,
            entrances,
            tally,
            first,
            ready: AtomicU32::new(0),
            phase,
        }
    }

    /// A load that is dropped has ended.
    pub(super) fn phase(&self) -> Phase {
        if self.phase.has_changed().is_err() { Phase::End } else { *self.phase.borrow() }
    }

    /// Returns when the load is as far as this, or has ended.
    pub(super) async fn reaches(&self, phase: Phase) {
        self.phase.clone().wait_for(|now| *now >= phase).await.ok(); // dropped: it has ended
    }

    /// Returns when the load is in another phase than this.
    pub(super) async fn leaves(&self, phase: Phase) {
        self.phase.clone().wait_for(|now| *now != phase).await.ok(); // likewise
    }

    /// What was sent before this and has no answer is given up.
    pub(super) fn minute_ago_us(&self) -> u64 {
        self.clock.now_us().saturating_sub(GIVE_UP_US)
    }

    pub(super) fn one_is_ready(&self) {
        self.ready.fetch_add(1, Relaxed);
    }
}
