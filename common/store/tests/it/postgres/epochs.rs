//! The epoch: the same while the history is the same, another whenever it may not be (B1, B2).

use std::process::Stdio;

use sluice_proto::ids::Epoch;
use sluice_proto::limits::LANES;
use sluice_store::Store;
use sluice_store::postgres::{PgConfig, PgStore, new_epoch};

use super::rig::PgRig;
use super::server::{PgServer, tool};
use crate::cases::contract::{LATER, after, messages, page, publish};
use crate::rig::Rig;

/// The epochs of answers of every lane and of a read. Retries calls whose connection was gone.
async fn everywhere(store: &dyn Store) -> Vec<Epoch> {
    let mut epochs = vec![store.heads(&[]).await.unwrap().epoch];
    for lane in 0..LANES {
        let committed = loop {
            match store.publish(lane, LATER, messages(&format!("lane-{lane}"), 1)).await {
                Ok(committed) => break committed,
                Err(error) => assert_eq!(error.class(), sluice_store::Class::Unknown, "{error}"),
            }
        };
        epochs.push(committed.epoch);
    }
    epochs.dedup();
    epochs
}

#[tokio::test]
async fn it_stays_over_restarts_and_crashes() {
    let mut rig = PgRig::start().await;
    let store = rig.open().await;
    let old = store.epoch().await.unwrap();
    rig.crash().await;
    assert_eq!(everywhere(&*store).await, [old]);
    assert_eq!(rig.open().await.epoch().await.unwrap(), old);
}

#[tokio::test]
async fn b2_new_epoch_reaches_every_connection_at_once() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    let old = store.epoch().await.unwrap();
    assert_eq!(everywhere(&*store).await, [old]);
    let new = new_epoch(&rig.0.url()).await.unwrap();
    assert_ne!(new, old);
    assert_eq!(everywhere(&*store).await, [new], "no answer may carry the old one any more");
}

#[tokio::test]
async fn one_connection_that_reads_a_new_epoch_replaces_all_others() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    let old = store.epoch().await.unwrap();
    assert_eq!(everywhere(&*store).await, [old]);
    // As a failover behind one address: only one connection was made anew so far.
    rig.0.run("update meta set epoch = gen_random_uuid()").await;
    assert_eq!(everywhere(&*store).await, [old], "nobody has looked yet");
    rig.0
        .run(
            "select pg_terminate_backend(pid, 1000) from (select pid from pg_stat_activity \
             where query like '%publish_v2%' and application_name = 'sluice' limit 1) x",
        )
        .await;
    let last = loop {
        let epochs = everywhere(&*store).await;
        if epochs != [old] {
            break epochs;
        }
    };
    let new = *last.last().unwrap();
    assert_eq!(everywhere(&*store).await, [new]);
    assert!(last == [new] || last == [old, new], "once the new one was seen, nothing old follows: {last:?}");
}

#[tokio::test]
async fn b2_a_dump_restored_elsewhere_is_another_history() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    publish(&*store, messages("a", 3)).await;
    let other = PgServer::start_fresh().await;
    let mut dump = tool("pg_dump");
    dump.args(["-h", "127.0.0.1", "-U", "postgres", "-p"]).arg(rig.0.port.to_string());
    let mut dump = dump.stdout(Stdio::piped()).spawn().unwrap();
    let mut psql = tool("psql");
    psql.args(["-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres", "-p"]);
    psql.arg(other.port.to_string()).stdin(dump.stdout.take().unwrap()).stdout(Stdio::null());
    assert!(psql.status().unwrap().success() && dump.wait().unwrap().success());

    let restored = PgStore::connect(PgConfig::new(other.url())).await.unwrap();
    assert_eq!(page(&restored, after("a", 0, 0)).await, (1, 3, vec![1, 2, 3]));
    assert_ne!(restored.epoch().await.unwrap(), store.epoch().await.unwrap());
}

#[tokio::test]
async fn b2_a_promoted_standby_is_another_history_behind_the_same_address() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    let old = store.epoch().await.unwrap();
    assert_eq!(everywhere(&*store).await, [old]);
    let mut standby = PgServer::standby_of(&rig.0).await;

    let refused = PgStore::connect(PgConfig::new(standby.url())).await.err().unwrap();
    assert!(refused.to_string().contains("the server is a standby"), "{refused}");

    standby.promote();
    rig.0.hand_port_to(&mut standby).await;
    let epochs = everywhere(&*store).await;
    assert_eq!(epochs.len(), 1);
    assert_ne!(epochs, [old]);
}
