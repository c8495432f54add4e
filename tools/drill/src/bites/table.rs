//! Which bug shows on which setup. Data only.
//!
//! A setup is the smallest run on which its bugs show every time. Where the design has a second defence that makes good
//! what a bug spoils, that defence is switched off beside it; the setup with only the defence off is run before, and
//! must be green: what is red then is the bug's doing.

use std::time::Duration;

use sluice_judge::verdict::AnomalyKind;

use crate::links::Link;
use crate::load::Plan;
use crate::run;
use crate::scenario::Scenario;

/// A run, without its seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setup {
    /// Its name in the table.
    pub name: &'static str,
    /// Where its faults come from.
    pub scenario: Scenario,
    /// Only faults with one of these names.
    pub only: &'static [&'static str],
    /// How many.
    pub rounds: usize,
    /// Clients, publishes a second, rooms.
    pub load: [u32; 3],
    /// How long the load lasts when there is no fault.
    pub calm: Duration,
    /// Part of the clients that leaves and comes back.
    pub churn_share: f64,
    /// Part of the clients that reads slowly.
    pub slow_share: f64,
    /// Whether all clients are written without the library, who judge each connection by itself.
    pub plain: bool,
    /// Whether rooms are equally popular, so that each is quiet.
    pub quiet: bool,
    /// One message in so many has 64 KiB: what is not read soon fills every buffer on the way.
    pub large_in: u32,
    /// Clients in the room that is watched.
    pub watched: u32,
    /// Settings of the services.
    pub settings: &'static [&'static str],
    /// Bad neighbours of the clients.
    pub habits: &'static [&'static str],
    /// Links that are slow while the load runs.
    pub slow_links: &'static [Link],
}

const SETUP: Setup = Setup {
    name: "",
    scenario: Scenario::Mix,
    only: &[],
    rounds: 1,
    load: [30, 150, 10],
    calm: run::CALM,
    churn_share: 0.1,
    slow_share: 0.015,
    plain: false,
    quiet: false,
    large_in: 2_000,
    watched: 0,
    settings: &[],
    habits: &[],
    slow_links: &[],
};

/// Processes die under load: what was half done is finished by others.
const KILLS: Setup = Setup {
    name: "kills",
    scenario: Scenario::Quick,
    only: &["kill gateway", "kill logic"],
    rounds: 4,
    ..SETUP
};
/// Only logics die, again and again: what one had in its hands another one is sent while the store still does it.
const KILLED_LOGICS: Setup = Setup { name: "killed logics", only: &["kill logic"], rounds: 8, ..KILLS };
/// The store stands still for so long that gateways give up: what was sent later must not overtake what is sent again.
const OUTAGE: Setup = Setup { name: "outage", only: &["freeze postgres 12s"], rounds: 1, ..SETUP };
/// A logic stands still for longer than a try: a batch is sent again while more of the same senders waits.
const FROZEN_LOGIC: Setup = Setup { name: "frozen logic", only: &["freeze logic 5s"], rounds: 2, ..SETUP };
/// A gateway misses pushes in rooms that stay quiet. Its lease outlives the freeze, or its clients would all come anew.
const FROZEN_GATEWAY: Setup = Setup {
    name: "frozen gateway",
    only: &["freeze gateway 5s"],
    rounds: 2,
    load: [120, 100, 150],
    quiet: true,
    settings: &["all.etcd.lease_ttl_s=20"],
    ..SETUP
};
/// A task dies with notices in its hands, in rooms that stay quiet.
const DEAD_TASK: Setup = Setup {
    name: "dead task",
    scenario: Scenario::Quick,
    only: &["kill task"],
    rounds: 3,
    load: [120, 100, 150],
    quiet: true,
    ..SETUP
};
/// Gateways stop under load.
const STOPS: Setup = Setup {
    name: "stops",
    scenario: Scenario::Quick,
    only: &["term gateway"],
    rounds: 2,
    load: [24, 300, 24],
    plain: true,
    ..SETUP
};
/// Nothing happens, but half of all read slowly what comes in masses. They fall out of every ring and catch up by
/// pages, each shorter than what is missing: a page that counts as everything leaves a gap.
const SLOW_READERS: Setup = Setup {
    name: "slow readers",
    scenario: Scenario::Calm,
    rounds: 0,
    load: [20, 120, 1],
    slow_share: 0.5,
    large_in: 5,
    ..SETUP
};
/// The same, but whoever was live and has fallen behind by more than what the buffers on the way hold is cut short.
const CUT_SHORT: Setup = Setup { name: "cut short", settings: &["gateway.max_behind=50"], ..SLOW_READERS };
/// Gateways stop under the eyes of those who watch a room: everybody moves, and nobody leaves.
const WATCHED: Setup = Setup {
    name: "watched",
    scenario: Scenario::Quick,
    only: &["term gateway"],
    rounds: 2,
    watched: 14,
    ..SETUP
};
/// An older copy of the store comes back.
const OLD_STORE: Setup = Setup { name: "old store", only: &["restore postgres"], ..SETUP };
/// Redis forgets everything.
const EMPTY_REDIS: Setup = Setup { name: "empty redis", only: &["wipe redis"], ..SETUP };

/// Nothing happens but that 400 connections ask for hundreds of rooms of their own each, while most of the others leave
/// rooms and come back to them. All are plain: of the library nobody sees how long it waits for an answer. The way to
/// logic is slow and the names are long, or what waits would be gone before anybody has lost patience; and no limit
/// keeps the rooms out that are to stand in the way.
const CREATOR: Setup = Setup {
    name: "creator",
    scenario: Scenario::Calm,
    rounds: 0,
    load: [60, 40, 20],
    churn_share: 0.7,
    plain: true,
    habits: &["long-names"],
    slow_links: &[Link::GatewayLogic],
    settings: &["gateway.limits.opened_rooms_per_s=0"],
    ..SETUP
};

/// A thousand delayed messages are due, and a third of them is cancelled.
const DELAYED: Setup = Setup { name: "delayed", scenario: Scenario::Due, ..SETUP };

/// A bug and where it shows.
#[derive(Debug, Clone, Copy)]
pub struct Bite {
    /// The bug's name.
    pub bug: &'static str,
    /// Bugs that switch off what would make good what it spoils.
    pub beside: &'static [&'static str],
    /// Where it shows.
    pub setup: Setup,
    /// As one of these.
    pub shows: &'static [AnomalyKind],
}

const fn bite(bug: &'static str, setup: Setup, shows: &'static [AnomalyKind]) -> Bite {
    Bite { bug, beside: &[], setup, shows }
}

/// All bites, those on the same setup together.
pub const BITES: &[Bite] = &[
    bite("answer-before-commit", KILLS, &[AnomalyKind::LostWrite]),
    bite("lookup-before-lock", KILLED_LOGICS, &[AnomalyKind::StoreHole, AnomalyKind::LostWrite]),
    bite("no-unique-key", KILLS, &[AnomalyKind::Duplicate]),
    bite("push-before-commit", KILLS, &[AnomalyKind::Phantom]),
    bite("ok-raises-head", KILLS, &[AnomalyKind::Gap]),
    bite(
        "retry-with-new-key",
        KILLS,
        &[AnomalyKind::Duplicate, AnomalyKind::Phantom, AnomalyKind::LostWrite],
    ),
    bite("no-fence", OUTAGE, &[AnomalyKind::Reordered]),
    bite("free-pipelining", FROZEN_LOGIC, &[AnomalyKind::Reordered]),
    bite("no-gap-repair", FROZEN_GATEWAY, &[AnomalyKind::Gap]),
    bite("no-tail-repair", FROZEN_GATEWAY, &[AnomalyKind::Gap]),
    Bite { beside: &["no-tail-repair"], ..bite("ack-before-push", DEAD_TASK, &[AnomalyKind::Gap]) },
    bite("no-goodbye", STOPS, &[AnomalyKind::Untold]),
    bite("drain-drops-outcomes", STOPS, &[AnomalyKind::Unresolved]),
    bite("wedged-stop", STOPS, &[AnomalyKind::BadExit]),
    bite("no-reaping", KILLS, &[AnomalyKind::PresenceWrong]),
    Bite {
        beside: &["no-reaping"],
        ..bite("exit-without-status-flush", STOPS, &[AnomalyKind::PresenceWrong])
    },
    bite("leave-at-disconnect", WATCHED, &[AnomalyKind::FalseLeave]),
    bite("history-before-interest", SLOW_READERS, &[AnomalyKind::Gap]),
    bite("full-queue-drops", SLOW_READERS, &[AnomalyKind::Gap]),
    bite("skip-not-told", CUT_SHORT, &[AnomalyKind::Gap]),
    bite(
        "epoch-ignored",
        OLD_STORE,
        &[
            AnomalyKind::Gap,
            AnomalyKind::Duplicate,
            AnomalyKind::Reordered,
            AnomalyKind::Phantom,
            AnomalyKind::Dishonest,
        ],
    ),
    bite("redis-not-healed", EMPTY_REDIS, &[AnomalyKind::PresenceWrong]),
    bite("fires-twice", DELAYED, &[AnomalyKind::Phantom]),
    bite("fires-early", DELAYED, &[AnomalyKind::Early]),
    bite("cancel-lies", DELAYED, &[AnomalyKind::Dishonest]),
    bite("queue-without-fairness", CREATOR, &[AnomalyKind::Starved]),
];

impl Setup {
    /// The load with this seed.
    #[must_use]
    pub fn plan(&self, seed: u64) -> Plan {
        let [clients, rate_per_s, rooms] = self.load;
        let plain_share = if self.plain { 1.0 } else { 0.5 };
        let zipf = if self.quiet { 0.0 } else { 1.0 };
        let Self { churn_share, slow_share, large_in, watched, .. } = *self;
        let plan = Plan { seed, clients, rate_per_s, rooms, ..Plan::default() };
        Plan { zipf, plain_share, churn_share, slow_share, large_in, watched, ..plan }
    }
}
