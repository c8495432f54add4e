//! Logic on real PostgreSQL, NATS, Redis and etcd.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost::Message as _;
use sluice_launcher::{Cluster, Options, Service};
use sluice_lifecycle::{Lifecycle, Stage};
use sluice_logic::app::{App, Deps};
use sluice_logic::config::Config;
use sluice_logic::deps;
use sluice_presence::redis::{RedisConfig, RedisPresence};
use sluice_presence::{Presence, Redis};
use sluice_proto::grpc::Outcome::{Conflict, Duplicate, Stored};
use sluice_proto::grpc::{
    ChangeKind, FullSet, HeadsRequest, Notice, PresenceRequest, PublishRequest, ReadRange, ReadRequest,
    ReapRequest, StatusChange, StatusRequest, SubscribeRequest, SweepRequest, presence_request,
};
use sluice_proto::ids::RoomId;
use sluice_queue::memory::MemoryQueue;
use sluice_service::clock::Clock;
use tonic::Request;

use super::rig::{self, AT_ONCE, Caller, Rig, get, item, outcomes, publish, sent, within};

pub async fn stores() -> Cluster {
    let options = Options { gateways: 0, logics: 0, tasks: 0, ..Options::default() };
    Cluster::start(options).await.expect("the stores start")
}

pub fn config(cluster: &Cluster) -> Config {
    let url = |service| cluster.store(service).url().to_owned();
    let mut config = rig::config();
    config.nats.url = url(Service::Nats).into();
    config.redis.url = url(Service::Redis).into();
    config.etcd.endpoints = vec![url(Service::Etcd).into()];
    config.postgres.url = url(Service::Postgres).into();
    config
}

pub async fn real(config: Config) -> Rig {
    let same = config.clone();
    Rig::start(config, async move |lifecycle: &Lifecycle, app: &App| {
        deps::connect(&same, lifecycle, app.registration()).await.unwrap()
    })
    .await
}

pub fn call(items: Vec<sluice_proto::grpc::PublishItem>) -> PublishRequest {
    PublishRequest { items, not_after_ms: Clock::system().now_ms() + 60_000, ..PublishRequest::default() }
}

pub fn presence(cluster: &Cluster) -> RedisPresence {
    let redis = Redis::at(cluster.store(Service::Redis).url());
    RedisPresence::connect(RedisConfig { redis, ..RedisConfig::default() }).unwrap()
}

/// Stops or continues PostgreSQL with all its backends: the postmaster alone only takes no new connections.
pub fn signal_postgres(cluster: &Cluster, signal: Signal) {
    signal_family(cluster.store(Service::Postgres).pid(), signal);
}

/// Of a postmaster and all that it has started.
pub fn signal_family(postmaster: u32, signal: Signal) {
    let children = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap();
    for pid in [postmaster.to_string().as_str()].into_iter().chain(children.split_whitespace()) {
        // A backend may have ended meanwhile.
        let _ = kill(Pid::from_raw(pid.parse().unwrap()), signal);
    }
}

pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_stored_once_read_back_and_announced() {
    let cluster = stores().await;
    let config = config(&cluster);
    let mut queue = None;
    let same = config.clone();
    let rig = Rig::start(config, async |lifecycle: &Lifecycle, app: &App| {
        let deps = deps::connect(&same, lifecycle, app.registration()).await.unwrap();
        queue = Some(Arc::clone(&deps.queue));
        deps
    })
    .await;
    let mut consumer = queue.unwrap().consumer().await.unwrap();
    let mut caller = rig.caller().await;
    eventually("NATS is connected", async || get(rig.admin, "/status").await.1.contains("\"connected\""))
        .await;

    let items = ["1", "2", "3"].map(|n| item("news", "ann", &format!("k{n}"), n));
    let reply = publish(&caller, call(items.to_vec())).await;
    assert_eq!(outcomes(&reply), [Stored; 3]);
    assert_eq!(reply.results.iter().map(|result| result.seq).collect::<Vec<_>>(), [1, 2, 3]);
    let again = call(vec![item("news", "ann", "k2", "2"), item("news", "ann", "k3", "\"other\"")]);
    let again = publish(&caller, again).await;
    assert_eq!(outcomes(&again), [Duplicate, Conflict]);
    assert_eq!((again.results[0].seq, again.results[1].seq), (2, 0));

    let delivery = consumer.next().await.unwrap();
    let notice = Notice::decode(delivery.payload.clone()).unwrap();
    delivery.ack().await;
    assert_eq!(notice.epoch, reply.epoch);
    let run = &notice.runs[0];
    assert_eq!((run.room.as_str(), run.first, run.last), ("news", 1, 3));
    assert_eq!(run.messages[2].data, "3");

    let range = |after, before, limit| ReadRange { room: "news".into(), after, before, limit };
    let ranges = vec![range(1, 0, 0), range(0, 3, 1), range(9, 0, 0)];
    let pages = caller.read(ReadRequest { ranges, history: false }).await.unwrap().into_inner();
    assert_eq!(pages.epoch, reply.epoch);
    let seqs = |n: usize| pages.pages[n].messages.iter().map(|m| m.seq).collect::<Vec<_>>();
    assert_eq!((seqs(0), seqs(1), seqs(2)), (vec![2, 3], vec![2], vec![]));
    assert_eq!((pages.pages[0].oldest, pages.pages[0].head), (1, 3));
    for bad in [vec![], vec![range(0, 0, 257)], vec![range(0, 0, 1); 65]] {
        let error = caller.read(ReadRequest { ranges: bad, history: false }).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
    }
    subscribing(&cluster, &mut caller, reply.epoch).await;
    reporting(&mut caller).await;

    let url = cluster.store(Service::Postgres).url().to_owned();
    let store = sluice_store::postgres::PgStore::connect(sluice_store::postgres::PgConfig::new(url)).await;
    let store = store.unwrap();
    eventually("the outbox is empty", async || {
        sluice_store::Store::stale_notes(&store, Duration::ZERO, 10).await.unwrap().is_empty()
    })
    .await;
    let report = rig.stop().await;
    assert!(report.is_clean() && report.elapsed < AT_ONCE, "{report:?}");
    cluster.stop().await;
}

/// Interest is stored, heads are right, the marker comes.
async fn subscribing(cluster: &Cluster, caller: &mut Caller, epoch: u64) {
    let request =
        SubscribeRequest { instance: "gateway-a-1".into(), rooms: vec!["news".into(), "nobody".into()] };
    let reply = caller.subscribe(request).await.unwrap().into_inner();
    assert_eq!((reply.epoch, reply.heads, reply.interest_stored), (epoch, vec![3, 0], true));
    let rooms = [RoomId::parse("news").unwrap(), RoomId::parse("else").unwrap()];
    let interested = presence(cluster).interested(&rooms).await.unwrap();
    assert_eq!((interested[0][0].as_str(), interested[1].len()), ("gateway-a-1", 0));
    let marker = presence(cluster).marker().await.unwrap();
    eventually("the marker is known", async || {
        caller.heads(HeadsRequest::default()).await.unwrap().into_inner().marker == marker
    })
    .await;
}

/// Connections and rooms come and go; what is gone is reaped, what is connected is not.
async fn reporting(caller: &mut Caller) {
    let change = |kind: ChangeKind, room: &str| StatusChange {
        kind: kind.into(),
        connection: "c1".into(),
        user: "ann".into(),
        room: room.into(),
        since_ms: 5,
        ..StatusChange::default()
    };
    let report = |changes, full| StatusRequest {
        instance: "gateway-a-1".into(),
        changes,
        full,
        ..StatusRequest::default()
    };
    let both = vec![change(ChangeKind::Connected, ""), change(ChangeKind::Joined, "news")];
    let reply = caller.report_status(report(both.clone(), None)).await.unwrap().into_inner();
    assert!(reply.stored && reply.epoch != 0 && reply.marker != 0, "{reply:?}");
    let of = |of| PresenceRequest { of: Some(of), ..PresenceRequest::default() };
    let room = || of(presence_request::Of::Room("news".into()));
    let users = caller.presence(room()).await.unwrap().into_inner().users;
    assert_eq!((users[0].user.as_str(), users[0].connections, users[0].since_ms), ("ann", 1, 5));
    // A full set without the room removes it.
    let full = Some(FullSet { generation: 1, last: true });
    caller.report_status(report(both[..1].to_vec(), full)).await.unwrap();
    assert!(caller.presence(room()).await.unwrap().into_inner().users.is_empty());
    let ann = || of(presence_request::Of::User("ann".into()));
    assert_eq!(caller.presence(ann()).await.unwrap().into_inner().users[0].connections, 1);
    // Said to be gone, but connected here: a working connection is life.
    let mut hello = Request::new(HeadsRequest::default());
    hello.metadata_mut().insert(sluice_service::grpc::INSTANCE_HEADER, "gateway-a-1".parse().unwrap());
    caller.heads(hello).await.unwrap();
    let reap = |id: &str| ReapRequest { gone: vec![id.into()] };
    assert_eq!(caller.reap(reap("gateway-a-1")).await.unwrap().into_inner().fields_removed, 0);
    let mut dead = report(vec![change(ChangeKind::Connected, "")], None);
    dead.instance = "gateway-b-2".into();
    dead.changes[0].connection = "c2".into();
    caller.report_status(dead).await.unwrap();
    assert_eq!(caller.presence(ann()).await.unwrap().into_inner().users[0].connections, 2);
    assert!(caller.reap(reap("gateway-b-2")).await.unwrap().into_inner().fields_removed >= 1);
    assert_eq!(caller.presence(ann()).await.unwrap().into_inner().users[0].connections, 1);
    // One call takes everything of the instance that says goodbye, and a late report of it brings nothing back.
    let goodbye = StatusRequest { gone: true, ..report(Vec::new(), None) };
    let reply = caller.report_status(goodbye).await.unwrap().into_inner();
    assert!(reply.stored && reply.gone, "{reply:?}");
    caller.report_status(report(both, None)).await.unwrap();
    assert!(caller.presence(ann()).await.unwrap().into_inner().users.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_announces_what_was_not_handed_over() {
    let cluster = stores().await;
    let queue = MemoryQueue::default();
    queue.set_away(true);
    let config = config(&cluster);
    let same = config.clone();
    let rig = Rig::start(config, async |lifecycle: &Lifecycle, app: &App| {
        let deps = deps::connect(&same, lifecycle, app.registration()).await.unwrap();
        Deps { queue: Arc::new(queue.share()), ..deps }
    })
    .await;
    let mut caller = rig.caller().await;
    for (key, room) in [("1", "news"), ("2", "else"), ("3", "news")] {
        assert_eq!(outcomes(&publish(&caller, call(vec![item(room, "ann", key, key)])).await), [Stored]);
    }
    let young = caller.sweep(SweepRequest {}).await.unwrap().into_inner();
    assert_eq!((young.renoticed, young.more), (0, false), "they may be under way");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let down = caller.sweep(SweepRequest {}).await.unwrap().into_inner();
    assert_eq!((down.renoticed, down.more), (0, false), "the queue is still down");
    queue.set_away(false);
    assert_eq!(caller.sweep(SweepRequest {}).await.unwrap().into_inner().renoticed, 3);
    let mut runs: Vec<_> = sent(&queue, 2).await.into_iter().flat_map(|notice| notice.runs).collect();
    runs.sort_by(|a, b| (&a.room, a.first).cmp(&(&b.room, b.first)));
    let shape: Vec<_> = runs.iter().map(|r| (r.room.as_str(), r.first, r.last, r.messages.len())).collect();
    assert_eq!(shape, [("else", 1, 1, 0), ("news", 1, 1, 0), ("news", 2, 2, 0)]);
    assert_eq!(caller.sweep(SweepRequest {}).await.unwrap().into_inner().renoticed, 0);
    rig.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outbox_rows_older_than_the_repair_bound_are_forgotten() {
    let cluster = stores().await;
    let queue = MemoryQueue::default();
    queue.set_away(true);
    let config = Config { repair_bound_s: 1, ..config(&cluster) };
    let same = config.clone();
    let rig = Rig::start(config, async |lifecycle: &Lifecycle, app: &App| {
        let deps = deps::connect(&same, lifecycle, app.registration()).await.unwrap();
        Deps { queue: Arc::new(queue.share()), ..deps }
    })
    .await;
    let mut caller = rig.caller().await;
    publish(&caller, call(vec![item("news", "ann", "k", "1")])).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let swept = caller.sweep(SweepRequest {}).await.unwrap().into_inner();
    assert_eq!((swept.renoticed, swept.outbox_removed), (0, 1));
    rig.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_neighbour_may_be_away() {
    let cluster = stores().await;
    let rig = real(config(&cluster)).await;
    let mut caller = rig.caller().await;
    let mut n = 0;
    let mut next = || {
        n += 1;
        call(vec![item("news", "ann", &n.to_string(), "1")])
    };
    publish(&caller, next()).await;

    // Black-holed, not only closed: nobody answers at all.
    cluster.store(Service::Redis).freeze();
    cluster.store(Service::Nats).freeze();
    cluster.store(Service::Etcd).freeze();
    let began = Instant::now();
    for _ in 0..50 {
        assert_eq!(outcomes(&publish(&caller, next()).await), [Stored]);
    }
    // If each waited for one of them it would be a quarter of a minute.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let request = SubscribeRequest { instance: "gateway-a-1".into(), rooms: vec!["news".into()] };
    let began = Instant::now();
    let reply = caller.subscribe(request).await.unwrap().into_inner();
    assert_eq!((reply.heads, reply.interest_stored), (vec![51], false));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(get(rig.admin, "/readyz").await.0, 200, "the store is all that matters");

    signal_postgres(&cluster, Signal::SIGSTOP);
    eventually("/readyz says that the store is away", async || get(rig.admin, "/readyz").await.0 == 503)
        .await;
    let stuck = caller.publish(within(Duration::from_millis(500), next())).await;
    assert!(stuck.is_err(), "{stuck:?}");
    let report = rig.stop().await;
    assert_eq!(report.exit_code(), 0);
    assert!(report.elapsed < Duration::from_secs(8), "{report:?}");
    assert!(
        report.outcome(Stage::Release).is_some_and(|outcome| outcome.as_str() != "skipped"),
        "{report:?}"
    );
    for service in [Service::Redis, Service::Nats, Service::Etcd] {
        cluster.store(service).thaw();
    }
    signal_postgres(&cluster, Signal::SIGCONT);
    cluster.stop().await;
}
