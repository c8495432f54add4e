//! The cluster on a real etcd: the contract, and what only a server does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use sluice_cluster::etcd::{EtcdCluster, EtcdConfig};
use sluice_cluster::{Cluster, Duty, InstanceState, Registration, Service};
use sluice_lifecycle::{Scope, StopReason};
use sluice_testing::{ServerKind, TestServer, eventually};
use tokio::time::Instant;

use crate::contract::{Bed, LONG, Node, both};

struct Etcd(TestServer);

/// The shortest etcd grants.
const TTL: Duration = Duration::from_secs(2);

impl Bed for Etcd {
    const TTL: Duration = TTL;

    async fn start() -> Self {
        Self(TestServer::start(ServerKind::Etcd).await)
    }

    async fn join(
        &self,
        scope: &Scope,
        registration: Registration,
        candidates: BTreeSet<Duty>,
    ) -> Arc<dyn Cluster> {
        let config = EtcdConfig {
            etcd: sluice_cluster::Etcd {
                lease_ttl_s: TTL.as_secs(),
                ..sluice_cluster::Etcd::at([self.0.url()])
            },
            ..EtcdConfig::default()
        };
        let seeds = ["seeded:7070".to_owned()];
        Arc::new(EtcdCluster::start(scope, config, registration, &seeds, candidates).await.unwrap())
    }

    async fn expire_all(&self) {
        let mut etcd = self.client().await;
        for lease in etcd.leases().await.unwrap().leases() {
            etcd.lease_revoke(lease.id()).await.unwrap();
        }
    }
}

impl Etcd {
    async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([self.0.url()], None).await.unwrap()
    }
}

against_the_contract!(Etcd);

#[tokio::test]
async fn a_seed_stands_for_a_logic_until_that_has_come() {
    let etcd = Etcd::start().await;
    let node = Node::start(&etcd, Service::Gateway, "a:1").await;
    let is_seeded = || node.cluster.view().borrow().instances.contains_key("seed-seeded:7070");
    assert!(is_seeded());
    node.registered(LONG).await;
    assert!(is_seeded());
    let logic = Node::start(&etcd, Service::Logic, "seeded:7070").await;
    eventually("it has come", LONG, async || node.seen(&logic.id()).is_some()).await;
    assert!(!is_seeded(), "the seed has a face now");
}

#[tokio::test]
async fn without_etcd_the_seeds_suffice_and_a_stop_is_quick() {
    let mut etcd = Etcd(TestServer::absent(ServerKind::Etcd));
    let (node, other) = (Node::task(&etcd).await, Node::task(&etcd).await);
    let first = node.id();
    assert!(node.cluster.view().borrow().instances.contains_key("seed-seeded:7070"));
    assert!(!node.cluster.view().borrow().sees_me);
    let begun = Instant::now();
    node.cluster.set_state(InstanceState::Draining).await;
    node.cluster.set_state(InstanceState::Serving).await;
    other.cluster.release_duties().await;
    other.cluster.close().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    other.lifecycle.stop(StopReason::Manual("test".into()));
    let begun = Instant::now();
    assert_eq!(other.engine.run().await.exit_code(), 0);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());

    // Nobody owns the duties for two lease times: anyone may do them.
    eventually("orphaned duties", 4 * TTL, async || node.owned() == both()).await;
    etcd.0.run().await;
    node.registered(LONG).await;
    assert_eq!(node.id(), first, "never registered, never lost");
}

#[tokio::test]
async fn a_removed_key_is_written_again_under_the_same_id() {
    let etcd = Etcd::start().await;
    let node = Node::task(&etcd).await;
    node.registered(LONG).await;
    let id = node.id();
    etcd.client().await.delete(format!("/sluice/instances/task/{id}"), None).await.unwrap();
    eventually("it is noticed", LONG, async || {
        etcd.client().await.get(format!("/sluice/instances/task/{id}"), None).await.unwrap().kvs().len() == 1
    })
    .await;
    node.registered(LONG).await;
    assert_eq!(node.id(), id);
}

#[tokio::test]
async fn etcd_comes_back_empty_or_with_all() {
    let mut etcd = Etcd::start().await;
    let (a, b) = (Node::task(&etcd).await, Node::task(&etcd).await);
    a.registered(LONG).await;
    eventually("a sees b", LONG, async || a.seen(&b.id()).is_some()).await;
    let ids = (a.id(), b.id());

    etcd.0.kill();
    etcd.0.run().await;
    eventually("both again", LONG, async || a.sees_itself() && b.sees_itself()).await;
    assert_eq!((a.id(), b.id()), ids, "the leases were kept");

    etcd.0.kill();
    etcd.0.wipe();
    eventually("the outage is felt", LONG, async || !a.sees_itself()).await;
    assert!(a.seen(&ids.1).is_some(), "the last known set stays");
    etcd.0.run().await;
    eventually("both anew", LONG, async || a.sees_itself() && b.sees_itself()).await;
    eventually("and each other", LONG, async || a.seen(&b.id()).is_some()).await;
    assert!(a.id() != ids.0 && b.id() != ids.1);
}

#[tokio::test]
async fn a_frozen_etcd_holds_nobody_and_is_survived() {
    let etcd = Etcd::start().await;
    let (a, b) = (Node::task(&etcd).await, Node::task(&etcd).await);
    eventually("each does one", LONG, async || a.owned().len() == 1 && b.owned().len() == 1).await;
    etcd.0.signal(Signal::SIGSTOP);
    eventually("the lease is unsure", 2 * TTL, async || a.owned().is_empty() && !a.sees_itself()).await;
    let begun = Instant::now();
    a.cluster.set_state(InstanceState::Draining).await;
    assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
    eventually("anyone does all", 4 * TTL, async || b.owned() == both()).await;

    let begun = Instant::now();
    let error = a.cluster.close().await.expect_err("nobody takes the lease back").to_string();
    assert!(error.contains("did not answer") && error.contains("until its lease expires"), "{error}");
    a.lifecycle.stop(StopReason::Manual("test".into()));
    assert_eq!(a.engine.run().await.exit_code(), 0);
    assert!(begun.elapsed() < Duration::from_millis(4_000), "{:?}", begun.elapsed());

    etcd.0.signal(Signal::SIGCONT);
    b.registered(LONG).await;
    eventually("b owns all", LONG, async || {
        b.cluster.duties().iter().all(|info| info.owner.as_ref() == Some(&b.id())) && b.owned() == both()
    })
    .await;
}

/// A registration without a lease, as a restored dump may have it, and one whose process was replaced in its place.
#[tokio::test]
async fn an_emergency_release_removes_whom_nobody_stands_behind() {
    let etcd = Etcd::start().await;
    let node = Node::task(&etcd).await;
    node.registered(LONG).await;
    let mut client = etcd.client().await;
    // Not serving: none of them is to get a duty.
    let record = |address: &str| {
        format!(r#"{{"address":"{address}","version":"0","started_ms":1,"state":"draining"}}"#)
    };
    let host = node.id().as_str().rsplit_once('-').unwrap().0.to_owned();
    let replaced = format!("{host}-0000000000000001");
    let lease = client.lease_grant(60, None).await.unwrap().id();
    let put = |key: &str| format!("/sluice/instances/task/{key}");
    let leased = etcd_client::PutOptions::new().with_lease(lease);
    client.put(put("task-else-1"), record("else:1"), None).await.unwrap();
    client.put(put(&replaced), record("task:7072"), Some(leased.clone())).await.unwrap();
    client.put(put("task-other-1"), record("other:1"), Some(leased)).await.unwrap();
    client.put("/sluice/duties/sweep", "task-else-1", None).await.unwrap();
    let released = node.cluster.release_everything().await.unwrap();
    let removed: BTreeSet<String> = released.registrations.iter().map(ToString::to_string).collect();
    assert_eq!(removed, ["task-else-1".to_owned(), replaced].into());
    assert!(
        released.duties.iter().any(|(duty, owner)| *duty == Duty::Sweep && owner.as_str() == "task-else-1")
    );
    node.registered(LONG).await;
    eventually("it does all", LONG, async || node.owned() == both()).await;
}

#[tokio::test]
async fn what_etcd_does_not_take_is_said() {
    let etcd = Etcd(TestServer::absent(ServerKind::Etcd));
    let node = Node::task(&etcd).await;
    let id = node.id();
    let refused = node.cluster.command(&id, sluice_cluster::Command::Drain).await.unwrap_err();
    assert!(refused.to_string().contains("etcd"), "{refused}");
    assert!(node.cluster.release_duty(Duty::Sweep).await.is_err());
    assert!(node.cluster.release_everything().await.is_err());
    assert!(node.cluster.leases().await.is_empty());
}
