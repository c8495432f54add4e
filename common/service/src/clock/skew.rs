//! How far the wall clocks of others are from ours, by the times that their answers carry. No I/O, and no clock of its own.
//!
//! An answer that says `theirs`, sent between `asked` and `answered` by our clock, shows a difference for certain only as
//! far as `theirs` lies outside: a slow call shows none.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use crate::metrics::Registry;

/// Clocks that differ by more are told: leases, tokens and times of messages are off by as much.
const TOLD_FROM: Duration = Duration::from_secs(1);
/// And by less again: they agree.
const AGREE_BELOW: Duration = Duration::from_millis(500);
/// A peer is compared this often at most.
const COMPARED_EVERY: Duration = Duration::from_secs(1);
/// A peer that was not heard of for as long says nothing any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Peers that are remembered.
const PEERS_MAX: usize = 1_024;

/// One question and its answer, wall clocks in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// Ours, when it was asked.
    pub asked_ms: i64,
    /// Theirs, when it was answered.
    pub theirs_ms: i64,
    /// Ours, when the answer was there.
    pub answered_ms: i64,
}

impl Exchange {
    /// What is certain of how far they are ahead of us, milliseconds; negative: behind.
    #[must_use]
    pub fn ahead_ms(&self) -> i64 {
        if self.theirs_ms > self.answered_ms {
            self.theirs_ms.saturating_sub(self.answered_ms)
        } else {
            self.theirs_ms.saturating_sub(self.asked_ms).min(0)
        }
    }
}

/// The clocks of those whom this process asks; clones share it.
#[derive(Clone)]
pub struct Clocks(Arc<PeerClocks>);

struct PeerClocks {
    bound: Duration,
    offset: Gauge<f64, AtomicU64>,
    peers: Mutex<BTreeMap<String, Compared>>,
}

#[derive(Debug, Clone, Copy)]
struct Compared {
    at: Instant,
    ahead_ms: i64,
    told: bool,
}

/// What has to be said of a peer.
#[derive(Debug, PartialEq, Eq)]
enum Edge {
    Differ,
    Agree,
}

impl Compared {
    /// Takes what an exchange showed.
    fn step(before: Option<Self>, ahead_ms: i64, at: Instant) -> (Self, Option<Edge>) {
        let (off, told) =
            (Duration::from_millis(ahead_ms.unsigned_abs()), before.is_some_and(|peer| peer.told));
        let (told, edge) = match told {
            false if off > TOLD_FROM => (true, Some(Edge::Differ)),
            true if off < AGREE_BELOW => (false, Some(Edge::Agree)),
            told => (told, None),
        };
        (Self { at, ahead_ms, told }, edge)
    }
}

impl Clocks {
    /// Nobody compared yet. Beyond `bound` this process cannot do its work.
    #[must_use]
    pub fn new(metrics: &Registry, bound: Duration) -> Self {
        let help = "Largest certain difference between this clock and that of whom it asks; positive: this one is behind";
        let offset = metrics.register("clock_offset_seconds", help, Gauge::default());
        Self(Arc::new(PeerClocks { bound, offset, peers: Mutex::default() }))
    }

    /// Whether it is time to look at an answer of this peer: most are not worth it.
    #[must_use]
    pub fn due(&self, peer: &str) -> bool {
        self.peers().get(peer).is_none_or(|peer| peer.at.elapsed() >= COMPARED_EVERY)
    }

    /// An answer of `peer` told its time.
    pub fn compared(&self, peer: &str, exchange: Exchange) {
        let (now, ahead_ms) = (Instant::now(), exchange.ahead_ms());
        let edge = {
            let mut peers = self.peers();
            peers.retain(|_, peer| now - peer.at < FORGOTTEN_AFTER);
            let (next, edge) = Compared::step(peers.get(peer).copied(), ahead_ms, now);
            if peers.len() < PEERS_MAX || peers.contains_key(peer) {
                peers.insert(peer.to_owned(), next);
            }
            edge
        };
        let worst = self.worst().map_or(0, |(_, ahead_ms)| ahead_ms);
        #[expect(clippy::cast_precision_loss, reason = "of seconds, for a gauge")]
        self.0.offset.set(worst as f64 / 1_000.0);
        match edge {
            Some(Edge::Differ) => tracing::warn!(
                peer,
                ahead_ms,
                "Clocks differ: times and tokens are judged by the one or the other. Let all machines follow the same NTP."
            ),
            Some(Edge::Agree) => tracing::info!(peer, ahead_ms, "Clocks agree again."),
            None => {}
        }
    }

    /// Whether this clock is near enough to anybody's: one peer that is far from all others must not take all who hear
    /// of it out of service.
    ///
    /// # Errors
    /// By how much it is not.
    pub fn verdict(&self) -> Result<(), String> {
        match self.nearest() {
            Some((peer, ahead_ms)) if Duration::from_millis(ahead_ms.unsigned_abs()) > self.0.bound => {
                let side = if ahead_ms > 0 { "behind" } else { "ahead of" };
                Err(format!(
                    "this machine's clock is {} s {side} that of {peer}, more than {} s: publishes are refused as too late, \
                     or could be stored too late. Set the clock (NTP)",
                    ahead_ms.unsigned_abs() / 1_000,
                    self.0.bound.as_secs()
                ))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whose clock differs most.
    fn worst(&self) -> Option<(String, i64)> {
        self.lately().into_iter().max_by_key(|(_, ahead_ms)| ahead_ms.unsigned_abs())
    }

    /// Whose clock differs least.
    fn nearest(&self) -> Option<(String, i64)> {
        self.lately().into_iter().min_by_key(|(_, ahead_ms)| ahead_ms.unsigned_abs())
    }

    fn lately(&self) -> Vec<(String, i64)> {
        let peers = self.peers();
        let lately = peers.iter().filter(|(_, peer)| peer.at.elapsed() < FORGOTTEN_AFTER);
        lately.map(|(name, peer)| (name.clone(), peer.ahead_ms)).collect()
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<String, Compared>> {
        self.0.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Clocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clocks").field("worst", &self.worst()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(asked_ms: i64, theirs_ms: i64, answered_ms: i64) -> i64 {
        Exchange { asked_ms, theirs_ms, answered_ms }.ahead_ms()
    }

    #[test]
    fn only_what_is_outside_of_the_call_is_certain() {
        assert_eq!(ahead(1_000, 1_005, 1_010), 0);
        assert_eq!(ahead(1_000, 1_000, 9_000), 0, "a slow call shows nothing");
        assert_eq!(ahead(1_000, 4_000, 1_010), 2_990);
        assert_eq!(ahead(10_000, 4_000, 10_010), -6_000);
        assert_eq!(ahead(0, i64::MAX, 0), i64::MAX);
    }

    #[test]
    fn a_difference_is_told_once_and_so_is_its_end() {
        let at = Instant::now();
        let mut peer = None;
        let mut edge = |ahead_ms| {
            let (next, edge) = Compared::step(peer, ahead_ms, at);
            peer = Some(next);
            edge
        };
        assert_eq!(edge(900), None);
        assert_eq!(edge(-1_100), Some(Edge::Differ));
        assert_eq!(edge(-5_000), None);
        assert_eq!(edge(-800), None, "not again and again around one second");
        assert_eq!(edge(100), Some(Edge::Agree));
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_bound_it_is_said_until_the_clock_is_right_or_the_peer_gone() {
        let metrics = Registry::new("test");
        let clocks = Clocks::new(&metrics, Duration::from_secs(900));
        let compare = |peer: &str, theirs_ms| {
            clocks.compared(peer, Exchange { asked_ms: 10_000_000, theirs_ms, answered_ms: 10_000_010 });
        };
        assert!(clocks.due("logic-1"));
        compare("logic-1", 10_000_005);
        assert!(!clocks.due("logic-1"));
        compare("logic-2", 11_200_010);
        assert_eq!(clocks.verdict(), Ok(()), "it is that of logic-2 that is wrong");
        assert!(metrics.encode().contains("sluice_test_clock_offset_seconds 1200.0"), "{}", metrics.encode());
        compare("logic-1", 11_300_010);
        let why = clocks.verdict().expect_err("twenty minutes");
        assert!(why.contains("1200 s behind that of logic-2"), "{why}");
        compare("logic-1", 8_800_000);
        compare("logic-2", 8_700_000);
        assert!(clocks.verdict().expect_err("the other way").contains("1200 s ahead of that of logic-1"));
        compare("logic-2", 10_000_000);
        assert_eq!(clocks.verdict(), Ok(()));
        compare("logic-2", 11_200_010);
        assert!(clocks.verdict().is_err());
        tokio::time::advance(FORGOTTEN_AFTER).await;
        assert_eq!(clocks.verdict(), Ok(()), "nobody has heard of it for long");
        assert!(clocks.due("logic-1"));
    }
}
