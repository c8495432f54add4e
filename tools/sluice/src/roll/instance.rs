//! What is rolled: instances in the order in which they go, each with a hold on its container or process.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sluice_drill::target::{Ended, Ending};
use sluice_launcher::probe;

use super::docker::Container;
use super::process::Process;

/// Longest wait for an answer of an admin page.
const LOOK: Duration = Duration::from_secs(3);

/// What an instance is; the order is the order of a roll: clients move once, then what carries, then what commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Gateway,
    Task,
    Logic,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Gateway, Self::Task, Self::Logic];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Task => "task",
            Self::Logic => "logic",
        }
    }

    /// Of a program, `/usr/local/bin/sluice-gateway`.
    pub(super) fn of_program(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?.strip_prefix("sluice-")?;
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `gateway-1`, `logic`: what it is comes first.
impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let first = name.split('-').next().unwrap_or(name);
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == first);
        kind.ok_or_else(|| format!("{name:?} does not say what it is: call it gateway-1, task-1 or logic-1"))
    }
}

/// One instance.
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) hold: Hold,
    /// Whether it is to be replaced; the others are only looked at, as nobody is taken away while one is missing.
    pub(super) wanted: bool,
}

/// What is signalled and started.
pub(super) enum Hold {
    Container(Container),
    Process(Box<Process>),
}

/// How it is right now, as far as the platform knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// Running; whether its health check, if it has one, agrees.
    Running { healthy: bool },
    /// Not running, and why.
    Ended(String),
}

/// How a stop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped {
    /// The exit code; `None` where only the parent of a process can know it.
    pub(super) code: Option<i32>,
    pub(super) took: Duration,
}

impl Stopped {
    /// As the drill says it.
    pub(super) fn ended(self) -> Ended {
        let how = match self.code {
            Some(code) if code > 128 => Ending::Signal(code - 128),
            Some(code) => Ending::Code(code),
            None => Ending::Unseen,
        };
        Ended { how, took: self.took }
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f32();
        match self.code {
            Some(code) => write!(f, "exit code {code} after {seconds:.1} s"),
            None => write!(f, "ended after {seconds:.1} s"),
        }
    }
}

impl Instance {
    /// Its admin page, where it can be reached from here.
    pub(super) fn admin(&self) -> Option<String> {
        match &self.hold {
            Hold::Container(container) => container.admin(),
            Hold::Process(process) => process.admin(),
        }
    }

    /// Why it is not ready; `None`: its health check and its admin page say that it is.
    pub(super) async fn lacks(&self) -> anyhow::Result<Option<Lack>> {
        let unhealthy = || Some(Lack::Passing("its health check has not passed".into()));
        Ok(match self.hold.condition().await? {
            Condition::Ended(why) => Some(Lack::Ended(why)),
            Condition::Running { healthy } => {
                self.unready().await.or_else(|| if healthy { None } else { unhealthy() })
            }
        })
    }

    /// Like [`Instance::lacks`]; a health check that fails beside an admin page that is ready only says that the
    /// machine is busy.
    pub(super) async fn is_missing(&self) -> anyhow::Result<Option<Lack>> {
        match self.hold.condition().await? {
            Condition::Running { .. } if self.admin().is_some() => Ok(self.unready().await),
            Condition::Running { .. } | Condition::Ended(_) => self.lacks().await,
        }
    }

    /// What its admin page has against it.
    async fn unready(&self) -> Option<Lack> {
        let url = format!("{}/readyz", self.admin()?.trim_end_matches('/'));
        match probe::get(&url, LOOK).await {
            Ok(answer) if answer.status == 200 => None,
            Ok(answer) => Some(Lack::Passing(format!("{url}: {} {}", answer.status, answer.body.trim()))),
            Err(error) => Some(Lack::Passing(format!("{url}: {error}"))),
        }
    }
}

/// Why an instance is not ready.
#[derive(Debug)]
pub(super) enum Lack {
    Passing(String),
    Ended(String),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passing(why) | Self::Ended(why) => f.write_str(why),
        }
    }
}

impl Hold {
    /// What tells this very process from the one before and after it; `None`: nothing runs.
    pub(super) async fn identity(&self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Container(container) => container.identity().await,
            Self::Process(process) => Ok(process.identity()),
        }
    }

    pub(super) async fn condition(&self) -> anyhow::Result<Condition> {
        match self {
            Self::Container(container) => container.condition().await,
            Self::Process(process) => Ok(process.condition()),
        }
    }

    /// SIGTERM, and the wait for the end.
    pub(super) async fn stop(&self) -> anyhow::Result<Stopped> {
        match self {
            Self::Container(container) => container.stop().await,
            Self::Process(process) => process.stop().await,
        }
    }

    /// Starts what does not run, and makes anew what has changed.
    pub(super) async fn start(&self) -> anyhow::Result<()> {
        match self {
            Self::Container(container) => container.start().await,
            Self::Process(process) => process.start(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_go_first_and_names_say_what_they_are() {
        assert!(Kind::Gateway < Kind::Task && Kind::Task < Kind::Logic);
        assert_eq!("gateway-7".parse(), Ok(Kind::Gateway));
        assert_eq!("logic".parse(), Ok(Kind::Logic));
        assert!("web-1".parse::<Kind>().unwrap_err().contains("gateway-1"));
        assert_eq!(Kind::of_program("/usr/local/bin/sluice-task"), Some(Kind::Task));
        for path in ["/usr/local/bin/sluice", "redis-server", "sluice-redis"] {
            assert_eq!(Kind::of_program(path), None, "{path}");
        }
    }
}
