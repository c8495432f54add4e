//! Rooms that a session of somebody else keeps locked: what is due elsewhere in their lane is published all the same.

use std::time::Duration;

use sluice_store::{DelayedItem, Due, Fired, LockedRooms, Store, WaitingLimit};
use sqlx::{Executor, PgConnection};
use tokio::time::{Instant, timeout};

use super::rig::PgRig;
use crate::cases::contract::{Is, LATER, message, messages, publish, room};
use crate::rig::Rig;

/// Rooms of one lane.
fn of_one_lane(count: usize) -> Vec<String> {
    let names = (0..).map(|n| format!("r{n}"));
    names.filter(|name| room(name).lane() == 3).take(count).collect()
}

async fn schedule(store: &dyn Store, name: &str, keys: usize, due_ms: i64) {
    let message = |n| message(name, "alice", &format!("d{n}"), "1");
    let item = |n| DelayedItem::Schedule { message: message(n), due: Due::At(due_ms) };
    store.delay(3, LATER, &WaitingLimit::default(), (0..keys).map(item).collect()).await.unwrap();
}

/// A session of somebody else, with this room locked.
async fn holder(rig: &PgRig, name: &str) -> PgConnection {
    let mut holder = rig.0.sql().await;
    holder.execute("begin").await.unwrap();
    let lock = format!("select from rooms where room = '{name}' for update");
    sqlx::query(sqlx::AssertSqlSafe(lock)).fetch_one(&mut holder).await.unwrap();
    holder
}

async fn fire(store: &dyn Store, limit: usize, locked: &LockedRooms) -> Fired {
    store.fire_due(3, limit, locked).await.unwrap()
}

fn names(fired: &Fired) -> Vec<&str> {
    fired.locked.iter().map(|room| room.as_str()).collect()
}

#[tokio::test]
async fn firing_goes_around_a_room_that_somebody_keeps_locked() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    let rooms = of_one_lane(3);
    let [held, free, new] = [&rooms[0], &rooms[1], &rooms[2]];
    publish(&*store, messages(held, 1)).await;
    publish(&*store, messages(free, 1)).await;
    for name in &rooms {
        schedule(&*store, name, 2, 1).await;
    }
    let mut holder = holder(&rig, held).await;
    let began = Instant::now();
    let none = LockedRooms::default();
    let fired = fire(&*store, 256, &none).await;
    assert_eq!((fired.taken, names(&fired)), (4, vec![held.as_str()]), "the others, one of them new");
    assert_eq!(fired.runs.len(), 2);
    // Waited for in vain, and then passed over.
    let waiting = LockedRooms { wait_for: Some(room(held)), ..none.clone() };
    assert_eq!(names(&fire(&*store, 256, &waiting).await), [held.as_str()]);
    let without = LockedRooms { without: vec![room(held)], ..none.clone() };
    schedule(&*store, new, 3, 2).await;
    // As many as one step takes are due before, in the locked room.
    assert_eq!(fire(&*store, 2, &none).await.taken, 0);
    let fired = fire(&*store, 2, &without).await;
    assert_eq!((fired.taken, names(&fired)), (1, vec![]), "the keys d0 and d1 of this room are published");
    // Far below the 2 s after which a lock is given up.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // The lane itself was never held up.
    assert_eq!(publish(&*store, vec![message(free, "alice", "now", "1")]).await, [Is::New(4)]);
    holder.execute("rollback").await.unwrap();
    assert_eq!(fire(&*store, 256, &none).await.taken, 2);
    let table = rig.table().await;
    assert_eq!((table.faults(), table.rows.len()), (vec![], 10));
}

#[tokio::test]
async fn a_room_that_is_only_in_use_is_waited_for() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    let busy = &of_one_lane(1)[0];
    publish(&*store, messages(busy, 1)).await;
    schedule(&*store, busy, 1, 1).await;
    let mut holder = holder(&rig, busy).await;
    let waiting = LockedRooms { wait_for: Some(room(busy)), ..LockedRooms::default() };
    // Asked again as logic does: a machine that is slow may let the wait pass.
    let firing = async {
        loop {
            let fired = fire(&*store, 256, &waiting).await;
            if fired.taken > 0 {
                return fired.taken;
            }
        }
    };
    let (fired, ()) = tokio::join!(timeout(Duration::from_secs(20), firing), async {
        rig.somebody_waits().await;
        holder.execute("rollback").await.unwrap();
    });
    assert_eq!(fired.expect("fired"), 1);
    assert_eq!(rig.table().await.faults(), [""; 0]);
}
