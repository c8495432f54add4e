//! What every cluster does. Each case is run against all of them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sluice_cluster::{Cluster, Command, Duty, Instance, InstanceState, Registration, Service};
use sluice_lifecycle::{Engine, Lifecycle, Plan, Scope, Stage, StopReason};
use sluice_proto::ids::InstanceId;
use sluice_testing::eventually;
use tokio::time::{Instant, timeout};

pub const LONG: Duration = Duration::from_secs(20);
/// What spreads among those that are well.
pub const SOON: Duration = Duration::from_secs(5);

/// A registry without anybody in it.
pub trait Bed: Sized + Send + Sync + 'static {
    /// Its lease time.
    const TTL: Duration;
    async fn start() -> Self;
    fn join(
        &self,
        scope: &Scope,
        registration: Registration,
        candidates: BTreeSet<Duty>,
    ) -> impl Future<Output = Arc<dyn Cluster>> + Send;
    /// Every lease is lost at once.
    async fn expire_all(&self);
}

/// Names the cases once.
macro_rules! against_the_contract {
    ($bed:ty) => {
        against_the_contract! { $bed:
            everybody_sees_who_comes_drains_and_goes
            a_state_is_seen_in_the_order_it_was_set
            a_lost_lease_is_a_new_id
            duties_are_shared_and_handed_over_at_once
            a_draining_task_gets_no_duty
            who_is_no_candidate_owns_nothing
            a_crashed_owner_is_replaced_soon_after_its_lease
            a_close_is_quick_final_and_gives_all_back
            a_drained_task_comes_back
            a_duty_released_by_hand_changes_hands
            a_command_reaches_the_instance_that_is_meant
            an_emergency_release_leaves_nobody_out
        }
    };
    ($bed:ty: $($case:ident)*) => {$(
        #[tokio::test]
        async fn $case() {
            crate::contract::$case::<$bed>().await;
        }
    )*};
}

/// A service of the cluster.
pub struct Node {
    pub cluster: Arc<dyn Cluster>,
    pub lifecycle: Lifecycle,
    pub engine: Engine,
}

impl Node {
    pub async fn start<B: Bed>(bed: &B, service: Service, address: &str) -> Self {
        let duties = if service == Service::Task { both() } else { BTreeSet::new() };
        Self::with(bed, service, address, duties).await
    }

    pub async fn with<B: Bed>(bed: &B, service: Service, address: &str, duties: BTreeSet<Duty>) -> Self {
        let plan = Plan::new(Duration::from_secs(2)).stage(Stage::Release, Duration::from_secs(1));
        let (lifecycle, engine) = Lifecycle::new(plan);
        let url = (service == Service::Gateway).then(|| format!("ws://{address}/ws"));
        let registration = Registration { service, address: address.into(), url, version: "test".into() };
        let cluster = bed.join(&lifecycle.scope(Stage::Release), registration, duties).await;
        Self { cluster, lifecycle, engine }
    }

    pub async fn task<B: Bed>(bed: &B) -> Self {
        Self::start(bed, Service::Task, "task:7072").await
    }

    pub fn id(&self) -> InstanceId {
        self.cluster.me().borrow().clone()
    }

    pub fn sees_itself(&self) -> bool {
        let view = self.cluster.view().borrow().clone();
        view.sees_me && view.instances.contains_key(&self.id())
    }

    pub async fn registered(&self, within: Duration) {
        eventually("it sees itself", within, async || self.sees_itself()).await;
    }

    pub fn seen(&self, id: &InstanceId) -> Option<Instance> {
        self.cluster.view().borrow().instances.get(id).cloned()
    }

    pub fn owned(&self) -> BTreeSet<Duty> {
        self.cluster.owned().borrow().clone()
    }

    /// Stops as a process does that forgets to close.
    pub async fn stop(self) {
        self.lifecycle.stop(StopReason::Manual("test".into()));
        assert_eq!(self.engine.run().await.exit_code(), 0);
    }
}

pub fn both() -> BTreeSet<Duty> {
    [Duty::Sweep, Duty::Reap].into()
}

pub async fn everybody_sees_who_comes_drains_and_goes<B: Bed>() {
    let bed = B::start().await;
    let a = Node::start(&bed, Service::Logic, "a:1").await;
    let b = Node::start(&bed, Service::Gateway, "b:1").await;
    eventually("a sees b", LONG, async || a.seen(&b.id()).is_some()).await;
    eventually("b sees both", LONG, async || b.sees_itself() && b.seen(&a.id()).is_some()).await;
    let seen = a.seen(&b.id()).unwrap();
    assert_eq!((seen.service, seen.state), (Service::Gateway, InstanceState::Serving));
    assert_eq!((seen.address.as_str(), seen.url.as_deref()), ("b:1", Some("ws://b:1/ws")));
    assert_eq!((seen.version.as_str(), seen.is_seed()), ("test", false));

    b.cluster.set_state(InstanceState::Draining).await;
    eventually("the drain", SOON, async || {
        a.seen(&b.id()).is_some_and(|b| b.state == InstanceState::Draining)
    })
    .await;
    let (left, begun) = (b.id(), Instant::now());
    b.cluster.close().await.unwrap();
    eventually("b is off the list", SOON, async || a.seen(&left).is_none()).await;
    assert!(a.cluster.gone().is_empty());
    eventually("b is gone", 4 * B::TTL, async || a.cluster.gone() == [left.clone()]).await;
    assert!(begun.elapsed() >= 2 * B::TTL);
    assert!(a.sees_itself() && !a.cluster.gone().contains(&a.id()));
}

pub async fn a_state_is_seen_in_the_order_it_was_set<B: Bed>() {
    let bed = B::start().await;
    let a = Node::start(&bed, Service::Logic, "a:1").await;
    let b = Node::start(&bed, Service::Logic, "b:1").await;
    eventually("a sees b", LONG, async || a.seen(&b.id()).is_some()).await;
    let id = b.id();
    let (mut view, seen) = (a.cluster.view(), RefCell::new(vec![InstanceState::Serving]));
    let changes = async {
        for state in [InstanceState::Draining, InstanceState::Serving, InstanceState::Draining] {
            b.cluster.set_state(state).await;
            eventually("it is seen", SOON, async || seen.borrow().last() == Some(&state)).await;
        }
        b.cluster.close().await.unwrap();
    };
    let watch = async {
        loop {
            let state = view.borrow_and_update().instances.get(&id).map(|b| b.state);
            let Some(state) = state else { break };
            if seen.borrow().last() != Some(&state) {
                seen.borrow_mut().push(state);
            }
            timeout(LONG, view.changed()).await.expect("in time").unwrap();
        }
    };
    tokio::join!(watch, changes);
    assert_eq!(
        *seen.borrow(),
        [InstanceState::Serving, InstanceState::Draining, InstanceState::Serving, InstanceState::Draining]
    );
}

pub async fn a_lost_lease_is_a_new_id<B: Bed>() {
    let bed = B::start().await;
    let node = Node::task(&bed).await;
    let other = Node::start(&bed, Service::Logic, "l:1").await;
    node.registered(LONG).await;
    eventually("it has its duties", LONG, async || node.owned() == both()).await;
    other.registered(LONG).await;
    other.cluster.set_state(InstanceState::Draining).await;
    let (old, others) = (node.id(), other.id());
    let mut me = node.cluster.me();
    bed.expire_all().await;
    eventually("a new id", LONG, async || node.id() != old && node.sees_itself()).await;
    assert!(me.has_changed().unwrap() && *me.borrow_and_update() == node.id());
    assert!(node.seen(&old).is_none());
    eventually("its duties again", 2 * B::TTL, async || node.owned() == both()).await;
    eventually("the state is said again", LONG, async || {
        let now = other.id();
        now != others && node.seen(&now).is_some_and(|it| it.state == InstanceState::Draining)
    })
    .await;
    eventually("the old ids are gone", 4 * B::TTL, async || {
        let gone = node.cluster.gone();
        gone.contains(&old) && gone.contains(&others) && gone.len() == 2
    })
    .await;
}

pub async fn duties_are_shared_and_handed_over_at_once<B: Bed>() {
    let bed = B::start().await;
    let a = Node::task(&bed).await;
    eventually("a does all", LONG, async || a.owned() == both()).await;
    let b = Node::task(&bed).await;
    eventually("each does one", LONG, async || {
        a.owned().len() == 1 && b.owned().len() == 1 && a.owned() != b.owned()
    })
    .await;
    let info = a.cluster.duties();
    assert!(info.iter().all(|info| info.owner_lives) && info.len() == 2);
    let mine = info.iter().filter(|info| info.mine).map(|info| info.duty).collect::<BTreeSet<_>>();
    assert_eq!(mine, a.owned());

    b.cluster.release_duties().await;
    assert!(b.owned().is_empty());
    eventually("a does all", SOON, async || a.owned() == both()).await;
    eventually("b drains", SOON, async || {
        a.seen(&b.id()).is_some_and(|b| b.state == InstanceState::Draining)
    })
    .await;
    // The released one takes nothing again.
    let mut owned = b.cluster.owned();
    assert!(timeout(2 * B::TTL, owned.wait_for(|owned| !owned.is_empty())).await.is_err());
    // Not even when it is the only one left.
    a.cluster.close().await.unwrap();
    assert!(timeout(3 * B::TTL, owned.wait_for(|owned| !owned.is_empty())).await.is_err());
}

pub async fn a_draining_task_gets_no_duty<B: Bed>() {
    let bed = B::start().await;
    let (a, b) = (Node::task(&bed).await, Node::task(&bed).await);
    eventually("each does one", LONG, async || a.owned().len() == 1 && b.owned().len() == 1).await;
    let idle = Node::task(&bed).await;
    idle.registered(LONG).await;
    idle.cluster.set_state(InstanceState::Draining).await;
    let drains = |seen: Option<Instance>| seen.is_some_and(|idle| idle.state == InstanceState::Draining);
    eventually("all know", LONG, async || drains(a.seen(&idle.id())) && drains(b.seen(&idle.id()))).await;
    a.cluster.close().await.unwrap();
    eventually("b does all", LONG, async || b.owned() == both()).await;
    assert!(idle.owned().is_empty());
}

pub async fn who_is_no_candidate_owns_nothing<B: Bed>() {
    let bed = B::start().await;
    let logic = Node::start(&bed, Service::Logic, "a:1").await;
    logic.registered(LONG).await;
    let task = Node::task(&bed).await;
    eventually("the task does all", LONG, async || task.owned() == both()).await;
    eventually("logic knows", LONG, async || {
        let duties = logic.cluster.duties();
        duties.len() == 2 && duties.iter().all(|info| info.owner == Some(task.id()) && info.owner_lives)
    })
    .await;
    assert!(logic.owned().is_empty() && logic.cluster.duties().iter().all(|info| !info.mine));
}

pub async fn a_crashed_owner_is_replaced_soon_after_its_lease<B: Bed>() {
    let bed = Arc::new(B::start().await);
    let doomed = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let there = Arc::clone(&bed);
    let victim = doomed.spawn(async move {
        let victim = Node::start(&*there, Service::Task, "victim:1").await;
        victim.cluster.owned().wait_for(|owned| *owned == both()).await.unwrap();
        victim
    });
    let victim = timeout(LONG, victim).await.unwrap().unwrap();
    let dead = victim.id();
    let heir = Node::task(&*bed).await;
    eventually("the heir sees it", LONG, async || heir.seen(&dead).is_some()).await;
    doomed.shutdown_background();
    // The lease, half a second of etcd's scan, and as much again for a busy machine.
    eventually("the heir does all", 3 * B::TTL, async || heir.owned() == both()).await;
    eventually("it is gone", 4 * B::TTL, async || heir.cluster.gone() == [dead.clone()]).await;
}

pub async fn a_close_is_quick_final_and_gives_all_back<B: Bed>() {
    let bed = B::start().await;
    let (a, b) = (Node::task(&bed).await, Node::task(&bed).await);
    eventually("each does one", LONG, async || a.owned().len() == 1 && b.owned().len() == 1).await;
    let (left, begun) = (b.id(), Instant::now());
    b.cluster.close().await.unwrap();
    b.cluster.close().await.unwrap();
    b.cluster.release_duties().await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(b.owned().is_empty());
    eventually("a does all", SOON, async || a.owned() == both()).await;
    assert!(a.seen(&left).is_none());
    // Without a close, the end of its stage is an end too.
    let begun = Instant::now();
    b.stop().await;
    a.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

pub async fn a_drained_task_comes_back<B: Bed>() {
    let bed = B::start().await;
    let (a, b) = (Node::task(&bed).await, Node::task(&bed).await);
    eventually("each does one", LONG, async || a.owned().len() == 1 && b.owned().len() == 1).await;
    b.cluster.release_duties().await;
    eventually("a does all", LONG, async || a.owned() == both()).await;
    b.cluster.resume_duties().await;
    eventually("each does one again", LONG, async || a.owned().len() == 1 && b.owned().len() == 1).await;
    let serves = |seen: Option<Instance>| seen.is_some_and(|it| it.state == InstanceState::Serving);
    eventually("b serves", LONG, async || serves(a.seen(&b.id()))).await;
    let counts = b.cluster.counts();
    assert!(counts.given_by_others >= 1 && counts.given_back >= 1 && counts.lost == 0, "{counts:?}");
}

pub async fn a_duty_released_by_hand_changes_hands<B: Bed>() {
    let bed = B::start().await;
    let (a, b) = (Node::task(&bed).await, Node::task(&bed).await);
    let logic = Node::start(&bed, Service::Logic, "a:1").await;
    eventually("each does one", LONG, async || a.owned().len() == 1 && b.owned().len() == 1).await;
    let (of_a, of_b) = (a.owned(), b.owned());
    let duty = *of_a.first().unwrap();
    // Asked of somebody who owns nothing. The other task then has too many, and gives its own back.
    assert_eq!(logic.cluster.release_duty(duty).await, Ok(Some(a.id())));
    eventually("they have changed places", LONG, async || a.owned() == of_b && b.owned() == of_a).await;
    let held = b.cluster.duties().into_iter().find(|info| info.duty == duty).unwrap();
    assert!(held.owner_lives && held.mine && held.held_for.is_some(), "{held:?}");
    assert_eq!(a.cluster.counts().lost, 1);
    // What nobody owns cannot be released.
    assert_eq!(logic.cluster.release_duty(Duty::Due(3)).await, Ok(None));
}

pub async fn a_command_reaches_the_instance_that_is_meant<B: Bed>() {
    let bed = B::start().await;
    let (a, b) = (Node::task(&bed).await, Node::start(&bed, Service::Gateway, "b:1").await);
    eventually("both are there", LONG, async || a.sees_itself() && a.seen(&b.id()).is_some()).await;
    let (mut told, bystander) = (b.cluster.commanded(), a.cluster.commanded());
    for command in [Command::Drain, Command::Undrain, Command::Drain] {
        a.cluster.command(&b.id(), command).await.unwrap();
        timeout(LONG, told.changed()).await.expect("in time").unwrap();
        let heard = told.borrow_and_update().clone().unwrap();
        assert_eq!((heard.command, heard.by), (command, a.id()));
    }
    assert_eq!(*bystander.borrow(), None);
    let leases = a.cluster.leases().await;
    for id in [a.id(), b.id()] {
        let lease = leases[&id];
        assert!(lease.granted == B::TTL && lease.left <= lease.granted, "{lease:?}");
    }
}

pub async fn an_emergency_release_leaves_nobody_out<B: Bed>() {
    let bed = B::start().await;
    // In places of their own: who is in the place of a younger one has ended.
    let a = Node::start(&bed, Service::Task, "a:7072").await;
    let b = Node::start(&bed, Service::Task, "b:7072").await;
    eventually("each does one", LONG, async || a.owned().len() == 1 && b.owned().len() == 1).await;
    eventually("both are there", LONG, async || a.seen(&b.id()).is_some() && b.seen(&a.id()).is_some()).await;
    let ids = (a.id(), b.id());
    let released = b.cluster.release_everything().await.unwrap();
    assert_eq!(released.duties.iter().map(|(duty, _)| *duty).collect::<BTreeSet<_>>(), both());
    assert_eq!(released.registrations, []);
    let all = || a.owned().union(&b.owned()).copied().collect::<BTreeSet<_>>();
    eventually("all are owned again", LONG, async || all() == both() && a.owned().len() == 1).await;
    assert_eq!((a.id(), b.id()), ids, "who lives stays who it is");
}
