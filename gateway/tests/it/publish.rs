//! Random schedules of the publish path against its promises: the real session and lane machines, with a
//! model of clients, network, logic and store around them.
//!
//! Every rule that looks superfluous has a mutant here; a mutant that no schedule catches fails the test.

mod client;
mod world;

use sluice_gateway::rules::{Faithful, Rule, Rules};

use world::World;

/// All rules but one.
macro_rules! without {
    ($($name:ident)*) => { $(
        struct $name;
        impl Rules for $name {
            const WITHOUT: Option<Rule> = Some(Rule::$name);
        }
    )* };
}
without!(Fence FenceAtForming RetryInPlace);

/// Runs a schedule: what it broke.
fn run(seed: u64, mutant: Option<Mutant>) -> Option<String> {
    match mutant {
        Some(Mutant::NoFence) => World::<Fence>::new(seed, mutant).run(),
        Some(Mutant::FenceHeardLate) => World::<FenceAtForming>::new(seed, mutant).run(),
        Some(Mutant::RetryAtTheEnd) => World::<RetryInPlace>::new(seed, mutant).run(),
        Some(_) | None => World::<Faithful>::new(seed, mutant).run(),
    }
}

/// Readings of the rules that must each break a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    /// The lane hears of the fence only after it has formed its next batch.
    FenceHeardLate,
    /// No fence, because the connection is closed already.
    NoFenceWhenClosed,
    /// A publish that waits for space in its lane is forgotten by the fence.
    WaitingForgotten,
    /// No fence at all.
    NoFence,
    /// A failed batch goes to the end of its lane.
    RetryAtTheEnd,
    /// A client sends new publishes before the unanswered ones.
    NewBeforeUnanswered,
    /// An anonymous client comes back as somebody else.
    NewIdentity,
    /// Overload is answered by a refusal instead of not reading.
    OverloadRefused,
    /// Two instances judge the same input differently.
    LimitsDiffer,
    /// Minted keys come from a counter that restarts.
    MintedAgain,
    /// A publish without key has none on its way either.
    NoMintedKey,
    /// A drain closes before outcomes.
    DrainDropsOutcomes,
}

const MUTANTS: [Mutant; 12] = [
    Mutant::FenceHeardLate,
    Mutant::NoFenceWhenClosed,
    Mutant::WaitingForgotten,
    Mutant::NoFence,
    Mutant::RetryAtTheEnd,
    Mutant::NewBeforeUnanswered,
    Mutant::NewIdentity,
    Mutant::OverloadRefused,
    Mutant::LimitsDiffer,
    Mutant::MintedAgain,
    Mutant::NoMintedKey,
    Mutant::DrainDropsOutcomes,
];

/// How many schedules; `SCHEDULES=n` for more.
fn schedules(default: u64) -> u64 {
    std::env::var("SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn every_schedule_keeps_the_promises() {
    for seed in 0..schedules(2_000) {
        let broken = run(seed, None);
        assert_eq!(broken, None, "seed {seed}");
    }
}

#[test]
fn every_mutant_is_caught() {
    let most = schedules(3_000);
    let mut missed = Vec::new();
    for mutant in MUTANTS {
        let caught = (0..most).find_map(|seed| Some((seed, run(seed, Some(mutant))?)));
        match caught {
            Some((seed, broken)) => println!("{mutant:?}: caught by schedule {seed}: {broken}"),
            None => missed.push(mutant),
        }
    }
    println!("{} of {} caught", MUTANTS.len() - missed.len(), MUTANTS.len());
    assert!(missed.is_empty(), "not caught in {most} schedules: {missed:?}");
}
