//! Which instances are gone among those that have something stored. Pure: time is an argument.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use sluice_proto::ids::InstanceId;
use tokio::time::Instant;

/// Counts how long instances have been absent that the registry may never have shown us: the registry forgets
/// the gone when the process restarts, and all of them when everything does.
#[derive(Debug, Default)]
pub struct Absent {
    since: HashMap<InstanceId, Instant>,
}

/// What is known besides the absence itself.
pub struct Evidence<'a> {
    /// Whom the registry calls gone.
    pub called_gone: &'a [InstanceId],
    /// Whose push stream broke and did not come back.
    pub broken: &'a BTreeSet<InstanceId>,
    /// Absence that is enough for these: time for a living one to dial again.
    pub broken_for: Duration,
    /// Absence that is enough for all others.
    pub absent_for: Duration,
}

impl Absent {
    /// Nobody is known to be absent: to be called when this process cannot judge, or need not.
    pub fn forget(&mut self) {
        self.since.clear();
    }

    /// Of the stored instances that do not live, those the registry calls gone and those absent for long enough.
    pub fn gone(
        &mut self,
        stored: &[InstanceId],
        lives: impl Fn(&InstanceId) -> bool,
        evidence: &Evidence<'_>,
        now: Instant,
    ) -> Vec<InstanceId> {
        let absent: Vec<&InstanceId> = stored.iter().filter(|id| !lives(id)).collect();
        // Built anew from those that are absent now: whoever was back for a moment begins at zero.
        self.since =
            absent.iter().map(|id| ((*id).clone(), self.since.get(*id).copied().unwrap_or(now))).collect();
        let gone = |id: &&InstanceId| {
            // Two witnesses who do not know of each other: its lease has run out, and its own stream to us broke.
            let long = if evidence.broken.contains(*id) { evidence.broken_for } else { evidence.absent_for };
            evidence.called_gone.contains(id)
                || self.since.get(*id).is_some_and(|since| now.duration_since(*since) >= long)
        };
        absent.into_iter().filter(gone).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_secs(1);

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).expect("valid")
    }

    #[test]
    fn gone_is_who_was_absent_long_without_a_break_or_is_called_so() {
        let (mut absent, now) = (Absent::default(), Instant::now());
        let stored = [id("a"), id("b"), id("c")];
        let lives = |living: &'static str| move |it: &InstanceId| it.as_str() == living;
        let none = BTreeSet::new();
        let (nobody, b, c) = (called(&[], &none), [id("b")], [id("c")]);
        assert_eq!(absent.gone(&stored, lives("c"), &nobody, now), []);
        // b was back for a moment; c lives whatever it is called.
        assert_eq!(absent.gone(&stored, |it| it.as_str() != "a", &nobody, now + LONG / 2), []);
        assert_eq!(absent.gone(&stored, lives("c"), &called(&c, &none), now + LONG), [id("a")]);
        assert_eq!(absent.gone(&stored, lives("c"), &called(&b, &none), now + LONG), [id("a"), id("b")]);
        // What has nothing stored any more is forgotten.
        assert_eq!(absent.gone(&[id("b")], lives("c"), &nobody, now + LONG), []);
        assert_eq!(absent.gone(&stored, lives("c"), &nobody, now + LONG), []);
        absent.forget();
        assert_eq!(absent.gone(&stored, lives("c"), &nobody, now + 2 * LONG), []);
    }

    fn called<'a>(called_gone: &'a [InstanceId], broken: &'a BTreeSet<InstanceId>) -> Evidence<'a> {
        Evidence { called_gone, broken, broken_for: SHORT, absent_for: LONG }
    }

    #[test]
    fn a_broken_stream_shortens_an_absence_and_is_no_death_by_itself() {
        let (mut absent, now) = (Absent::default(), Instant::now());
        let (stored, broken) = ([id("a"), id("b")], BTreeSet::from([id("a")]));
        // The registry lists it still: it lost us, not its life.
        assert_eq!(absent.gone(&stored, |_| true, &called(&[], &broken), now + LONG), []);
        let nobody = |_: &InstanceId| false;
        assert_eq!(absent.gone(&stored, nobody, &called(&[], &broken), now + LONG), []);
        assert_eq!(absent.gone(&stored, nobody, &called(&[], &broken), now + LONG + SHORT / 2), []);
        assert_eq!(absent.gone(&stored, nobody, &called(&[], &broken), now + LONG + SHORT), [id("a")]);
        // An empty registry with all streams working, or none that broke: nobody is gone early.
        let mut absent = Absent::default();
        let none = BTreeSet::new();
        assert_eq!(absent.gone(&stored, nobody, &called(&[], &none), now), []);
        assert_eq!(absent.gone(&stored, nobody, &called(&[], &none), now + LONG / 2), []);
    }
}
