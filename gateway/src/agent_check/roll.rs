//! Whether gateways are being replaced one after the other, and this one is still to be. Pure: time is an argument.
//!
//! A client that leaves a gateway which is replaced, and comes to one that will be, moves once more than it must.
//! With the replaced ones preferred each client moves twice at the most, however many gateways there are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sluice_cluster::InstanceState;
use sluice_proto::ids::InstanceId;
use tokio::time::Instant;

/// A roll in which nothing happens for so long is over, or not done by a machine. Above the time that a platform
/// takes to replace one instance; all it costs is that new clients prefer the younger gateways for so long.
const QUIET: Duration = Duration::from_secs(120);

/// The other gateways that are listed.
pub type Gateways = BTreeMap<InstanceId, InstanceState>;

/// A roll as one gateway sees it.
#[derive(Debug)]
pub struct Roll {
    seen: Gateways,
    /// Who was there when the first one drained.
    before: Option<BTreeSet<InstanceId>>,
    changed: Instant,
}

impl Roll {
    /// Nobody has been seen yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { seen: Gateways::new(), before: None, changed: now }
    }

    /// Takes what the registry says now.
    pub fn see(&mut self, others: Gateways, now: Instant) {
        if others == self.seen {
            return;
        }
        // The next roll has its own beginning: who was new in the former one may be replaced in this.
        if self.is_over(now) {
            self.before = None;
        }
        if self.before.is_none() && others.values().any(|state| *state == InstanceState::Draining) {
            // Also those of the former look: whoever is gone already was here when the roll began.
            self.before = Some(others.keys().chain(self.seen.keys()).cloned().collect());
        }
        self.seen = others;
        self.changed = now;
    }

    /// Whether others have been replaced since this gateway saw a roll begin, so that its own turn is still ahead.
    #[must_use]
    pub fn is_ahead(&self, now: Instant) -> bool {
        let serves = |state: &InstanceState| *state == InstanceState::Serving;
        let replaced = |before: &BTreeSet<InstanceId>| {
            self.seen.iter().any(|(id, state)| serves(state) && !before.contains(id))
        };
        !self.is_over(now) && self.before.as_ref().is_some_and(replaced)
    }

    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.changed) >= QUIET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// `b` serves, `b-` drains; who is not named is not listed.
    fn gateways(line: &str) -> Gateways {
        let state =
            |name: &str| if name.ends_with('-') { InstanceState::Draining } else { InstanceState::Serving };
        let id = |name: &str| InstanceId::parse(name.trim_end_matches('-')).expect("a name");
        line.split_whitespace().map(|name| (id(name), state(name))).collect()
    }

    /// What a gateway that sees these one second after the other thinks of itself each time.
    fn seen(lines: &[&str]) -> Vec<bool> {
        let start = Instant::now();
        let mut roll = Roll::new(start);
        let times = (0..).map(|second| start + SECOND * second);
        lines
            .iter()
            .zip(times)
            .map(|(line, now)| {
                roll.see(gateways(line), now);
                roll.is_ahead(now)
            })
            .collect()
    }

    #[test]
    fn the_last_one_steps_back_as_soon_as_another_has_been_replaced() {
        // seen by c of a, b, c
        let turns = ["a b", "a- b", "b", "A b", "A b-", "A", "A B"];
        assert_eq!(seen(&turns), [false, false, false, true, true, true, true]);
    }

    #[test]
    fn a_replacement_steps_back_for_younger_ones_only() {
        // seen by A, the replacement of a
        let turns = ["b c", "b- c", "c", "B c", "B c-", "B", "B C"];
        assert_eq!(seen(&turns), [false, false, false, true, true, true, true]);
    }

    #[test]
    fn who_is_not_being_rolled_keeps_its_weight() {
        assert_eq!(seen(&["a", "a b", "a b c"]), [false; 3], "more of them");
        assert_eq!(seen(&["a b", "a", "a B"]), [false; 3], "one was killed");
        assert_eq!(seen(&["a b", "a b-", "a"]), [false; 3], "fewer of them");
        assert_eq!(seen(&["a", "a-", "A-"]), [false; 3], "the replacement does not serve");
        assert_eq!(seen(&["a b", "b a-", "b a"]), [false; 3], "it changed its mind");
    }

    #[test]
    fn a_roll_is_over_when_nothing_happens_any_more() {
        let start = Instant::now();
        let mut roll = Roll::new(start);
        for line in ["a b", "a- b", "A b"] {
            roll.see(gateways(line), start);
        }
        assert!(roll.is_ahead(start + QUIET - SECOND));
        assert!(!roll.is_ahead(start + QUIET));
        // the next one begins with those who are there then
        roll.see(gateways("A b-"), start + QUIET * 2);
        assert!(!roll.is_ahead(start + QUIET * 2));
        roll.see(gateways("A B"), start + QUIET * 2 + SECOND);
        assert!(roll.is_ahead(start + QUIET * 2 + SECOND));
    }
}
