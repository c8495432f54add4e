//! The two delivery machines in a small world of random trouble: a home shard and two others with bounded
//! queues, pushes lost, doubled, inverted and early, calls failed and late, trimming, restores, slow and
//! leaving clients. The store's list of each epoch is the oracle; when the trouble ends every reading
//! client must be Live. `SCHEDULES` sets how many schedules run, `SEED` the first of them.

mod calls;
mod clients;
mod flights;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use sluice_gateway::rules::{Faithful, Rule, Rules};

use world::World;

/// All rules but the `N`-th.
struct Without<const N: usize>;

impl<const N: usize> Rules for Without<N> {
    const WITHOUT: Option<Rule> = Some(Rule::DELIVERY[N]);
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn every_schedule_keeps_the_promises() {
    let first = setting("SEED", 1);
    for seed in first..first + setting("SCHEDULES", 3_000) {
        if let Err(panic) = catch_unwind(|| World::<Faithful>::run(seed)) {
            eprintln!("the schedule of SEED={seed} SCHEDULES=1 fails");
            std::panic::resume_unwind(panic);
        }
    }
}

/// After how many schedules the test notices, and what.
fn caught<const N: usize>() -> Option<(u64, String)> {
    (1..=setting("SCHEDULES", 3_000)).find_map(|seed| {
        let panic = catch_unwind(AssertUnwindSafe(|| World::<Without<N>>::run(seed))).err()?;
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Some((seed, text.unwrap_or_default()))
    })
}

#[test]
fn every_rule_is_needed() {
    let silent = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut found = Vec::new();
    macro_rules! look {
        ($($n:literal)*) => { $(found.push((Rule::DELIVERY[$n], caught::<$n>()));)* };
    }
    look!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21);
    std::panic::set_hook(silent);
    assert_eq!(found.len(), Rule::DELIVERY.len());
    for (rule, after) in &found {
        eprintln!("without {rule:?}: {after:?}");
    }
    let missed: Vec<_> = found.iter().filter(|(_, after)| after.is_none()).collect();
    eprintln!("{} of {} caught", found.len() - missed.len(), found.len());
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
