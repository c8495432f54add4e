//! Whether anything can be committed, by what became of the last groups and of a probe by a write. Pure.

use std::time::Duration;

use sluice_store::{Class, StoreError, Trouble};
use tokio::time::Instant;

/// A group that failed speaks for the store as long: a gateway tries again within this, so while people publish the next
/// failure comes before. A probe may find space where a message does not.
const FAILURE_COUNTS: Duration = Duration::from_secs(3);

/// What became of the last groups.
#[derive(Debug, Default)]
pub(super) struct Commits {
    stored: Option<Instant>,
    failed: Option<(Instant, String)>,
    /// A group found no space: the small probe may find some all the same.
    full: bool,
}

impl Commits {
    /// A group was committed.
    pub(super) fn stored(&mut self, now: Instant) {
        self.stored = Some(now);
        self.full = false;
    }

    /// A group was not.
    pub(super) fn failed(&mut self, error: &StoreError, now: Instant) {
        let of_the_store = match error.class() {
            Class::Retry | Class::Unknown => error.trouble() != Trouble::Locked,
            // Of its items, or of its callers.
            Class::Reject | Class::TooLate => false,
        };
        if of_the_store {
            self.full = error.trouble() == Trouble::Full;
            self.failed = Some((now, error.with_fix()));
        }
    }

    /// Whether the next probe has to ask for space of its own.
    pub(super) fn thorough(&self) -> bool {
        self.full
    }

    /// Whether anything can be committed: `probe` is what a look that began at `begun` found.
    pub(super) fn verdict(
        &self,
        begun: Instant,
        probe: Result<(), String>,
        now: Instant,
    ) -> Result<(), String> {
        // Better proof than a probe that is late, or that lacks a connection which others have.
        if self.stored.is_some_and(|at| at >= begun) {
            return Ok(());
        }
        probe?;
        match &self.failed {
            Some((at, why)) if self.stored.is_none_or(|good| good < *at) && now - *at < FAILURE_COUNTS => {
                Err(why.clone())
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sqlstate: &str) -> StoreError {
        StoreError::RolledBack { sqlstate: sqlstate.to_owned(), message: "no".to_owned() }
    }

    #[test]
    fn a_commit_is_better_proof_than_a_probe() {
        let begun = Instant::now();
        let mut commits = Commits::default();
        let probe = || Err("late".to_owned());
        assert_eq!(commits.verdict(begun, probe(), begun), Err("late".to_owned()));
        commits.stored(begun);
        assert_eq!(commits.verdict(begun, probe(), begun), Ok(()));
        let next = begun + Duration::from_millis(1);
        assert_eq!(commits.verdict(next, probe(), next), Err("late".to_owned()), "of an earlier look");
    }

    #[test]
    fn groups_that_fail_speak_for_the_store_for_a_while() {
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let mut commits = Commits::default();
        commits.stored(begun);
        commits.failed(&refused("53100"), at(10));
        assert!(commits.thorough());
        let said = commits.verdict(at(20), Ok(()), at(20)).expect_err("it failed");
        assert!(said.contains("53100") && said.contains("free space"), "{said}");
        assert_eq!(commits.verdict(at(3_020), Ok(()), at(3_020)), Ok(()), "nobody publishes any more");
        commits.failed(&refused("25006"), at(4_000));
        assert!(commits.verdict(at(4_010), Ok(()), at(4_010)).is_err() && !commits.thorough());
        commits.stored(at(4_020));
        assert_eq!(commits.verdict(at(4_030), Ok(()), at(4_030)), Ok(()));
    }

    #[test]
    fn what_is_wrong_with_a_message_or_a_room_does_not_speak_for_the_store() {
        let begun = Instant::now();
        let mut commits = Commits::default();
        let poison = StoreError::Poison { sqlstate: "22021".to_owned(), message: "no".to_owned() };
        for error in [poison, StoreError::TooLate, refused("55P03")] {
            commits.failed(&error, begun);
            assert_eq!(commits.verdict(begun, Ok(()), begun), Ok(()), "{error}");
        }
    }
}
