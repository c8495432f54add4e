//! Pages: one snapshot, budget, history, and an honest `oldest` (B4, B5).

use std::sync::atomic::{AtomicBool, Ordering};

use sluice_store::Range;

use super::contract::{after, message, messages, page, publish, room};
use crate::rig::Rig;

fn before(name: &str, before: u64, limit: u32) -> Range {
    Range { room: room(name), after: 0, before: Some(before), limit }
}

pub async fn pages_and_history(rig: &mut impl Rig) {
    let store = rig.open().await;
    assert_eq!(page(&*store, after("a", 0, 10)).await, (1, 0, vec![]), "an unknown room");
    publish(&*store, messages("a", 10)).await;
    assert_eq!(page(&*store, after("a", 0, 3)).await, (1, 10, vec![1, 2, 3]));
    assert_eq!(page(&*store, after("a", 8, 3)).await, (1, 10, vec![9, 10]));
    assert_eq!(page(&*store, after("a", 10, 3)).await, (1, 10, vec![]));
    assert_eq!(page(&*store, after("a", u64::MAX, 3)).await, (1, 10, vec![]));
    assert_eq!(page(&*store, before("a", 9, 3)).await, (1, 10, vec![6, 7, 8]));
    assert_eq!(page(&*store, before("a", u64::MAX, 2)).await, (1, 10, vec![9, 10]));
    assert_eq!(page(&*store, before("a", 1, 2)).await, (1, 10, vec![]));
    publish(&*store, messages("long", 256)).await;
    publish(&*store, vec![message("long", "bob", "k", "1")]).await;
    assert_eq!(page(&*store, after("long", 0, 0)).await.2.len(), 256, "0 and too much are 256");
    assert_eq!(page(&*store, after("long", 0, 999)).await.2.len(), 256);
}

pub async fn the_budget_cuts_where_reading_can_go_on(rig: &mut impl Rig) {
    let store = rig.open().await;
    let big = "x".repeat(1_000 - 32 - "alice".len() - "k".len());
    for name in ["a", "b", "c", "d"] {
        for n in 0..4 {
            publish(&*store, vec![message(name, "alice", &n.to_string(), &big)]).await;
        }
    }
    // What fits: 4 of a, 2 of b; c has something but gets nothing, empty has nothing to defer.
    let ranges =
        [after("a", 0, 0), before("b", 5, 0), after("c", 2, 0), after("empty", 0, 0), after("d", 4, 0)];
    let pages = store.read(&ranges, 6_500).await.unwrap().pages;
    let seqs = |i: usize| pages[i].messages.iter().map(|m| m.seq).collect::<Vec<_>>();
    assert_eq!(
        (seqs(0), seqs(1), seqs(2)),
        (vec![1, 2, 3, 4], vec![3, 4], vec![]),
        "history keeps its newest"
    );
    assert_eq!(pages.iter().map(|p| p.deferred).collect::<Vec<_>>(), [false, false, true, false, false]);
    assert_eq!(pages.iter().map(|p| p.head).collect::<Vec<_>>(), [4, 4, 4, 0, 4]);
    // One byte is enough for one message of the first range, so that nobody is stuck.
    let pages = store.read(&ranges[..2], 1).await.unwrap().pages;
    assert_eq!((pages[0].messages.len(), pages[0].deferred), (1, false));
    assert_eq!((pages[1].messages.len(), pages[1].deferred), (0, true));
    assert_eq!(store.read(&[], 1).await.unwrap().pages, []);
}

pub async fn a_page_is_one_snapshot(rig: &mut impl Rig) {
    let store = rig.open().await;
    let done = AtomicBool::new(false);
    let writer = async {
        for n in 1..=40 {
            publish(&*store, (0..8).map(|i| message("a", "alice", &format!("{n}-{i}"), "1")).collect()).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    // Many ranges of one room: were they read one after the other, their heads would differ.
    let reader = async {
        let mut seen = 0;
        while !done.load(Ordering::Relaxed) {
            let pages = store.read(&vec![after("a", seen, 64); 64], 1 << 24).await.unwrap().pages;
            assert!(pages.iter().all(|page| *page == pages[0]), "one instant");
            let seqs: Vec<u64> = pages[0].messages.iter().map(|m| m.seq).collect();
            let last = pages[0].head.min(seen + 64);
            assert_eq!(seqs, (seen + 1..=last).collect::<Vec<_>>(), "all up to the head, none above");
            seen = last;
        }
    };
    tokio::join!(writer, reader);
}

pub async fn b5_the_oldest_kept_is_said(rig: &mut impl Rig) {
    let store = rig.open().await;
    publish(&*store, messages("a", 5)).await;
    rig.run("delete from messages where seq <= 3").await;
    assert_eq!(page(&*store, after("a", 1, 0)).await, (4, 5, vec![4, 5]));
    rig.run("delete from messages").await;
    assert_eq!(page(&*store, after("a", 1, 0)).await, (6, 5, vec![]), "B4, B7: head + 1, never 1 again");
}
