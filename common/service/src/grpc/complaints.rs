//! What is wrong with links to others, said once a minute for each peer and reason: whoever knocks on a port must not
//! fill a disk. Bounded in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The same is said again after so long.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Peers and reasons kept at once: more than a deployment has services.
const KEPT_MAX: usize = 256;

/// When what was said; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Complaints<K>(Arc<Mutex<BTreeMap<K, Said>>>);

impl<K> Default for Complaints<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

#[derive(Debug)]
struct Said {
    at: Instant,
    /// Times since then that were not said.
    silent: u64,
}

impl<K: Ord> Complaints<K> {
    /// Whether to say it now, and how often it happened since it was said before.
    pub(crate) fn say(&self, what: K) -> Option<u64> {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(said) = all.get_mut(&what) {
            if now.duration_since(said.at) < SAY_EVERY {
                said.silent += 1;
                return None;
            }
            said.at = now;
            return Some(std::mem::take(&mut said.silent));
        }
        if all.len() >= KEPT_MAX {
            all.retain(|_, said| now.duration_since(said.at) < SAY_EVERY);
        }
        // A crowd of strangers: those who are known already are enough to find it.
        if all.len() >= KEPT_MAX {
            return None;
        }
        all.insert(what, Said { at: now, silent: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_is_said_once_a_minute() {
        let complaints = Complaints::default();
        assert_eq!(complaints.say(("a", 1)), Some(0));
        assert_eq!([complaints.say(("a", 1)), complaints.say(("a", 1))], [None, None]);
        assert_eq!(complaints.say(("a", 2)), Some(0), "another reason");
        tokio::time::advance(SAY_EVERY).await;
        assert_eq!(complaints.say(("a", 1)), Some(2));
        assert_eq!(complaints.say(("a", 1)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_is_bounded() {
        let complaints = Complaints::default();
        let said = (0..10_000).filter(|n| complaints.say(*n).is_some()).count();
        assert_eq!(said, KEPT_MAX);
        tokio::time::advance(SAY_EVERY).await;
        assert_eq!(complaints.say(20_000), Some(0));
    }
}
