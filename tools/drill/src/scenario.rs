//! The scenarios: which faults, in which order. Pure: the same seed gives the same rounds.

use std::fmt;
use std::str::FromStr;

use rand::RngExt;
use rand::seq::SliceRandom;

use crate::fault::{FaultKind, FreezeLength};
use crate::links::Link;
use crate::load::Plan;
use crate::place::Role;
use crate::proxy::Trouble;
use crate::seed::Seed;

/// Clients of a herd that only read and come back.
const CROWD: u32 = 10_000;
/// Clients in the room that is watched: two who watch, six who stay, three each who end by their wish or by a fault.
const WATCHED: u32 = 14;

/// Part of the publishes that comes by the API of logic.
const API_SHARE: f64 = 0.1;

/// What is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Nothing: load and judgement alone.
    Calm,
    /// SIGTERM and SIGKILL to each service.
    Quick,
    /// Every service is replaced, one by one.
    Roll,
    /// Processes die.
    Crash,
    /// Processes stand still.
    Freeze,
    /// The servers below are restarted, frozen, wiped.
    Stores,
    /// Links are cut, swallow or crawl.
    Network,
    /// All gateways at once.
    Storm,
    /// Gateways go, and a crowd comes back.
    Herd,
    /// Everything at once, stores included.
    AllAtOnce,
    /// An older copy of the store comes back.
    Restore,
    /// Signals during start-up and during a stop.
    Startup,
    /// What reads the logs goes away or stands still, and stops are asked for.
    Logs,
    /// Delayed messages are due while tasks go.
    Due,
    /// All of them.
    Mix,
}

const NAMES: [(&str, Scenario, &str); 15] = [
    ("quick", Scenario::Quick, "SIGTERM and SIGKILL to each service: three minutes"),
    ("mix", Scenario::Mix, "one of each fault there is: ten minutes"),
    ("calm", Scenario::Calm, "no fault at all"),
    ("roll", Scenario::Roll, "every service is replaced, one by one; users are disconnected meanwhile"),
    ("crash", Scenario::Crash, "processes are killed, alone and together"),
    ("freeze", Scenario::Freeze, "processes stand still, up to twice their lease"),
    (
        "stores",
        Scenario::Stores,
        "NATS, etcd, Redis and PostgreSQL restart, stand still, forget, lose their leader; a disk is full",
    ),
    ("network", Scenario::Network, "links are cut, swallow bytes or crawl"),
    ("storm", Scenario::Storm, "all gateways go at once"),
    (
        "herd",
        Scenario::Herd,
        "gateways stop, die, roll, all at once, and 10,000 clients with 10 rooms each come back",
    ),
    ("all-at-once", Scenario::AllAtOnce, "SIGTERM to everything within 50 ms, stores included"),
    ("restore", Scenario::Restore, "an older copy of the store is put back"),
    ("startup", Scenario::Startup, "signals during a start-up and during a stop"),
    ("logs", Scenario::Logs, "stops while the log's reader is gone or stands still"),
    ("due", Scenario::Due, "delayed messages are due, and cancelled, while tasks are killed and rolled"),
];

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, scenario, _)| scenario == self);
        f.write_str(name.map_or("", |(name, ..)| name))
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(name, ..)| *name == text).map(|(_, scenario, _)| *scenario);
        found.ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, ..)| *name).collect();
            format!("{text:?} is no scenario: {}", names.join(", "))
        })
    }
}

impl Scenario {
    /// Name and meaning of each, for a help page.
    #[must_use]
    pub fn explained() -> String {
        NAMES.iter().map(|(name, _, text)| format!("  {name:<12} {text}\n")).collect()
    }

    /// The kinds of faults it is made of.
    #[must_use]
    pub fn fault_kinds(self) -> Vec<FaultKind> {
        match self {
            Self::Calm => Vec::new(),
            Self::Quick => each(&Role::SERVICES, &[FaultKind::Term, FaultKind::Kill]),
            Self::Roll => {
                let besides = vec![FaultKind::Roll(Role::Gateway), FaultKind::Revoke];
                [each(&Role::SERVICES, &[FaultKind::Term]), besides].concat()
            }
            Self::Crash => crash(),
            Self::Freeze => freeze(),
            Self::Stores => stores(),
            Self::Network => {
                [network(&Trouble::ALL), each(&Role::SERVICES, &[FaultKind::Disconnect])].concat()
            }
            Self::Storm => vec![FaultKind::TermEvery(Role::Gateway), FaultKind::KillEvery(Role::Gateway)],
            Self::Herd => herd(),
            Self::AllAtOnce => vec![FaultKind::AllAtOnce],
            Self::Restore => vec![FaultKind::Restore],
            Self::Startup => startup(),
            Self::Logs => logs(),
            Self::Due => vec![FaultKind::Due],
            Self::Mix => mix(),
        }
    }

    /// The load when nobody says another: of a herd the crowd is most of it, and nobody else is in its way.
    #[must_use]
    pub fn usual_plan(self) -> Plan {
        let plan = Plan { api_share: API_SHARE, ..Plan::default() };
        match self {
            // A thousand rooms of equal weight: with a few large ones the crowd would ask for the same
            // pages, and what they cost is the question here.
            Self::Herd => Plan {
                clients: 40,
                rate_per_s: 100,
                rooms: 1_000,
                zipf: 0.0,
                crowd: CROWD,
                large_in: 0,
                ..plan
            },
            // Where nothing stands still: then who was away for how long is known.
            Self::Quick | Self::Roll => Plan { watched: WATCHED, ..plan },
            Self::Calm
            | Self::Crash
            | Self::Freeze
            | Self::Stores
            | Self::Network
            | Self::Storm
            | Self::AllAtOnce
            | Self::Restore
            | Self::Startup
            | Self::Logs
            | Self::Due
            | Self::Mix => plan,
        }
    }

    /// Rounds when nobody says how many.
    #[must_use]
    pub fn usual_rounds(self, kinds: usize) -> usize {
        match self {
            Self::Calm => 0,
            Self::Quick | Self::Storm | Self::Roll | Self::Herd => kinds * 2,
            Self::AllAtOnce | Self::Restore | Self::Due => 3,
            Self::Crash
            | Self::Freeze
            | Self::Stores
            | Self::Network
            | Self::Startup
            | Self::Logs
            | Self::Mix => kinds,
        }
    }
}

fn each(roles: &[Role], kinds: &[fn(Role) -> FaultKind]) -> Vec<FaultKind> {
    kinds.iter().flat_map(|kind| roles.iter().map(|role| kind(*role))).collect()
}

fn herd() -> Vec<FaultKind> {
    let mut kinds = each(&[Role::Gateway], &[FaultKind::Term, FaultKind::Kill, FaultKind::Roll]);
    kinds.extend([FaultKind::TermEvery(Role::Gateway), FaultKind::KillEvery(Role::Gateway)]);
    kinds
}

fn crash() -> Vec<FaultKind> {
    let mut kinds = each(&Role::SERVICES, &[FaultKind::Kill, FaultKind::KillStopping, FaultKind::KillEvery]);
    kinds.extend([FaultKind::KillOneOfEach, FaultKind::Kill(Role::Dev), FaultKind::Term(Role::Dev)]);
    kinds
}

fn freeze() -> Vec<FaultKind> {
    Role::SERVICES
        .iter()
        .flat_map(|role| FreezeLength::OF_ONE.map(|length| FaultKind::Freeze(*role, length)))
        .collect()
}

fn stores() -> Vec<FaultKind> {
    let mut kinds = each(
        &Role::FORGETFUL,
        &[FaultKind::Restart, FaultKind::Kill, FaultKind::KillLeader, FaultKind::Wipe],
    );
    for role in Role::FORGETFUL.into_iter().chain([Role::Postgres]) {
        kinds.extend([
            FaultKind::Freeze(role, FreezeLength::Short),
            FaultKind::Freeze(role, FreezeLength::Long),
        ]);
    }
    kinds.push(FaultKind::Freeze(Role::Postgres, FreezeLength::Outage));
    kinds.extend(Role::FORGETFUL.into_iter().chain([Role::Postgres]).map(FaultKind::Partition));
    kinds.extend([
        FaultKind::KillLeader(Role::Postgres),
        FaultKind::KillPatroni,
        FaultKind::KillPostmaster,
        FaultKind::Switchover,
    ]);
    kinds.extend([
        FaultKind::FailOver,
        FaultKind::OldRedis,
        FaultKind::Restart(Role::Postgres),
        FaultKind::Crash,
        FaultKind::Sessions,
        FaultKind::FullDisk,
    ]);
    kinds
}

fn network(troubles: &[Trouble]) -> Vec<FaultKind> {
    Link::ALL
        .into_iter()
        .flat_map(|link| troubles.iter().map(move |trouble| FaultKind::Cut(link, *trouble)))
        .collect()
}

fn startup() -> Vec<FaultKind> {
    each(&Role::SERVICES, &[FaultKind::TermStarting, FaultKind::TermTwice, FaultKind::KillStopping])
}

fn logs() -> Vec<FaultKind> {
    each(&Role::SERVICES, &[FaultKind::LogGone, FaultKind::LogStuck])
}

fn mix() -> Vec<FaultKind> {
    let mut kinds = each(&Role::SERVICES, &[FaultKind::Term]);
    kinds.extend(crash());
    kinds.extend(freeze());
    kinds.extend(stores());
    kinds.extend(network(&[Trouble::Cut, Trouble::Swallow]));
    kinds.extend(startup());
    kinds.extend(logs());
    kinds.extend([
        FaultKind::TermEvery(Role::Gateway),
        FaultKind::AllAtOnce,
        FaultKind::Restore,
        FaultKind::Due,
        FaultKind::Revoke,
        FaultKind::Roll(Role::Gateway),
    ]);
    kinds.extend(each(&Role::SERVICES, &[FaultKind::Disconnect]));
    let mut seen = std::collections::HashSet::new();
    // Scenarios share kinds: each comes once a turn. A full disk is asked for: it needs a small one.
    kinds.retain(|kind| seen.insert(*kind) && *kind != FaultKind::FullDisk);
    kinds
}

/// One round to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// From 1.
    pub number: u32,
    /// What is done.
    pub kind: FaultKind,
    /// How often it was done before, plus an offset of the seed: which process it hits.
    pub turn: usize,
}

/// `rounds` rounds: every kind once in random order, again and again, so that they split evenly.
#[must_use]
pub fn plan(kinds: &[FaultKind], rounds: usize, seed: Seed) -> Vec<Round> {
    let mut rng = seed.stream("rounds", 0);
    // each kind begins with a process of its own, else a short run would hit only one of each service
    let first = |kind: &FaultKind, turn: usize| if kind.begins_with_leader() { turn & !1 } else { turn };
    let mut order: Vec<(FaultKind, usize)> =
        kinds.iter().map(|kind| (*kind, first(kind, rng.random_range(0..64)))).collect();
    let mut planned = Vec::with_capacity(rounds);
    while planned.len() < rounds && !order.is_empty() {
        let done = planned.len() / order.len();
        order.shuffle(&mut rng);
        for (kind, first) in order.iter().take(rounds - planned.len()) {
            let number = u32::try_from(planned.len() + 1).unwrap_or(u32::MAX);
            // The turn names the process hit, so a kind goes round its service's processes.
            planned.push(Round { number, kind: *kind, turn: first + done });
        }
    }
    planned
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn rounds_split_evenly_and_the_seed_decides() {
        let kinds = Scenario::Mix.fault_kinds();
        let rounds = plan(&kinds, kinds.len() * 3 + 5, Seed(7));
        assert_eq!(rounds, plan(&kinds, kinds.len() * 3 + 5, Seed(7)));
        assert_ne!(rounds, plan(&kinds, kinds.len() * 3 + 5, Seed(8)));
        let mut count: HashMap<FaultKind, usize> = HashMap::new();
        for round in &rounds {
            *count.entry(round.kind).or_default() += 1;
        }
        assert!(count.len() == kinds.len() && count.values().all(|n| (3..=4).contains(n)), "{count:?}");
        for kind in kinds {
            let turns: Vec<usize> = rounds.iter().filter(|r| r.kind == kind).map(|r| r.turn).collect();
            assert!(turns.windows(2).all(|pair| pair[1] == pair[0] + 1), "{kind}: {turns:?}");
        }
    }

    #[test]
    fn a_partition_hits_the_leader_first() {
        let partition = |kind: &FaultKind| matches!(kind, FaultKind::Partition(_));
        let kinds: Vec<FaultKind> = Scenario::Stores.fault_kinds().into_iter().filter(partition).collect();
        for seed in 0..20 {
            let rounds = plan(&kinds, 2 * kinds.len(), Seed(seed));
            let leads: Vec<bool> = rounds.iter().map(|round| round.turn.is_multiple_of(2)).collect();
            assert!(leads[..kinds.len()].iter().all(|leads| *leads), "{rounds:?}");
            assert!(!leads[kinds.len()..].iter().any(|leads| *leads), "{rounds:?}");
        }
    }

    #[test]
    fn quick_is_term_and_kill_of_each_service_twice() {
        let kinds = Scenario::Quick.fault_kinds();
        let names: Vec<String> = kinds.iter().map(FaultKind::to_string).collect();
        let wanted = ["term gateway", "term logic", "term task", "kill gateway", "kill logic", "kill task"]
            .map(String::from);
        assert_eq!(names, wanted);
        assert_eq!(Scenario::Quick.usual_rounds(kinds.len()), 12);
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let kinds =
            [Scenario::Mix.fault_kinds(), Scenario::Network.fault_kinds(), Scenario::Roll.fault_kinds()]
                .concat();
        let mut names: HashMap<String, FaultKind> = HashMap::new();
        for kind in kinds {
            let former = names.insert(kind.to_string(), kind);
            assert!(former.is_none_or(|former| former == kind), "{kind}");
        }
        assert!(
            names.contains_key("freeze task 0.5s") && names.contains_key("cut gateway→logic"),
            "{names:?}"
        );
    }

    #[test]
    fn names_are_read_and_filtered() {
        for (name, scenario, _) in NAMES {
            assert_eq!(name.parse::<Scenario>(), Ok(scenario));
            assert_eq!(scenario.to_string(), name);
        }
        assert!("chaos".parse::<Scenario>().unwrap_err().contains("all-at-once"));
        let logic: Vec<FaultKind> =
            Scenario::Mix.fault_kinds().into_iter().filter(|kind| kind.is_called("term logic")).collect();
        assert!(
            logic.contains(&FaultKind::Term(Role::Logic))
                && logic.contains(&FaultKind::TermTwice(Role::Logic))
        );
        assert_eq!(plan(&[], 5, Seed(1)), []);
    }
}
