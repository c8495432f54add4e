//! The faults: what each is called, what it needs, and doing one. Which comes when is the scenario's business, what it
//! broke is the judge's.

mod disk;
mod due;
mod log;
mod network;
mod process;
mod revoke;
mod store;

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rand::rngs::SmallRng;
use serde::Serialize;
use sluice_client::Trust;
use sluice_judge::record::{self, ProcessExit};

use crate::clock::Clock;
use crate::links::Link;
use crate::place::{Place, Role};
use crate::proxy::Trouble;
use crate::target::{Ended, Ending, Target};

/// Longest stop of a service, from the signal to its end: the promise that is judged.
pub const STOP_BUDGET: Duration = Duration::from_secs(8);
/// A process that has not ended by then is killed and the run goes on: the budget, the watchdog's margin, and slack.
const STOP_WAIT: Duration = Duration::from_secs(12);

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// SIGTERM.
    Term(Role),
    /// SIGTERM, and another ending signal while it stops.
    TermTwice(Role),
    /// SIGTERM during start-up.
    TermStarting(Role),
    /// SIGTERM to all of a kind at once.
    TermEvery(Role),
    /// The command that restarts one of them in an ordered way.
    Roll(Role),
    /// SIGKILL.
    Kill(Role),
    /// SIGKILL to the member that leads a group of servers, which stays away until another one does.
    KillLeader(Role),
    /// A replica of Redis is made the primary, and the old one lives on.
    FailOver,
    /// SIGKILL to the Patroni of PostgreSQL's primary, which goes on alone until another one is promoted.
    KillPatroni,
    /// SIGKILL to PostgreSQL's primary, whose Patroni lives.
    KillPostmaster,
    /// PostgreSQL's primary and its synchronous standby change places, as an operator asks.
    Switchover,
    /// SIGKILL while it stops.
    KillStopping(Role),
    /// SIGKILL to one process of each service at once.
    KillOneOfEach,
    /// SIGKILL to all of a kind at once.
    KillEvery(Role),
    /// SIGSTOP, then SIGCONT.
    Freeze(Role, FreezeLength),
    /// SIGTERM to everything, stores included, within 50 ms; then all start again.
    AllAtOnce,
    /// An ordered stop and a start of a store.
    Restart(Role),
    /// A store loses everything.
    Wipe(Role),
    /// Redis comes back with what it held some time ago.
    OldRedis,
    /// SIGQUIT to PostgreSQL: it ends without a checkpoint and recovers.
    Crash,
    /// All client sessions of PostgreSQL are ended.
    Sessions,
    /// An older copy of PostgreSQL is put back, with a new epoch.
    Restore,
    /// A member of a group is cut off from its peers and from everybody while it lives.
    Partition(Role),
    /// Trouble on a link.
    Cut(Link, Trouble),
    /// A container is taken off its networks.
    Disconnect(Role),
    /// Delayed messages are due, and cancelled, while a task is killed and all are rolled.
    Due,
    /// Users are disconnected and their tokens revoked while all gateways and logics are rolled.
    Revoke,
    /// What reads a service's log ends, then SIGTERM; and once more with nobody who reads from the start.
    LogGone(Role),
    /// What reads a service's log stands still until the pipe is full, then SIGTERM.
    LogStuck(Role),
    /// The disk under the file of one process is full for a while.
    FullDisk,
}

/// How long something is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FreezeLength {
    /// Half a second: deadlines hold.
    Short,
    /// Five seconds: beyond the deadline of a call, and beyond a lease of three.
    Long,
    /// Eight seconds: beyond twice the lease, others have called it gone and cleaned up behind it.
    Gone,
    /// Twelve seconds: gateways give up what they have tried for ten, and have clients send it again.
    Outage,
}

impl FreezeLength {
    /// Those of one service among others, who do its work meanwhile.
    pub const OF_ONE: [Self; 3] = [Self::Short, Self::Long, Self::Gone];

    const fn time(self) -> Duration {
        match self {
            Self::Short => Duration::from_millis(500),
            Self::Long => Duration::from_secs(5),
            Self::Gone => Duration::from_secs(8),
            Self::Outage => Duration::from_secs(12),
        }
    }
}

/// The name in tables: `term gateway`, `freeze task 5s`, `cut gateway→logic`.
impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Term(role) => write!(f, "term {role}"),
            Self::TermTwice(role) => write!(f, "term {role} twice"),
            Self::TermStarting(role) => write!(f, "term starting {role}"),
            Self::TermEvery(role) => write!(f, "term every {role}"),
            Self::Roll(role) => write!(f, "roll {role}"),
            Self::Kill(role) => write!(f, "kill {role}"),
            Self::KillLeader(role) => write!(f, "kill leader of {role}"),
            Self::FailOver => f.write_str("fail over redis"),
            Self::KillPatroni => f.write_str("kill patroni of postgres"),
            Self::KillPostmaster => f.write_str("kill server of postgres"),
            Self::Switchover => f.write_str("switchover of postgres"),
            Self::KillStopping(role) => write!(f, "kill stopping {role}"),
            Self::KillOneOfEach => f.write_str("kill one of each"),
            Self::KillEvery(role) => write!(f, "kill every {role}"),
            Self::Freeze(role, length) => write!(f, "freeze {role} {}s", length.time().as_secs_f32()),
            Self::AllAtOnce => f.write_str("all at once"),
            Self::Restart(role) => write!(f, "restart {role}"),
            Self::Wipe(role) => write!(f, "wipe {role}"),
            Self::OldRedis => f.write_str("old redis"),
            Self::Crash => f.write_str("crash postgres"),
            Self::Sessions => f.write_str("end sessions of postgres"),
            Self::Restore => f.write_str("restore postgres"),
            Self::Partition(role) => write!(f, "partition {role}"),
            Self::Cut(link, trouble) => write!(f, "{trouble} {link}"),
            Self::Disconnect(role) => write!(f, "disconnect {role}"),
            Self::Due => f.write_str("due"),
            Self::Revoke => f.write_str("revoke"),
            Self::LogGone(role) => write!(f, "log gone {role}"),
            Self::LogStuck(role) => write!(f, "log stuck {role}"),
            Self::FullDisk => f.write_str("full disk"),
        }
    }
}

impl FaultKind {
    /// Whether links must lead through proxies for it.
    #[must_use]
    pub const fn needs_links(self) -> bool {
        matches!(self, Self::Cut(..))
    }

    /// Whether members of groups must have doors for it.
    #[must_use]
    pub const fn needs_doors(self) -> bool {
        matches!(self, Self::Partition(_))
    }

    /// Whether an even turn hits the member that leads: then it comes first, as a short run has no second turn.
    #[must_use]
    pub const fn begins_with_leader(self) -> bool {
        matches!(self, Self::Partition(_))
    }

    /// Whether logs must be read by somebody who can be ended for it.
    #[must_use]
    pub const fn needs_log_readers(self) -> bool {
        matches!(self, Self::LogGone(_) | Self::LogStuck(_))
    }

    /// Whether every one of these words is one of its name; `5s` is not in `0.5s`.
    #[must_use]
    pub fn is_called(&self, words: &str) -> bool {
        // Word by word: as text, `5s` is also in `0.5s`.
        let of = |text: &str| -> Vec<String> { text.split([' ', '→']).map(str::to_owned).collect() };
        let name = of(&self.to_string());
        of(words).iter().all(|word| word.is_empty() || name.contains(word))
    }
}

/// What a fault is done with.
pub struct FaultInjector<'a> {
    /// To whom.
    pub target: &'a Target,
    /// The run's clock.
    pub clock: Clock,
    /// Which round it is.
    pub round: u32,
    /// How often this kind has come before: it goes to the next process each time.
    pub turn: usize,
    /// Where the run is written down.
    pub dir: &'a Path,
    /// What the names of the load's rooms begin with.
    pub rooms: &'a str,
    /// Whom clients of the target trust.
    pub trust: Trust,
    /// The phase: pauses and delays are drawn from it.
    pub rng: SmallRng,
}

impl FaultInjector<'_> {
    /// Does it and heals it. Returns when everything is whole again; a line for each process that was hit.
    ///
    /// # Errors
    /// When the target could not be healed: the run cannot go on.
    pub async fn inject(mut self, kind: FaultKind) -> anyhow::Result<Vec<record::FaultRecord>> {
        let target = self.target;
        let before = target.timeline().await;
        let mut faults = match kind {
            FaultKind::Term(role) => vec![self.term(role).await?],
            FaultKind::TermTwice(role) => vec![self.term_twice(role).await?],
            FaultKind::TermStarting(role) => self.term_starting(role).await?,
            FaultKind::TermEvery(role) => self.term_every(role).await?,
            FaultKind::Roll(role) => vec![self.roll(role).await?],
            FaultKind::Kill(role) => vec![self.kill(role).await?],
            FaultKind::KillLeader(role) => vec![self.kill_leader(role).await?],
            FaultKind::FailOver => vec![self.fail_over().await?],
            FaultKind::KillPatroni => vec![self.kill_patroni().await?],
            FaultKind::KillPostmaster => vec![self.kill_postmaster().await?],
            FaultKind::Switchover => vec![self.switchover().await?],
            FaultKind::KillStopping(role) => vec![self.kill_stopping(role).await?],
            FaultKind::KillOneOfEach => {
                let places = Role::SERVICES.map(|role| self.pick(role));
                self.kill_all(&places.into_iter().flatten().collect::<Vec<_>>()).await?
            }
            FaultKind::KillEvery(role) => self.kill_all(&self.target.places(role)).await?,
            FaultKind::Freeze(role, length) => vec![self.freeze(role, length.time()).await?],
            FaultKind::AllAtOnce => self.all_at_once().await?,
            FaultKind::Restart(role) => vec![self.restart(role).await?],
            FaultKind::Wipe(role) => vec![self.wipe(role).await?],
            FaultKind::OldRedis => vec![self.old_redis().await?],
            FaultKind::Crash => vec![self.crash().await?],
            FaultKind::Sessions => vec![self.sessions().await?],
            FaultKind::Restore => vec![self.restore().await?],
            FaultKind::Partition(role) => vec![self.partition(role).await?],
            FaultKind::Cut(link, trouble) => vec![self.cut(link, trouble).await?],
            FaultKind::Disconnect(role) => vec![self.disconnect(role).await?],
            FaultKind::Due => self.due().await?,
            FaultKind::Revoke => self.revoke().await?,
            FaultKind::LogGone(role) => self.log_gone(role).await?,
            FaultKind::LogStuck(role) => vec![self.log_stuck(role).await?],
            FaultKind::FullDisk => vec![self.full_disk().await?],
        };
        // A fault of several steps names its own kinds: what is left takes the name of the whole.
        for fault in &mut faults {
            if fault.kind.is_empty() {
                fault.kind = kind.to_string();
            }
        }
        // Whatever it was, it has led to a promotion: the store's epoch may be another one.
        if before != target.timeline().await
            && let Some(fault) = faults.first_mut()
        {
            fault.kind.push_str(", failover");
        }
        Ok(faults)
    }

    /// The process whose turn it is.
    fn pick(&self, role: Role) -> Option<Place> {
        let places = self.target.places(role);
        // In turn, not by chance: a short run hits every process.
        (!places.is_empty()).then(|| places[self.turn % places.len()])
    }

    /// A line about something that begins now.
    fn begin(&self, target: impl fmt::Display) -> record::FaultRecord {
        let now = self.clock.now_us();
        record::FaultRecord {
            round: self.round,
            kind: String::new(),
            target: target.to_string(),
            began_us: now,
            healed_us: now,
            hit: false,
            exit: None,
            copied_us: None,
            note: String::new(),
        }
    }

    fn heal(&self, fault: &mut record::FaultRecord) {
        fault.healed_us = self.clock.now_us();
    }
}

/// Writes down what the judge reads besides the clients, behind what earlier rounds wrote.
fn append_lines<T: Serialize>(path: &Path, all: &[T]) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for one in all {
        serde_json::to_writer(&mut lines, one)?;
        lines.push(b'\n');
    }
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(&lines).with_context(|| format!("cannot write {}", path.display()))
}

/// The line about an end that is to be judged; `None` when nobody could see the exit code.
#[must_use]
pub fn exit_of(ended: &Ended, budget: Duration) -> Option<ProcessExit> {
    let code = match ended.how {
        Ending::Code(code) => Some(code),
        Ending::Signal(_) => None,
        // Not judged: whoever is no parent of a process cannot read how it ended.
        Ending::Unseen => return None,
    };
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Some(ProcessExit { code, took_ms: ms(ended.took), budget_ms: ms(budget) })
}
