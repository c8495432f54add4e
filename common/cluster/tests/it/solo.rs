//! The cluster inside one process: the contract, and what only it promises.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_cluster::solo::{SoloCluster, SoloRegistry};
use sluice_cluster::{Cluster, Duty, InstanceState, Registration, Service};
use sluice_lifecycle::Scope;
use sluice_testing::{keep_log, logged};

use crate::contract::{Bed, Node, both};

struct Solo {
    registry: SoloRegistry,
    joined: Mutex<Vec<Arc<SoloCluster>>>,
}

impl Bed for Solo {
    const TTL: Duration = Duration::from_millis(500);

    async fn start() -> Self {
        Self { registry: SoloRegistry::new(Self::TTL), joined: Mutex::default() }
    }

    async fn join(
        &self,
        scope: &Scope,
        registration: Registration,
        candidates: BTreeSet<Duty>,
    ) -> Arc<dyn Cluster> {
        let member = Arc::new(self.registry.join(scope, registration, candidates));
        self.joined.lock().unwrap().push(Arc::clone(&member));
        member
    }

    async fn expire_all(&self) {
        self.joined.lock().unwrap().iter().for_each(|member| member.expire());
    }
}

against_the_contract!(Solo);

/// Who asks right after a call sees what it did, everywhere.
#[tokio::test]
async fn a_change_is_known_to_all_before_its_call_returns() {
    let bed = Solo::start().await;
    let (a, b) = (Node::task(&bed).await, Node::task(&bed).await);
    assert!(a.sees_itself() && b.sees_itself() && a.seen(&b.id()).is_some() && b.seen(&a.id()).is_some());
    assert_eq!((a.owned().len(), b.owned().len()), (1, 1));
    b.cluster.release_duties().await;
    assert_eq!((a.owned(), b.owned().len()), (both(), 0));
    assert_eq!(a.seen(&b.id()).unwrap().state, InstanceState::Draining);
    let c = Node::start(&bed, Service::Gateway, "c:1").await;
    c.cluster.set_state(InstanceState::Draining).await;
    assert_eq!(b.seen(&c.id()).unwrap().state, InstanceState::Draining);
    c.cluster.close().await.unwrap();
    assert!(a.seen(&c.id()).is_none());
    // A closed one is not on the list again, whatever is said of it.
    c.cluster.set_state(InstanceState::Serving).await;
    bed.expire_all().await;
    assert!(a.cluster.view().borrow().of(Service::Gateway).next().is_none());
}

#[tokio::test]
async fn many_duties_are_spread_evenly_and_move_little() {
    let bed = Solo::start().await;
    let all: BTreeSet<Duty> = (0..8).map(Duty::Due).chain(both()).collect();
    let mut nodes = Vec::new();
    for n in 0..5 {
        let before: Vec<_> = nodes.iter().map(Node::owned).collect();
        nodes.push(Node::with(&bed, Service::Task, &format!("task-{n}:1"), all.clone()).await);
        let counts: Vec<_> = nodes.iter().map(|node: &Node| node.owned().len()).collect();
        assert_eq!(counts.iter().sum::<usize>(), 10);
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        for (node, before) in nodes.iter().zip(before) {
            assert!(node.owned().is_subset(&before), "nobody but the new one takes any");
        }
    }
}

/// Who takes over from whom and why, what is given back, and what is lost.
#[tokio::test]
async fn each_change_of_hands_is_a_line_in_the_log() {
    keep_log();
    let bed = Solo::start().await;
    let (a, b) = (Node::task(&bed).await, Node::task(&bed).await);
    let said = |line: &str, parts: &[String]| {
        logged(line).iter().any(|line| parts.iter().all(|part| line.contains(part)))
    };
    let (owner_a, owner_b) = (format!("owner={}", a.id()), format!("owner={}", b.id()));
    assert!(said("Duty taken.", &[owner_a.clone(), "nobody had it".into()]));
    assert!(said("Duty given back.", std::slice::from_ref(&owner_a)));
    let from_a = format!("from={}", a.id());
    assert!(said("Duty taken.", &[owner_b.clone(), from_a, "it was given back".into()]));
    b.cluster.close().await.unwrap();
    let from_b = format!("from={}", b.id());
    assert!(said("Duty taken over.", &[owner_a.clone(), from_b, "its owner has ended".into()]));
    a.cluster.release_duty(Duty::Sweep).await.unwrap();
    assert!(said("Duty lost", &[owner_a, "duty=sweep".into()]));
    let counts = a.cluster.counts();
    assert_eq!((counts.taken_over, counts.given_back, counts.lost), (1, 1, 1), "{counts:?}");
}
