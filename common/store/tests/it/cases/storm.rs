//! The contract under everything at once: groups sent by several handles at the same time, resends, reused keys,
//! new rooms all the time, connections cut, the server crashing. Then every answer is held against the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use sluice_store::{Class, NewMessage, Outcome, Store, StoreError};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::contract::{LATER, message};
use crate::rig::{Rig, Table};

const HANDLES: usize = 3;
const WORKERS: usize = 12;
const HOT_ROOMS: u64 = 4;

/// Random numbers that a seed repeats.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 += 1;
        xxh3_64_with_seed(&self.0.to_le_bytes(), 0x51) % sides
    }
}

/// All answers anybody got, and what each worker sent first.
#[derive(Default)]
struct Heard {
    answers: Mutex<Vec<(NewMessage, Outcome)>>,
    /// Per worker and room: keys in the order of their first sending.
    sent: Mutex<BTreeMap<(String, String), Vec<String>>>,
    groups: AtomicU64,
    failures: AtomicU64,
    deadlocks: AtomicU64,
    stop: AtomicBool,
}

/// Sends a group to one handle again and again until it has an answer.
async fn insist(stores: &[Arc<dyn Store>], first: usize, group: &[NewMessage], heard: &Heard) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    for attempt in first.. {
        assert!(tokio::time::Instant::now() < patience, "a group without an answer for a minute");
        let lane = u8::try_from(attempt % 16).unwrap();
        match stores[attempt % stores.len()].publish(lane, LATER, group.to_vec()).await {
            Ok(committed) => {
                let rows = committed.rows.iter().map(|row| row.outcome);
                heard.answers.lock().unwrap().extend(group.iter().cloned().zip(rows));
                return;
            }
            Err(error) => {
                heard.failures.fetch_add(1, Ordering::Relaxed);
                if matches!(&error, StoreError::RolledBack { sqlstate, .. } if sqlstate == "40P01") {
                    heard.deadlocks.fetch_add(1, Ordering::Relaxed);
                }
                assert!([Class::Retry, Class::Unknown].contains(&error.class()), "{error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// The next group of a worker: mostly new keys, some old ones, some with other data, some twice.
fn next_group(worker: usize, dice: &mut Dice, past: &mut Vec<NewMessage>, heard: &Heard) -> Vec<NewMessage> {
    let sender = format!("w{worker}");
    let size = [1, 4, 16, 64][usize::try_from(dice.roll(4)).unwrap()];
    let mut group = Vec::new();
    for _ in 0..size {
        let old = (!past.is_empty()).then(|| past[dice.roll(past.len() as u64) as usize].clone());
        let item = match (dice.roll(100), old, group.last().cloned()) {
            (0..8, Some(old), _) => old,
            (8..10, Some(old), _) => message(old.room.as_str(), &sender, old.key.as_str(), "other"),
            (10..12, _, Some(twin)) => twin,
            _ => {
                // One in six goes to a room that several workers create at this very moment.
                let fresh = heard.groups.load(Ordering::Relaxed) / 4;
                let room = match dice.roll(6) {
                    0 => format!("new-{fresh}-{}", dice.roll(4)),
                    _ => format!("hot-{}", dice.roll(HOT_ROOMS)),
                };
                let key = format!("k{}", dice.0);
                let mut sent = heard.sent.lock().unwrap();
                sent.entry((room.clone(), sender.clone())).or_default().push(key.clone());
                let item = message(&room, &sender, &key, &format!("{{\"n\":{}}}", dice.0));
                past.push(item.clone());
                item
            }
        };
        group.push(item);
    }
    group
}

/// Stop-and-wait, like a lane of a gateway, with every group sent by one to three handles at once.
async fn work(worker: usize, seed: u64, stores: &[Arc<dyn Store>], heard: &Heard) {
    let mut dice = Dice(seed * 1_000_000_007 + (worker as u64) * 1_000_000_000_000);
    let mut past = Vec::new();
    while !heard.stop.load(Ordering::Relaxed) {
        let group = next_group(worker, &mut dice, &mut past, heard);
        let copies = 1 + usize::try_from(dice.roll(3)).unwrap();
        join_all((0..copies).map(|copy| insist(stores, worker + copy, &group, heard))).await;
        heard.groups.fetch_add(1, Ordering::Relaxed);
    }
}

/// Holds every answer against the table.
fn judge(table: &Table, heard: &Heard) -> Vec<String> {
    let mut faults = table.faults();
    let rows: BTreeMap<_, _> = table.rows.iter().map(|r| ((&*r.room, &*r.sender, &*r.key), r)).collect();
    let mut stored = BTreeSet::new();
    for (item, outcome) in heard.answers.lock().unwrap().iter() {
        let (room, sender, key) = (item.room.as_str(), item.sender.as_str(), item.key.as_str());
        let Some(row) = rows.get(&(room, sender, key)) else {
            faults.push(format!("answered {outcome:?} but not stored: {item:?}"));
            continue;
        };
        let same = row.hash == item.hash;
        let right = match *outcome {
            Outcome::Stored { seq, at_ms } => {
                same && row.seq == seq && row.at_ms == at_ms && stored.insert((room.to_owned(), seq))
            }
            Outcome::Duplicate { seq } => same && row.seq == seq,
            Outcome::Conflict => !same,
            // Nothing is scheduled here.
            Outcome::Waits { .. } => false,
        };
        if !right {
            faults.push(format!("answered {outcome:?}, but the table says {row:?}"));
        }
    }
    for ((room, sender), keys) in heard.sent.lock().unwrap().iter() {
        let seqs: Vec<_> =
            keys.iter().filter_map(|k| rows.get(&(&**room, &**sender, &**k))).map(|r| r.seq).collect();
        if seqs.len() != keys.len() || !seqs.is_sorted() {
            faults.push(format!("{sender} in {room}: sent in another order than stored: {seqs:?}"));
        }
    }
    if heard.deadlocks.load(Ordering::Relaxed) > 0 {
        faults.push("deadlocks".to_owned());
    }
    faults
}

/// Cuts connections all the time and crashes the server `crashes` times, one round lasting `round`.
async fn nemesis(rig: &mut impl Rig, crashes: u32, round: Duration, heard: &Heard) {
    for crash in 0..=crashes {
        let end = tokio::time::Instant::now() + round;
        while tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(40)).await;
            rig.cut().await;
        }
        if crash < crashes {
            rig.crash().await;
        }
    }
    heard.stop.store(true, Ordering::Relaxed);
}

async fn storm(rig: &mut impl Rig, seed: u64, crashes: u32, round: Duration) {
    let mut stores = Vec::new();
    for _ in 0..HANDLES {
        stores.push(rig.open().await);
    }
    let heard = Heard::default();
    let workers = join_all((0..WORKERS).map(|worker| work(worker, seed, &stores, &heard)));
    tokio::join!(workers, nemesis(rig, crashes, round, &heard));

    let table = rig.table().await;
    let faults = judge(&table, &heard);
    assert!(
        faults.is_empty(),
        "seed {seed}: {} faults, first: {:#?}",
        faults.len(),
        &faults[..faults.len().min(5)]
    );
    let answers = heard.answers.lock().unwrap().len();
    let (groups, failures) = (heard.groups.into_inner(), heard.failures.into_inner());
    println!(
        "seed {seed}: {groups} groups, {} messages, {answers} answers, {failures} failed calls",
        table.rows.len()
    );
    assert!(groups > 50 && failures > 0, "the storm must blow: {groups} groups, {failures} failed calls");
}

/// Seed and length by environment, for long runs: SLUICE_STORM_SEED, SLUICE_STORM_CRASHES.
fn from_env(name: &str, otherwise: u32) -> u32 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

pub async fn no_storm_breaks_the_table_or_an_answer(rig: &mut impl Rig) {
    let (seed, crashes) = (from_env("SLUICE_STORM_SEED", 1), from_env("SLUICE_STORM_CRASHES", 2));
    storm(rig, u64::from(seed), crashes, Duration::from_secs(2)).await;
}
