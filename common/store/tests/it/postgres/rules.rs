//! Rules of the store that only a server shows: the plan of a publish (A9), what a migration may do (A13), and whose
//! connections a read takes (B9).

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use sluice_store::postgres::{PgConfig, PgStore};
use sluice_store::{Range, Store};
use sqlx::Row;
use tokio::time::{sleep, timeout};

use super::rig::PgRig;
use super::server::PgServer;
use crate::cases::contract::{Is, message, messages, publish, room};
use crate::rig::Rig;

const LONG: Duration = Duration::from_secs(10);

/// A number that a statement answers.
async fn number(server: &PgServer, sql: &str) -> i64 {
    server.run(sql).await[0].get::<&str, _>(0).parse().unwrap()
}

/// Looks again until it holds: statistics, sessions of others.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(LONG, looking).await.is_ok(), "{what}");
}

/// Publishes on a young table, of which the planner knows how small it is, and says how often it read one from end to end.
async fn scans_of_a_publish(rig: &PgRig, key: &str) -> i64 {
    const SCANS: &str =
        "select sum(seq_scan)::text from pg_stat_user_tables where relname in ('rooms', 'messages')";
    const INSERTS: &str = "select n_tup_ins::text from pg_stat_user_tables where relname = 'messages'";
    rig.0.run("analyze rooms, messages").await;
    let (scans, inserts) = (number(&rig.0, SCANS).await, number(&rig.0, INSERTS).await);
    let store = rig.pg().await;
    assert!(matches!(publish(&store, vec![message("a", "alice", key, "1")]).await[..], [Is::New(_)]));
    // A session hands over its statistics at the latest when it ends.
    store.close().await;
    until("its insert is counted", async || number(&rig.0, INSERTS).await > inserts).await;
    number(&rig.0, SCANS).await - scans
}

#[tokio::test]
async fn a9_a_publish_goes_by_index_however_young_the_table() {
    let rig = PgRig::start().await;
    drop(rig.pg().await);
    assert_eq!(scans_of_a_publish(&rig, "k1").await, 0);
    // Without the settings of the function the planner takes for three rows what is simplest for three rows.
    let function = "publish_v2(smallint, timestamptz, text[], text[], text[], bytea[], bytea[])";
    rig.0.run(format!("alter function {function} reset all")).await;
    assert!(scans_of_a_publish(&rig, "k2").await > 0, "this test would notice");
}

/// All that a version of logic may name: tables, columns, functions, constraints and indices, a line each.
async fn catalogue(server: &PgServer) -> BTreeSet<String> {
    let rows = server
        .run(
            "select 'column ' || c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
                    || case when a.attnotnull then ' not null' else '' end
                    || case when a.atthasdef or a.attidentity <> '' then ' filled' else '' end
             from pg_attribute a join pg_class c on c.oid = a.attrelid
             where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped
             union all
             select 'function ' || p.oid::regprocedure || ' ' || pg_get_function_result(p.oid)
             from pg_proc p where p.pronamespace = 'public'::regnamespace
             union all
             select 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
             from pg_constraint where connamespace = 'public'::regnamespace
             union all
             select 'index ' || indexdef from pg_indexes where schemaname = 'public'",
        )
        .await;
    rows.iter().map(|row| row.get::<&str, _>(0).to_owned()).collect()
}

/// What a version before these changes would miss, or could not fill.
fn taken(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let table =
        |line: &str| line.strip_prefix("column ").and_then(|it| it.split('.').next()).map(str::to_owned);
    let tables: BTreeSet<_> = before.iter().filter_map(|line| table(line)).collect();
    let gone = before.difference(after).map(|line| format!("gone: {line}"));
    // An old version inserts without naming a new column.
    let asks = |line: &&String| {
        table(line).is_some_and(|table| tables.contains(&table))
            && line.contains(" not null")
            && !line.contains(" filled")
    };
    let asked = after.difference(before).filter(asks).map(|line| format!("cannot be left out: {line}"));
    gone.chain(asked).collect()
}

#[tokio::test]
async fn a13_a_migration_only_adds() {
    let server = PgServer::start().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 2, "{files:?}");
    let mut before = BTreeSet::new();
    for file in &files {
        server.run(std::fs::read_to_string(file).unwrap()).await;
        let after = catalogue(&server).await;
        assert_eq!(taken(&before, &after), [""; 0], "{}", file.display());
        assert!(after.len() > before.len(), "{} adds something", file.display());
        before = after;
    }
    // What an old version would not survive is noticed.
    for change in [
        "alter table messages drop column hash",
        "alter table messages alter column key type varchar(128)",
        "alter table messages drop constraint messages_once",
        "alter table outbox add column cause text not null",
        "drop function trim_v1",
        "alter function ms_v1 rename to ms_v2",
    ] {
        let server = PgServer::start().await;
        for file in &files {
            server.run(std::fs::read_to_string(file).unwrap()).await;
        }
        server.run(change).await;
        assert_ne!(taken(&before, &catalogue(&server).await), [""; 0], "{change}");
    }
}

/// Reads that hang take all connections that read, and not one that commits.
#[tokio::test]
async fn b9_commits_do_not_wait_for_reads() {
    let rig = PgRig::start().await;
    let config = PgConfig { lane_connections: 1, read_connections: 1, ..PgConfig::new(rig.0.url()) };
    let store = PgStore::connect(config).await.unwrap();
    let arguments = "text[], bigint[], bigint[], int[], bigint";
    rig.0.run(format!("alter function read_v1({arguments}) rename to read_v1_at_once")).await;
    let columns = "ord int, head bigint, oldest bigint, deferred boolean, seq bigint, sender text, key text, \
                   at_ms bigint, data bytea";
    rig.0
        .run(format!(
            "create function read_v1({arguments}) returns table ({columns}) language plpgsql as \
             $$ begin perform pg_sleep(60); end $$"
        ))
        .await;
    let ranges = [Range { room: room("a"), after: 0, before: None, limit: 1 }];
    let reads = join_all((0..3).map(|_| store.read(&ranges, 1_000)));
    let publishing = async {
        let sleeping = "select count(*)::text from pg_stat_activity where wait_event = 'PgSleep'";
        until("a read hangs", async || number(&rig.0, sleeping).await > 0).await;
        let published = timeout(Duration::from_secs(1), publish(&store, messages("a", 1))).await;
        assert_eq!(published.expect("while reads hang"), [Is::New(1)]);
        assert_eq!(number(&rig.0, sleeping).await, 1, "one connection, and others wait for it");
    };
    tokio::select! {
        _ = reads => panic!("a read was answered"),
        () = publishing => {}
    }
}
