//! Which instances are gone among those that have something stored. Pure: time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use sluice_proto::ids::InstanceId;
use tokio::time::Instant;

/// Counts how long instances have been absent that the registry may never have shown us: the registry forgets
/// the gone when the process restarts, and all of them when everything does.
#[derive(Debug, Default)]
pub struct Absent {
    since: HashMap<InstanceId, Instant>,
}

impl Absent {
    /// Nobody is known to be absent: to be called when this process cannot judge, or need not.
    pub fn forget(&mut self) {
        self.since.clear();
    }

    /// Of the stored instances that do not live, those the registry calls gone and those absent for `long`.
    pub fn gone(
        &mut self,
        stored: &[InstanceId],
        lives: impl Fn(&InstanceId) -> bool,
        called_gone: &[InstanceId],
        now: Instant,
        long: Duration,
    ) -> Vec<InstanceId> {
        let absent: Vec<&InstanceId> = stored.iter().filter(|id| !lives(id)).collect();
        // Built anew from those that are absent now: whoever was back for a moment begins at zero.
        self.since =
            absent.iter().map(|id| ((*id).clone(), self.since.get(*id).copied().unwrap_or(now))).collect();
        let gone = |id: &&InstanceId| {
            called_gone.contains(id)
                || self.since.get(*id).is_some_and(|since| now.duration_since(*since) >= long)
        };
        absent.into_iter().filter(gone).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).expect("valid")
    }

    #[test]
    fn gone_is_who_was_absent_long_without_a_break_or_is_called_so() {
        let (mut absent, now) = (Absent::default(), Instant::now());
        let stored = [id("a"), id("b"), id("c")];
        let lives = |living: &'static str| move |it: &InstanceId| it.as_str() == living;
        assert_eq!(absent.gone(&stored, lives("c"), &[], now, LONG), []);
        // b was back for a moment; c lives whatever it is called.
        assert_eq!(absent.gone(&stored, |it| it.as_str() != "a", &[], now + LONG / 2, LONG), []);
        assert_eq!(absent.gone(&stored, lives("c"), &[id("c")], now + LONG, LONG), [id("a")]);
        assert_eq!(absent.gone(&stored, lives("c"), &[id("b")], now + LONG, LONG), [id("a"), id("b")]);
        // What has nothing stored any more is forgotten.
        assert_eq!(absent.gone(&[id("b")], lives("c"), &[], now + LONG, LONG), []);
        assert_eq!(absent.gone(&stored, lives("c"), &[], now + LONG, LONG), []);
        absent.forget();
        assert_eq!(absent.gone(&stored, lives("c"), &[], now + 2 * LONG, LONG), []);
    }
}
