use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use sluice_cluster::etcd::{EtcdCluster, EtcdConfig};
use sluice_cluster::{Cluster, Duty, Instance, Registration, Service, State};
use sluice_lifecycle::{Engine, Lifecycle, Plan, Stage, StopReason};
use sluice_proto::ids::InstanceId;
use tokio::time::{Instant, timeout};

use crate::server::{Server, eventually};

const LONG: Duration = Duration::from_secs(20);
/// The shortest etcd grants.
const TTL: Duration = Duration::from_secs(2);

struct Node {
    cluster: EtcdCluster,
    lifecycle: Lifecycle,
    engine: Engine,
}

impl Node {
    async fn start(server: &Server, service: Service, address: &str) -> Self {
        Self::at(server.url(), service, address).await
    }

    async fn at(url: String, service: Service, address: &str) -> Self {
        let plan = Plan::new(Duration::from_secs(2)).stage(Stage::Release, Duration::from_secs(1));
        let (lifecycle, engine) = Lifecycle::new(plan);
        let config = EtcdConfig { endpoints: vec![url], lease_ttl: TTL, ..EtcdConfig::default() };
        let registration =
            Registration { service, address: address.into(), url: None, version: "test".into() };
        let duties = if service == Service::Task { both() } else { BTreeSet::new() };
        let scope = lifecycle.scope(Stage::Release);
        let seeds = ["seeded:7070".to_owned()];
        let cluster = EtcdCluster::start(&scope, config, registration, &seeds, duties).await.unwrap();
        Self { cluster, lifecycle, engine }
    }

    async fn task(server: &Server) -> Self {
        Self::start(server, Service::Task, "task:7072").await
    }

    fn id(&self) -> InstanceId {
        self.cluster.me().borrow().clone()
    }

    fn sees_itself(&self) -> bool {
        let view = self.cluster.view().borrow().clone();
        view.sees_me && view.instances.contains_key(&self.id())
    }

    async fn registered(&self, within: Duration) {
        eventually("it sees itself", within, async || self.sees_itself()).await;
    }

    fn seen(&self, id: &InstanceId) -> Option<Instance> {
        self.cluster.view().borrow().instances.get(id).cloned()
    }

    fn owned(&self) -> BTreeSet<Duty> {
        self.cluster.owned().borrow().clone()
    }
}

fn both() -> BTreeSet<Duty> {
    [Duty::Sweep, Duty::Reap].into()
}

async fn client(server: &Server) -> etcd_client::Client {
    etcd_client::Client::connect([server.url()], None).await.unwrap()
}

#[tokio::test]
async fn everybody_sees_who_comes_drains_and_goes() {
    let server = Server::start().await;
    let (a, b) = (
        Node::start(&server, Service::Gateway, "a:1").await,
        Node::start(&server, Service::Logic, "seeded:7070").await,
    );
    assert!(
        a.cluster.view().borrow().instances.contains_key("seed-seeded:7070") || a.seen(&b.id()).is_some()
    );
    eventually("a sees b", LONG, async || a.seen(&b.id()).is_some()).await;
    let seen = a.seen(&b.id()).unwrap();
    assert_eq!(
        (seen.service, seen.state, seen.address.as_str()),
        (Service::Logic, State::Serving, "seeded:7070")
    );
    assert!(!a.cluster.view().borrow().instances.contains_key("seed-seeded:7070"), "the seed has a face now");

    b.cluster.set_state(State::Draining).await;
    eventually("the drain", Duration::from_secs(1), async || {
        a.seen(&b.id()).is_some_and(|b| b.state == State::Draining)
    })
    .await;
    let (left, begun) = (b.id(), Instant::now());
    b.cluster.close().await;
    b.cluster.close().await;
    assert!(begun.elapsed() < Duration::from_millis(500));
    eventually("b is off the list", Duration::from_secs(1), async || a.seen(&left).is_none()).await;
    assert!(a.cluster.gone().is_empty());
    eventually("b is gone", 4 * TTL, async || a.cluster.gone() == [left.clone()]).await;
    assert!(begun.elapsed() >= 2 * TTL);
}

#[tokio::test]
async fn without_etcd_the_seeds_suffice_and_a_stop_is_quick() {
    let mut server = Server::absent();
    let (node, other) = (Node::task(&server).await, Node::task(&server).await);
    let first = node.id();
    assert!(node.cluster.view().borrow().instances.contains_key("seed-seeded:7070"));
    assert!(!node.cluster.view().borrow().sees_me);
    let begun = Instant::now();
    node.cluster.set_state(State::Draining).await;
    node.cluster.set_state(State::Serving).await;
    other.cluster.release_duties().await;
    other.cluster.close().await;
    assert!(begun.elapsed() < Duration::from_millis(2_100), "{:?}", begun.elapsed());
    other.lifecycle.stop(StopReason::Manual("test".into()));
    let begun = Instant::now();
    assert_eq!(other.engine.run().await.exit_code(), 0);
    assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());

    // Nobody owns the duties for two lease times: anyone may do them.
    eventually("orphaned duties", 4 * TTL, async || node.owned() == both()).await;
    server.run().await;
    node.registered(Duration::from_secs(3)).await;
    assert_eq!(node.id(), first, "never registered, never lost");
}

#[tokio::test]
async fn a_lost_lease_is_a_new_id() {
    let server = Server::start().await;
    let node = Node::task(&server).await;
    node.registered(LONG).await;
    let old = node.id();
    let mut etcd = client(&server).await;
    for lease in etcd.leases().await.unwrap().leases() {
        etcd.lease_revoke(lease.id()).await.unwrap();
    }
    eventually("a new id", Duration::from_secs(2), async || node.id() != old && node.sees_itself()).await;
    assert!(node.seen(&old).is_none());
    eventually("its duties again", 2 * TTL, async || node.owned() == both()).await;
}

#[tokio::test]
async fn a_removed_key_is_written_again_under_the_same_id() {
    let server = Server::start().await;
    let node = Node::task(&server).await;
    node.registered(LONG).await;
    let id = node.id();
    client(&server).await.delete(format!("/sluice/instances/task/{id}"), None).await.unwrap();
    eventually("it is noticed", LONG, async || {
        let mut etcd = client(&server).await;
        etcd.get(format!("/sluice/instances/task/{id}"), None).await.unwrap().kvs().len() == 1
    })
    .await;
    node.registered(Duration::from_secs(1)).await;
    assert_eq!(node.id(), id);
}

#[tokio::test]
async fn etcd_comes_back_empty_or_with_all() {
    let mut server = Server::start().await;
    let (a, b) = (Node::task(&server).await, Node::task(&server).await);
    a.registered(LONG).await;
    eventually("a sees b", LONG, async || a.seen(&b.id()).is_some()).await;
    let ids = (a.id(), b.id());

    server.kill();
    server.run().await;
    eventually("both again", Duration::from_secs(3), async || a.sees_itself() && b.sees_itself()).await;
    assert_eq!((a.id(), b.id()), ids, "the leases were kept");

    server.kill();
    server.wipe();
    eventually("the outage is felt", LONG, async || !a.sees_itself()).await;
    assert!(a.seen(&ids.1).is_some(), "the last known set stays");
    server.run().await;
    eventually("both anew", Duration::from_secs(2), async || a.sees_itself() && b.sees_itself()).await;
    eventually("and each other", Duration::from_secs(1), async || a.seen(&b.id()).is_some()).await;
    assert!(a.id() != ids.0 && b.id() != ids.1);
}

#[tokio::test]
async fn duties_are_shared_and_handed_over_at_once() {
    let server = Server::start().await;
    let a = Node::task(&server).await;
    eventually("a does all", LONG, async || a.owned() == both()).await;
    let b = Node::task(&server).await;
    eventually("each does one", LONG, async || {
        a.owned().len() == 1 && b.owned().len() == 1 && a.owned() != b.owned()
    })
    .await;
    let info = a.cluster.duties();
    assert!(info.iter().all(|info| info.owner_lives) && info.len() == 2);
    assert_eq!(
        info.iter().filter(|info| info.mine).map(|info| info.duty).collect::<BTreeSet<_>>(),
        a.owned()
    );

    b.cluster.release_duties().await;
    assert!(b.owned().is_empty());
    eventually("a does all", Duration::from_secs(1), async || a.owned() == both()).await;
    // The released one takes nothing again.
    let mut owned = b.cluster.owned();
    assert!(timeout(2 * TTL, owned.wait_for(|owned| !owned.is_empty())).await.is_err());
}

#[tokio::test]
async fn a_crashed_owner_is_replaced_within_two_lease_times() {
    let server = Server::start().await;
    let doomed = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let url = server.url();
    let victim = doomed.spawn(async move {
        let victim = Node::at(url, Service::Task, "victim:1").await;
        victim.cluster.owned().wait_for(|owned| *owned == both()).await.unwrap();
        victim
    });
    let victim = timeout(LONG, victim).await.unwrap().unwrap();
    let dead = victim.id();
    let heir = Node::task(&server).await;
    eventually("the heir sees it", LONG, async || heir.seen(&dead).is_some()).await;
    doomed.shutdown_background();
    let crashed = Instant::now();
    // The lease, half a second of etcd's scan, and slack of a busy machine.
    eventually("the heir does all", 2 * TTL, async || heir.owned() == both()).await;
    assert!(crashed.elapsed() < 2 * TTL);
    eventually("it is gone", 4 * TTL, async || heir.cluster.gone() == [dead.clone()]).await;
}

#[tokio::test]
async fn a_frozen_etcd_holds_nobody_and_is_survived() {
    let server = Server::start().await;
    let (a, b) = (Node::task(&server).await, Node::task(&server).await);
    eventually("each does one", LONG, async || a.owned().len() == 1 && b.owned().len() == 1).await;
    server.signal(Signal::SIGSTOP);
    eventually("the lease is unsure", 2 * TTL, async || a.owned().is_empty() && !a.sees_itself()).await;
    let begun = Instant::now();
    a.cluster.set_state(State::Draining).await;
    assert!(begun.elapsed() < Duration::from_millis(700), "{:?}", begun.elapsed());
    eventually("anyone does all", 4 * TTL, async || b.owned() == both()).await;

    let begun = Instant::now();
    a.cluster.close().await;
    a.lifecycle.stop(StopReason::Manual("test".into()));
    assert_eq!(a.engine.run().await.exit_code(), 0);
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());

    server.signal(Signal::SIGCONT);
    b.registered(LONG).await;
    eventually("b owns all", LONG, async || {
        b.cluster.duties().iter().all(|info| info.owner.as_ref() == Some(&b.id())) && b.owned() == both()
    })
    .await;
}
