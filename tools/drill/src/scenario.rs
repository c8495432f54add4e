//! The scenarios: which faults, in which order. Pure: the same seed gives the same rounds.

use std::fmt;
use std::str::FromStr;

use rand::RngExt;
use rand::seq::SliceRandom;

use crate::fault::{Act, Spell};
use crate::links::Link;
use crate::place::Role;
use crate::proxy::Trouble;
use crate::seed::Seed;

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
    /// Everything at once, stores included.
    AllAtOnce,
    /// An older copy of the store comes back.
    Restore,
    /// Signals during start-up and during a stop.
    Startup,
    /// All of them.
    Mix,
}

const NAMES: [(&str, Scenario, &str); 12] = [
    ("quick", Scenario::Quick, "SIGTERM and SIGKILL to each service: three minutes"),
    ("mix", Scenario::Mix, "one of each fault there is: ten minutes"),
    ("calm", Scenario::Calm, "no fault at all"),
    ("roll", Scenario::Roll, "every service is replaced, one by one"),
    ("crash", Scenario::Crash, "processes are killed, alone and together"),
    ("freeze", Scenario::Freeze, "processes stand still, up to twice their lease"),
    ("stores", Scenario::Stores, "NATS, etcd, Redis and PostgreSQL restart, stand still, forget"),
    ("network", Scenario::Network, "links are cut, swallow bytes or crawl"),
    ("storm", Scenario::Storm, "all gateways go at once"),
    ("all-at-once", Scenario::AllAtOnce, "SIGTERM to everything within 50 ms, stores included"),
    ("restore", Scenario::Restore, "an older copy of the store is put back"),
    ("startup", Scenario::Startup, "signals during a start-up and during a stop"),
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
    pub fn acts(self) -> Vec<Act> {
        match self {
            Self::Calm => Vec::new(),
            Self::Quick => each(&Role::SERVICES, &[Act::Term, Act::Kill]),
            Self::Roll => [each(&Role::SERVICES, &[Act::Term]), vec![Act::Roll(Role::Gateway)]].concat(),
            Self::Crash => crash(),
            Self::Freeze => freeze(),
            Self::Stores => stores(),
            Self::Network => [network(&Trouble::ALL), each(&Role::SERVICES, &[Act::Disconnect])].concat(),
            Self::Storm => vec![Act::TermEvery(Role::Gateway), Act::KillEvery(Role::Gateway)],
            Self::AllAtOnce => vec![Act::AllAtOnce],
            Self::Restore => vec![Act::Restore],
            Self::Startup => startup(),
            Self::Mix => mix(),
        }
    }

    /// Rounds when nobody says how many.
    #[must_use]
    pub fn usual_rounds(self, kinds: usize) -> usize {
        match self {
            Self::Calm => 0,
            Self::Quick | Self::Storm | Self::Roll => kinds * 2,
            Self::AllAtOnce | Self::Restore => 3,
            Self::Crash | Self::Freeze | Self::Stores | Self::Network | Self::Startup | Self::Mix => kinds,
        }
    }
}

fn each(roles: &[Role], acts: &[fn(Role) -> Act]) -> Vec<Act> {
    acts.iter().flat_map(|act| roles.iter().map(|role| act(*role))).collect()
}

fn crash() -> Vec<Act> {
    let mut acts = each(&Role::SERVICES, &[Act::Kill, Act::KillStopping, Act::KillEvery]);
    acts.extend([Act::KillOneOfEach, Act::Kill(Role::Dev), Act::Term(Role::Dev)]);
    acts
}

fn freeze() -> Vec<Act> {
    Role::SERVICES.iter().flat_map(|role| Spell::OF_ONE.map(|spell| Act::Freeze(*role, spell))).collect()
}

fn stores() -> Vec<Act> {
    let mut acts = each(&Role::FORGETFUL, &[Act::Restart, Act::Kill, Act::Wipe]);
    for role in Role::FORGETFUL.into_iter().chain([Role::Postgres]) {
        acts.extend([Act::Freeze(role, Spell::Short), Act::Freeze(role, Spell::Long)]);
    }
    acts.push(Act::Freeze(Role::Postgres, Spell::Outage));
    acts.extend([Act::OldRedis, Act::Restart(Role::Postgres), Act::Crash, Act::Sessions]);
    acts
}

fn network(troubles: &[Trouble]) -> Vec<Act> {
    Link::ALL
        .into_iter()
        .flat_map(|link| troubles.iter().map(move |trouble| Act::Cut(link, *trouble)))
        .collect()
}

fn startup() -> Vec<Act> {
    each(&Role::SERVICES, &[Act::TermStarting, Act::TermTwice, Act::KillStopping])
}

fn mix() -> Vec<Act> {
    let mut acts = each(&Role::SERVICES, &[Act::Term]);
    acts.extend(crash());
    acts.extend(freeze());
    acts.extend(stores());
    acts.extend(network(&[Trouble::Cut, Trouble::Swallow]));
    acts.extend(startup());
    acts.extend([Act::TermEvery(Role::Gateway), Act::AllAtOnce, Act::Restore, Act::Roll(Role::Gateway)]);
    acts.extend(each(&Role::SERVICES, &[Act::Disconnect]));
    let mut seen = std::collections::HashSet::new();
    acts.retain(|act| seen.insert(*act));
    acts
}

/// One round to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// From 1.
    pub number: u32,
    /// What is done.
    pub act: Act,
    /// How often it was done before, plus an offset of the seed: which process it hits.
    pub turn: usize,
}

/// `rounds` rounds: every kind once in random order, again and again, so that they split evenly.
#[must_use]
pub fn plan(acts: &[Act], rounds: usize, seed: Seed) -> Vec<Round> {
    let mut rng = seed.stream("rounds", 0);
    // each kind begins with a process of its own, else a short run would hit only one of each service
    let mut order: Vec<(Act, usize)> = acts.iter().map(|act| (*act, rng.random_range(0..64))).collect();
    let mut planned = Vec::with_capacity(rounds);
    while planned.len() < rounds && !order.is_empty() {
        let done = planned.len() / order.len();
        order.shuffle(&mut rng);
        for (act, first) in order.iter().take(rounds - planned.len()) {
            let number = u32::try_from(planned.len() + 1).unwrap_or(u32::MAX);
            planned.push(Round { number, act: *act, turn: first + done });
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
        let acts = Scenario::Mix.acts();
        let rounds = plan(&acts, acts.len() * 3 + 5, Seed(7));
        assert_eq!(rounds, plan(&acts, acts.len() * 3 + 5, Seed(7)));
        assert_ne!(rounds, plan(&acts, acts.len() * 3 + 5, Seed(8)));
        let mut count: HashMap<Act, usize> = HashMap::new();
        for round in &rounds {
            *count.entry(round.act).or_default() += 1;
        }
        assert!(count.len() == acts.len() && count.values().all(|n| (3..=4).contains(n)), "{count:?}");
        for act in acts {
            let turns: Vec<usize> = rounds.iter().filter(|r| r.act == act).map(|r| r.turn).collect();
            assert!(turns.windows(2).all(|pair| pair[1] == pair[0] + 1), "{act}: {turns:?}");
        }
    }

    #[test]
    fn quick_is_term_and_kill_of_each_service_twice() {
        let acts = Scenario::Quick.acts();
        let names: Vec<String> = acts.iter().map(Act::to_string).collect();
        let wanted = ["term gateway", "term logic", "term task", "kill gateway", "kill logic", "kill task"]
            .map(String::from);
        assert_eq!(names, wanted);
        assert_eq!(Scenario::Quick.usual_rounds(acts.len()), 12);
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let acts = [Scenario::Mix.acts(), Scenario::Network.acts(), Scenario::Roll.acts()].concat();
        let mut names: HashMap<String, Act> = HashMap::new();
        for act in acts {
            let former = names.insert(act.to_string(), act);
            assert!(former.is_none_or(|former| former == act), "{act}");
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
        let logic: Vec<Act> =
            Scenario::Mix.acts().into_iter().filter(|act| act.is_called("term logic")).collect();
        assert!(logic.contains(&Act::Term(Role::Logic)) && logic.contains(&Act::TermTwice(Role::Logic)));
        assert_eq!(plan(&[], 5, Seed(1)), []);
    }
}
