//! What cannot be done to a deployment that is given, and which option would make it possible. Decides by what was named,
//! before anything is touched.

use super::Wanted;
use crate::fault::FaultKind;
use crate::place::{Place, Role};

impl Wanted {
    /// Why a fault cannot be done; `None` = it can.
    #[must_use]
    pub fn refuses(&self, kind: FaultKind) -> Option<String> {
        match kind {
            FaultKind::Term(role)
            | FaultKind::Kill(role)
            | FaultKind::TermTwice(role)
            | FaultKind::KillStopping(role)
            | FaultKind::TermEvery(role)
            | FaultKind::KillEvery(role)
            | FaultKind::Restart(role) => self.cannot_return(role),
            FaultKind::Due => self.cannot_return(Role::Task),
            FaultKind::Revoke if self.apis.is_empty() => Some("it needs --api URL and --api-key KEY".into()),
            FaultKind::Revoke => {
                [Role::Gateway, Role::Logic].into_iter().find_map(|role| self.cannot_return(role))
            }
            FaultKind::KillOneOfEach => Role::SERVICES.into_iter().find_map(|role| self.cannot_return(role)),
            FaultKind::Freeze(Role::Postgres, _) if !self.is_contained(Role::Postgres) => {
                Some("PostgreSQL is a family of processes: it needs --container postgres=NAME".into())
            }
            FaultKind::Freeze(role, _) => self.cannot_reach(role),
            FaultKind::Disconnect(role) if !self.is_contained(role) => {
                Some(format!("it needs --container {}=NAME", Place { role, index: 0 }))
            }
            FaultKind::Roll(_) if self.roll_command.is_none() => {
                Some("it needs --roll-command COMMAND".into())
            }
            FaultKind::Sessions if !self.store.as_ref().is_some_and(|url| url.starts_with("postgres")) => {
                Some("it needs --store postgres://…".into())
            }
            FaultKind::FullDisk => self.cannot_reach(Role::Dev),
            FaultKind::Disconnect(_) | FaultKind::Roll(_) | FaultKind::Sessions => None,
            FaultKind::TermStarting(_)
            | FaultKind::KillLeader(_)
            | FaultKind::FailOver
            | FaultKind::KillPatroni
            | FaultKind::KillPostmaster
            | FaultKind::Switchover
            | FaultKind::AllAtOnce
            | FaultKind::Wipe(_)
            | FaultKind::OldRedis
            | FaultKind::Crash
            | FaultKind::Restore
            | FaultKind::Partition(_)
            | FaultKind::Cut(..)
            | FaultKind::LogGone(_)
            | FaultKind::LogStuck(_) => {
                Some("only a cluster of the drill's own: leave --gateway and --spawn away".into())
            }
        }
    }

    /// All places of a kind that were named by this option.
    fn named(texts: &[String], role: Role) -> impl Iterator<Item = Place> {
        let places = texts.iter().filter_map(|text| text.split_once('=')?.0.parse::<Place>().ok());
        places.filter(move |place| place.role == role)
    }

    fn is_contained(&self, role: Role) -> bool {
        Self::named(&self.containers, role).next().is_some() && Self::named(&self.pids, role).next().is_none()
    }

    fn cannot_reach(&self, role: Role) -> Option<String> {
        let first = Place { role, index: 0 };
        if role == Role::Dev {
            return self.spawn.is_none().then(|| "it needs --spawn COMMAND".into());
        }
        let named = Self::named(&self.pids, role).chain(Self::named(&self.containers, role)).next();
        named.is_none().then(|| format!("it needs --pid {first}=PID or --container {first}=NAME"))
    }

    fn cannot_return(&self, role: Role) -> Option<String> {
        self.cannot_reach(role).or_else(|| {
            let returns = |place: &Place| Self::named(&self.restarts, role).any(|known| known == *place);
            let lost = Self::named(&self.pids, role).find(|place| !returns(place));
            lost.map(|place| format!("it needs --restart '{place}=COMMAND'"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FreezeLength;

    #[test]
    fn what_was_not_named_is_refused_with_the_option_that_names_it() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let wanted = Wanted {
            pids: texts(&["gateway-1=1", "logic-1=2"]),
            restarts: texts(&["gateway-1=run"]),
            containers: texts(&["redis=r"]),
            ..Wanted::default()
        };
        assert_eq!(wanted.refuses(FaultKind::Term(Role::Gateway)), None);
        assert_eq!(wanted.refuses(FaultKind::Freeze(Role::Logic, FreezeLength::Short)), None);
        assert_eq!(wanted.refuses(FaultKind::Restart(Role::Redis)), None);
        assert_eq!(wanted.refuses(FaultKind::Disconnect(Role::Redis)), None);
        for (kind, option) in [
            (FaultKind::Kill(Role::Logic), "--restart 'logic-1="),
            (FaultKind::Kill(Role::Task), "--pid task-1="),
            (FaultKind::Kill(Role::Dev), "--spawn"),
            (FaultKind::Disconnect(Role::Gateway), "--container gateway-1="),
            (FaultKind::Roll(Role::Gateway), "--roll-command"),
            (FaultKind::Revoke, "--api URL"),
            (FaultKind::Sessions, "--store"),
            (FaultKind::FullDisk, "--spawn"),
            (FaultKind::Restore, "--gateway"),
        ] {
            let said = wanted.refuses(kind).unwrap();
            assert!(said.contains(option), "{kind}: {said}");
        }
    }
}
