//! Says that two versions of a message met: never hidden, and never more often than a disk can take.

use super::Shard;
use crate::home::Conflict;
use crate::room::link::Ms;

/// A shard says it at most this often.
const SAY_EVERY_MS: Ms = 1_000;

/// When it was said last, and what was not said since.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    said_at: Option<Ms>,
    unsaid: u64,
}

impl Conflicts {
    /// Whether to say one now, and how many were not said.
    fn say(&mut self, now: Ms) -> Option<u64> {
        if self.said_at.is_some_and(|at| now < at + SAY_EVERY_MS) {
            self.unsaid += 1;
            return None;
        }
        self.said_at = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl Shard {
    /// Two versions of a message met, and its room opens itself anew.
    pub(super) fn conflict(&mut self, conflict: &Conflict) {
        self.shared.metrics.conflicts.inc();
        let Some(more_times) = self.conflicts.say(self.timers.now()) else { return };
        let Conflict { room, seq, pushers } = conflict;
        let pushed_by = self.shared.pushers.names(pushers);
        tracing::error!(
            %room, seq, pushed_by, more_times,
            "There are two versions of message {seq} of {room}; {pushed_by} pushed to it. The room was opened anew from the \
             store. Look at who holds a task's certificate (sluice certs), and whether a failover of PostgreSQL lost commits."
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_a_second_and_the_rest_counted() {
        let mut conflicts = Conflicts::default();
        let said: Vec<_> = [0, 1, 999, 1_000, 1_001, 9_000].map(|now| conflicts.say(now)).into();
        assert_eq!(said, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
