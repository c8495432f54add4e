//! Bugs that are built in on purpose: a drill that does not find them proves nothing when it finds nothing.
//!
//! This is the one way to seed a bug. A place that can be wrong asks [`is`]; without the feature `seeded-bugs`, which
//! no build that serves anybody has, that is a constant `false` and the place vanishes. Code that only a bug needs,
//! above all what waits (an `await` outlives its dead branch), stands in a module of its own behind
//! `#[cfg(feature = "seeded-bugs")]`. Tests look into the built services for what is left: nothing may be.
//!
//! With the feature, the variable [`VARIABLE`] names the bugs of a process, separated by commas, and `with` those of
//! one thread: for tests that show what a rule is good for. Never read from the configuration.

use std::fmt;
use std::str::FromStr;

/// Names the bugs of a process.
pub const VARIABLE: &str = "SLUICE_SEEDED_BUG";

macro_rules! bugs {
    ($($bug:ident = $name:literal: $what:literal,)*) => {
        /// What can be wrong on purpose.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Bug {
            $(#[doc = $what] $bug,)*
        }

        impl Bug {
            /// All seeded bugs.
            pub const ALL: &[Self] = &[$(Self::$bug,)*];

            /// As the variable names it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$bug => $name,)* }
            }

            /// What it does, in a sentence.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Self::$bug => $what,)* }
            }
        }
    };
}

bugs! {
    AnswerBeforeCommit = "answer-before-commit": "Logic answers `ok` with the positions it expects, and commits afterwards.",
    LookupBeforeLock = "lookup-before-lock": "The statement looks for duplicates before it locks the heads of the rooms.",
    NoUniqueKey = "no-unique-key": "The statement does not look for duplicates, and nothing makes keys unique.",
    PushBeforeCommit = "push-before-commit": "The notice of a group leaves before the group is committed.",
    NoGapRepair = "no-gap-repair": "A gateway does not read the messages that it knows to be missing.",
    NoTailRepair = "no-tail-repair": "A gateway never asks for the heads of its rooms, and does not listen when it is told.",
    HistoryBeforeInterest = "history-before-interest": "A subscription is live as soon as its page is read: what came between is lost.",
    OkRaisesHead = "ok-raises-head": "What a gateway knows to exist counts as passed on, its own answered publishes too.",
    NoFence = "no-fence": "After the first `retry:true` what was sent later is stored all the same.",
    FreePipelining = "free-pipelining": "A batch that failed is tried again behind what waits, not in its place.",
    FullQueueDrops = "full-queue-drops": "A live subscriber whose queue is full misses what does not fit, and stays live.",
    SkipNotTold = "skip-not-told": "Positions that are skipped are not told.",
    ExitWithoutStatusFlush = "exit-without-status-flush": "A gateway that stops does not tell who has left.",
    NoReaping = "no-reaping": "What gone instances have left stays.",
    AckBeforePush = "ack-before-push": "A task acknowledges a notice before it pushes what the notice says.",
    EpochIgnored = "epoch-ignored": "Subscriptions go on when the store has another history, and nobody is told.",
    DrainDropsOutcomes = "drain-drops-outcomes": "A session says `bye` although publishes it accepted have no outcome.",
    RetryWithNewKey = "retry-with-new-key": "A gateway sends a batch again under other keys.",
    NoGoodbye = "no-goodbye": "Connections are cut without `drain` and `bye`.",
    WedgedStop = "wedged-stop": "A stop hangs until the watchdog ends the process.",
    QueueWithoutFairness = "queue-without-fairness": "What connections ask of logic waits in one line: a thousand of one stand before another's one.",
    FiresTwice = "fires-twice": "A delayed message that is published stays on the schedule under another key.",
    FiresEarly = "fires-early": "Delayed messages are published 1.5 s before they are due.",
    CancelLies = "cancel-lies": "A cancel is answered `cancelled`, and the message is published all the same.",
    RedisNotHealed = "redis-not-healed": "A gateway does not notice that Redis has forgotten everything.",
    LeaveAtDisconnect = "leave-at-disconnect": "A leave is told as soon as a connection has left a room, whoever moves or comes back.",
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Bug {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|bug| bug.name() == text).copied();
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|bug| bug.name()).collect();
            format!("{VARIABLE}: there is no seeded bug {text:?}; there are {}", names.join(", "))
        })
    }
}

/// Whether this process has that bug.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
#[must_use]
pub const fn is(_bug: Bug) -> bool {
    false
}

/// Reads which bugs this process has: none.
///
/// # Errors
/// Never without the feature.
#[cfg(not(feature = "seeded-bugs"))]
pub const fn plant() -> Result<(), String> {
    Ok(())
}

#[cfg(feature = "seeded-bugs")]
pub use planted::{is, plant, with};

#[cfg(feature = "seeded-bugs")]
mod planted {
    use std::cell::RefCell;
    use std::sync::OnceLock;

    use super::{Bug, VARIABLE};

    /// Read once: a process does not change its mind.
    static BUGS: OnceLock<Vec<Bug>> = OnceLock::new();

    thread_local! {
        static OF_THREAD: RefCell<Vec<Bug>> = const { RefCell::new(Vec::new()) };
    }

    /// Whether this process, or this thread, has that bug.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        BUGS.get().is_some_and(|bugs| bugs.contains(&bug))
            || OF_THREAD.with_borrow(|bugs| bugs.contains(&bug))
    }

    /// Runs `work` on this thread as if it had these bugs, whatever other tests of the process do meanwhile.
    pub fn with<T>(bugs: &[Bug], work: impl FnOnce() -> T) -> T {
        /// Takes them back also when the work panics.
        struct Restore(Vec<Bug>);
        impl Drop for Restore {
            fn drop(&mut self) {
                OF_THREAD.set(std::mem::take(&mut self.0));
            }
        }
        let _restore = Restore(OF_THREAD.replace(bugs.to_vec()));
        work()
    }

    /// Reads which bugs this process has, and says so loudly.
    ///
    /// # Errors
    /// A name that is none; the text lists all.
    pub fn plant() -> Result<(), String> {
        let bugs = parse(&std::env::var(VARIABLE).unwrap_or_default())?;
        for bug in &bugs {
            tracing::error!(%bug, "THIS PROCESS IS WRONG ON PURPOSE, it breaks promises: {}", bug.what());
        }
        BUGS.get_or_init(|| bugs);
        Ok(())
    }

    fn parse(text: &str) -> Result<Vec<Bug>, String> {
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::parse).collect()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_thread_has_its_own_for_as_long_as_its_work_lasts() {
            let seen = with(&[Bug::NoFence], || {
                let other = std::thread::spawn(|| is(Bug::NoFence)).join().expect("it ends");
                (is(Bug::NoFence), is(Bug::NoGoodbye), other)
            });
            assert_eq!((seen, is(Bug::NoFence)), ((true, false, false), false));
            assert!(std::panic::catch_unwind(|| with(&[Bug::NoFence], || panic!("on purpose"))).is_err());
            assert!(!is(Bug::NoFence));
        }

        #[test]
        fn several_are_separated_by_commas() {
            assert_eq!(parse(""), Ok(vec![]));
            assert_eq!(parse("no-fence, no-goodbye"), Ok(vec![Bug::NoFence, Bug::NoGoodbye]));
            assert!(parse("no-fence,nonsense").is_err_and(|text| text.contains("there are answer-before")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for bug in Bug::ALL {
            assert_eq!(bug.name().parse(), Ok(*bug));
        }
        assert!("".parse::<Bug>().is_err());
    }

    #[cfg(not(feature = "seeded-bugs"))]
    #[test]
    fn a_normal_build_has_none_whatever_the_environment_says() {
        const NONE: bool = is(Bug::NoFence);
        assert_eq!((NONE, plant()), (false, Ok(())));
    }
}
