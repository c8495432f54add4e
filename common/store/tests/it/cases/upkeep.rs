//! Outbox and retention (B6, B7).

use std::time::Duration;

use sluice_store::{DEDUPE_MIN, NoteId, Retention, Run, Store};

use super::contract::{Is, LATER, after, message, messages, page, publish, room};
use crate::rig::Rig;

const HOUR: Duration = DEDUPE_MIN;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Steps until a whole pass over the rooms deleted nothing.
async fn trim_all(store: &dyn Store, policy: &Retention, limit: usize) -> u64 {
    let mut total = 0;
    let mut quiet = 0;
    while quiet < 4 {
        let step = store.trim(policy, limit).await.unwrap();
        assert!(step.messages <= limit as u64);
        quiet = if step.messages == 0 { quiet + 1 } else { 0 };
        total += step.messages;
    }
    total
}

pub async fn notes_are_owed_until_noted(rig: &mut impl Rig) {
    let store = rig.open().await;
    let mut group = messages("a", 3);
    group.extend(messages("b", 2));
    let first = store.publish(0, LATER, group).await.unwrap().note.unwrap();
    let second = store.publish(0, LATER, messages("c", 1)).await.unwrap().note.unwrap();
    assert_eq!(store.stale_notes(Duration::from_secs(60), 10).await.unwrap(), []);
    rig.age("a", 120).await;

    let stale = store.stale_notes(Duration::from_secs(60), 10).await.unwrap();
    assert_eq!(stale.iter().map(|note| note.id).collect::<Vec<_>>(), [first]);
    let mut runs = stale[0].runs.clone();
    runs.sort_by(|x, y| x.room.cmp(&y.room));
    let run = |name, last| Run { room: room(name), first: 1, last };
    assert_eq!(runs, [run("a", 3), run("b", 2)]);

    let all = store.stale_notes(Duration::ZERO, 1).await.unwrap();
    assert_eq!(all.len(), 1, "the limit holds, oldest first");
    store.noted(&[first, NoteId(i64::MAX)]).await.unwrap();
    store.noted(&[]).await.unwrap();
    let left = store.stale_notes(Duration::ZERO, 10).await.unwrap();
    assert_eq!(left.iter().map(|note| note.id).collect::<Vec<_>>(), [second]);

    store.noted(&[second]).await.unwrap();
    let third = store.publish(0, LATER, messages("d", 1)).await.unwrap().note.unwrap();
    assert!(third > second, "a name is not used again, or a late `noted` would forget another group");
}

pub async fn old_notes_are_dropped_in_pages(rig: &mut impl Rig) {
    let store = rig.open().await;
    for n in 0..5 {
        publish(&*store, messages(&format!("r{n}"), 1)).await;
    }
    for n in 0..4 {
        rig.age(&format!("r{n}"), 120).await;
    }
    let minute = Duration::from_secs(60);
    assert_eq!(store.drop_old_notes(minute, 3).await.unwrap(), 3);
    assert_eq!(store.drop_old_notes(minute, 3).await.unwrap(), 1);
    assert_eq!(store.drop_old_notes(minute, 3).await.unwrap(), 0);
    assert_eq!(store.stale_notes(Duration::ZERO, 10).await.unwrap().len(), 1);
}

pub async fn age_and_count_trim_from_the_oldest_in_small_steps(rig: &mut impl Rig) {
    let store = rig.open().await;
    publish(&*store, messages("aged", 250)).await;
    rig.age("aged", 2 * 24 * 3600).await;
    publish(&*store, vec![message("aged", "bob", "young", "1")]).await;
    publish(&*store, messages("counted", 250)).await;
    rig.age("counted", 2 * 3600).await;
    publish(&*store, messages("quiet", 3)).await;

    let nothing = Retention::default();
    assert_eq!(trim_all(&*store, &nothing, 1000).await, 0, "no policy, no loss");
    let policy = Retention { age: Some(DAY), ..nothing };
    let step = store.trim(&policy, 30).await.unwrap();
    assert_eq!((step.messages, step.more), (30, true));
    assert_eq!(page(&*store, after("aged", 0, 1)).await, (31, 251, vec![31]));
    assert_eq!(trim_all(&*store, &policy, 120).await, 220);
    assert_eq!(page(&*store, after("aged", 0, 0)).await, (251, 251, vec![251]));

    let policy = Retention { count: Some(10), ..nothing };
    assert_eq!(trim_all(&*store, &policy, 1000).await, 240);
    let (oldest, head, seqs) = page(&*store, after("counted", 0, 0)).await;
    assert_eq!((oldest, head, seqs.len()), (241, 250, 10));
    assert_eq!(page(&*store, after("quiet", 0, 0)).await, (1, 3, vec![1, 2, 3]));
}

pub async fn b6_nothing_younger_than_dedupe_min_goes_whatever_the_policy_says(rig: &mut impl Rig) {
    let store = rig.open().await;
    publish(&*store, messages("a", 20)).await;
    rig.age("a", 3000).await;
    let greedy = Retention { age: Some(Duration::from_secs(1)), count: Some(1), dedupe_min: HOUR };
    assert_eq!(trim_all(&*store, &greedy, 1000).await, 0);
    assert_eq!(publish(&*store, messages("a", 20)).await.last(), Some(&Is::Old(20)), "the key is known");
    rig.age("a", 1000).await;
    publish(&*store, vec![message("a", "bob", "young", "1")]).await;
    publish(&*store, vec![message("a", "bob", "younger", "1")]).await;
    assert_eq!(trim_all(&*store, &greedy, 1000).await, 20, "young ones behind old ones stay too");
    assert_eq!(page(&*store, after("a", 0, 0)).await, (21, 22, vec![21, 22]));
}

pub async fn b7_an_emptied_room_goes_on_where_it_was(rig: &mut impl Rig) {
    let store = rig.open().await;
    publish(&*store, messages("a", 5)).await;
    rig.age("a", 2 * 24 * 3600).await;
    let policy = Retention { age: Some(DAY), ..Retention::default() };
    assert_eq!(trim_all(&*store, &policy, 1000).await, 5);
    assert_eq!(page(&*store, after("a", 0, 0)).await, (6, 5, vec![]));
    assert_eq!(store.heads(&[room("a")]).await.unwrap().heads, [5]);
    assert_eq!(publish(&*store, vec![message("a", "alice", "k1", "1")]).await, [Is::New(6)]);
}

pub async fn a_clock_that_ran_backwards_makes_no_hole(rig: &mut impl Rig) {
    let store = rig.open().await;
    publish(&*store, messages("a", 6)).await;
    // 1, 2 and 4, 5 look old, 3 looks young: what is behind a kept message is kept.
    rig.age_those("seq in (1, 2, 4, 5)", 2 * 24 * 3600).await;
    let policy = Retention { age: Some(DAY), ..Retention::default() };
    assert_eq!(trim_all(&*store, &policy, 1000).await, 2);
    assert_eq!(page(&*store, after("a", 0, 0)).await, (3, 6, vec![3, 4, 5, 6]));
}

pub async fn retention_comes_past_every_room_however_many_there_are(rig: &mut impl Rig) {
    let store = rig.open().await;
    for part in 0..14 {
        let rooms = (1..=250).map(|n| message(&format!("r{}", part * 250 + n), "s", "k", "1"));
        publish(&*store, rooms.collect()).await;
    }
    // Every hundredth has something to give.
    rig.age_those("room like 'r%00'", 2 * 24 * 3600).await;
    let policy = Retention { age: Some(DAY), ..Retention::default() };
    let first = store.trim(&policy, 1000).await.unwrap();
    assert!(first.messages < 35, "one step looks at a part of the rooms");
    assert_eq!(first.messages + trim_all(&*store, &policy, 1000).await, 35);
}
