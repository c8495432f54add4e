//! What an instance is, from its name or its program. It touches no process.

use std::fmt;
use std::str::FromStr;

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
