//! What all clients of a load share: the endpoints, the clock, the counters, and how far the run is. It decides nothing.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use sluice_client::Trust;
use tokio::sync::{Semaphore, watch};

use super::counters::LoadCounters;
use super::foreign::ForeignMeans;
use super::plan::Plan;
use super::zipf::Zipf;
use crate::api::ApiAccess;
use crate::clock::Clock;

type Mint = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Where clients connect, and with what.
pub struct Endpoints {
    urls: watch::Receiver<Vec<String>>,
    token: Mint,
    trust: Trust,
    api: Option<Arc<ApiAccess>>,
    means: ForeignMeans,
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints").field("urls", &*self.urls.borrow()).finish_non_exhaustive()
    }
}

impl Endpoints {
    /// URLs of all gateways, `ws://host:port/ws` or `wss://`, as they change during the run, and who gives a user a token that may
    /// read and write everything.
    pub fn new(
        urls: watch::Receiver<Vec<String>>,
        token: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            urls,
            token: Box::new(token),
            trust: Trust::default(),
            api: None,
            means: ForeignMeans::default(),
        }
    }

    /// URLs that stay.
    pub fn fixed(urls: Vec<String>, token: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self::new(watch::channel(urls).1, token)
    }

    /// Trusts these authorities where a URL says `wss`.
    #[must_use]
    pub fn trusting(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Backends call this API.
    #[must_use]
    pub fn with_api(mut self, api: Option<ApiAccess>) -> Self {
        self.api = api.map(Arc::new);
        self
    }

    /// Clients in other languages are run with this.
    #[must_use]
    pub fn with_means(mut self, means: ForeignMeans) -> Self {
        self.means = means;
        self
    }

    pub(super) fn means(&self) -> &ForeignMeans {
        &self.means
    }

    pub(super) fn api(&self) -> Option<Arc<ApiAccess>> {
        self.api.clone()
    }

    pub(super) fn trust(&self) -> Trust {
        self.trust.clone()
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

    pub(super) fn count(&self) -> usize {
        self.urls.borrow().len()
    }

    pub(super) fn changes(&self) -> watch::Receiver<Vec<String>> {
        self.urls.clone()
    }
}

/// How far a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LoadPhase {
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
pub(super) struct LoadShared {
    pub plan: Plan,
    /// The room that everybody reads.
    pub beacon_room: String,
    pub clock: Clock,
    pub popularity: Arc<Zipf>,
    pub endpoints: Endpoints,
    pub counters: LoadCounters,
    /// Places for first connections at once.
    pub first: Semaphore,
    pub ready: AtomicU32,
    /// How often the crowd was asked to spread, and how many of it are not where they should be.
    pub spreads: AtomicU32,
    pub astray: AtomicU32,
    phase: watch::Receiver<LoadPhase>,
}

/// A publish without an answer is given up after this.
pub(super) const GIVE_UP: Duration = Duration::from_secs(60);
/// First connections at once: a gateway has other work than to greet a crowd.
const FIRST_AT_ONCE: usize = 16;

impl LoadShared {
    pub(super) fn new(
        plan: Plan,
        endpoints: Endpoints,
        clock: Clock,
        phase: watch::Receiver<LoadPhase>,
    ) -> Self {
        let (popularity, beacon_room) = (Arc::new(plan.popularity()), plan.beacon_room());
        let (counters, first) = (LoadCounters::default(), Semaphore::new(FIRST_AT_ONCE));
        Self {
            plan,
            beacon_room,
            clock,
            popularity,
            endpoints,
            counters,
            first,
            ready: AtomicU32::new(0),
            spreads: AtomicU32::new(0),
            astray: AtomicU32::new(0),
            phase,
        }
    }

    /// A load that is dropped has ended.
    pub(super) fn phase(&self) -> LoadPhase {
        if self.phase.has_changed().is_err() { LoadPhase::End } else { *self.phase.borrow() }
    }

    /// Returns when the load is as far as this, or has ended.
    pub(super) async fn reaches(&self, phase: LoadPhase) {
        self.phase.clone().wait_for(|now| *now >= phase).await.ok(); // dropped: it has ended
    }

    /// Returns when the load is in another phase than this.
    pub(super) async fn leaves(&self, phase: LoadPhase) {
        self.phase.clone().wait_for(|now| *now != phase).await.ok(); // likewise
    }

    /// What was sent before this and has no answer is given up.
    pub(super) fn minute_ago_us(&self) -> u64 {
        self.clock.now_us().saturating_sub(u64::try_from(GIVE_UP.as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn one_is_ready(&self) {
        self.ready.fetch_add(1, Relaxed);
    }
}
