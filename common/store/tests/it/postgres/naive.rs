//! The two rules of the publish statement, each shown twice: without it the oracle finds the damage, with it
//! the same schedule does none. (A1: look up under the lock, in a later statement. A2: create rooms first,
//! sorted, holding nothing.)

use sqlx::{Connection, Executor, PgConnection, Row};

use super::rig::PgRig;
use crate::cases::contract::{Is, after, message, messages, page, publish};
use crate::rig::Rig;

/// Everything in one statement, one snapshot: what one would write first.
const NAIVE: &str = r#"
create function naive(p_room text[], p_key text[]) returns table (ord bigint, seq bigint)
language sql volatile as $$
  with made as (
    insert into rooms (room) select distinct r from unnest(p_room) r on conflict do nothing),
  locked as materialized (
    select room, head from rooms where room = any (p_room) order by room for no key update),
  item as (
    select t.*, m.seq as old_seq from unnest(p_room, p_key) with ordinality as t(room, key, ord)
    left join messages m on m.room = t.room and m.sender = 'alice' and m.key = t.key),
  fresh as (
    select i.*, l.head + row_number() over (partition by i.room order by i.ord) as new_seq
    from item i join locked l on l.room = i.room where i.old_seq is null),
  ins as (
    insert into messages select f.room, f.new_seq, 'alice', f.key, '\x00', now(), '1' from fresh f
    on conflict do nothing),
  bump as (
    update rooms r set head = f.head from (select room, max(new_seq) as head from fresh group by room) f
    where r.room = f.room),
  noted as (
    insert into outbox (at, rooms, firsts, lasts)
    select now(), array_agg(g.room), array_agg(g.first), array_agg(g.last)
    from (select room, min(new_seq) as first, max(new_seq) as last from fresh group by room) g having count(*) > 0)
  select i.ord, coalesce(i.old_seq, f.new_seq) from item i left join fresh f on f.ord = i.ord order by i.ord
$$"#;

/// Calls `naive` with keys k1, k2 in room a.
async fn naive(conn: &mut PgConnection) -> Vec<Option<i64>> {
    let rows = sqlx::query("select seq from naive(array['a', 'a'], array['k1', 'k2'])").fetch_all(conn).await;
    rows.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a1_one_snapshot_answers_with_seqs_that_hold_nothing() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    rig.0.run(format!("insert into rooms values ('a'); {NAIVE}")).await;
    let (mut first, mut second) = (rig.0.sql().await, rig.0.sql().await);
    first.execute("begin").await.unwrap();
    assert_eq!(naive(&mut first).await, [Some(1), Some(2)]);
    let (again, ()) = tokio::join!(naive(&mut second), async {
        rig.somebody_waits().await;
        first.execute("commit").await.unwrap();
    });
    assert_eq!(again, [Some(3), Some(4)], "a phantom ok");
    let faults = rig.table().await.faults();
    assert!(faults.iter().any(|fault| fault == "a: head 4, but seqs 1…2 then [] (2 in all)"), "{faults:?}");
    store.close().await;
}

#[tokio::test]
async fn a1_the_second_of_two_equal_groups_finds_the_first() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    let mut first = rig.0.sql().await;
    first.execute("begin").await.unwrap();
    let sql = "select seq from publish_v2(0::smallint, 'infinity', array['a', 'a'], array['alice', 'alice'], \
               array['k1', 'k2'], array[sha256('1'), sha256('2')], array['1', '2']::bytea[])";
    assert_eq!(first.fetch_all(sql).await.unwrap().len(), 2);
    let (again, ()) = tokio::join!(publish(&*store, messages("a", 2)), async {
        rig.somebody_waits().await;
        first.execute("commit").await.unwrap();
    });
    assert_eq!(again, [Is::Old(1), Is::Old(2)]);
    assert_eq!(rig.table().await.faults(), [""; 0]);
}

#[tokio::test]
async fn a2_rooms_made_in_the_same_statement_have_no_head_yet() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    rig.0.run(NAIVE).await;
    let mut conn = rig.0.sql().await;
    assert_eq!(naive(&mut conn).await, [None, None], "answered, without a place");
    assert_eq!(page(&*store, after("a", 0, 0)).await, (1, 0, vec![]));
    // The same with the rule.
    assert_eq!(publish(&*store, messages("a", 2)).await, [Is::New(1), Is::New(2)]);
    assert_eq!(rig.table().await.faults(), [""; 0]);
}

/// New rooms in opposite orders at the same time, `rounds` times.
async fn opposite_orders(rig: &PgRig, function: &str, rounds: usize) -> (usize, i64) {
    let (mut one, mut two) = (rig.0.sql().await, rig.0.sql().await);
    let mut failed = 0;
    for round in 0..rounds {
        let call = |order: &str, key: &str| {
            format!(
                "select seq from {function}(0::smallint, 'infinity', array(select 'r{round}-' || n from \
                 generate_series(1, 200) n order by n {order}), array_fill('alice'::text, array[200]), \
                 array(select '{key}' || n from generate_series(1, 200) n), \
                 array_fill(sha256('1'), array[200]), array_fill('1'::bytea, array[200]))"
            )
        };
        let (up, down) = (call("asc", "up"), call("desc", "down"));
        let (up, down) = tokio::join!(
            sqlx::query(sqlx::AssertSqlSafe(up)).fetch_all(&mut one),
            sqlx::query(sqlx::AssertSqlSafe(down)).fetch_all(&mut two)
        );
        failed += usize::from(up.is_err()) + usize::from(down.is_err());
        if failed > 0 {
            break;
        }
    }
    one.close().await.unwrap();
    two.close().await.unwrap();
    // Statistics of a session are complete when it has ended.
    let deadlocks = rig.table().await.deadlocks;
    (failed, deadlocks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_rooms_made_unsorted_deadlock_and_sorted_never_do() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    let row = &rig.0.run("select pg_get_functiondef('publish_v2'::regproc)").await[0];
    let text: &str = row.get(0);
    let mutant = text
        .replace("publish_v2", "unsorted")
        .replace("select distinct r collate \"C\"", "select r")
        .replace("  order by 1\n  on conflict do nothing", "  on conflict do nothing");
    assert_eq!(mutant.len(), text.len() - "publish_v2".len() + "unsorted".len() - 34, "three places changed");
    rig.0.run(mutant).await;

    assert_eq!(opposite_orders(&rig, "publish_v2", 20).await, (0, 0));
    assert_eq!(rig.table().await.faults(), [""; 0]);
    let (failed, _) = opposite_orders(&rig, "unsorted", 200).await;
    assert!(failed > 0, "without the rule this schedule deadlocks");
    let last = publish(&*store, vec![message("r0-1", "alice", "last", "1")]).await;
    assert_eq!(last, [Is::New(3)]);
}
