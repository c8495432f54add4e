//! Each service stops and starts again and again while its neighbours live and clients publish: nothing of it is left
//! with them, or in the stores.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sluice_client::Position;
use sluice_launcher::{Service, probe};
use sluice_testing::{Footprint, cycles};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::super::{Real, SERVICES, term};
use crate::input::address_of;
use crate::kit::{Ground, SOON, client_of};
use crate::record::Observer;
use crate::resume::fill;

/// In a run of all tests; `SLUICE_CYCLES` says otherwise.
const CYCLES: usize = 10;
/// Before the first look: connections that are made once are there then.
const FIRST: usize = 2;
/// What comes and goes by itself, a page that is asked for, a thread of a pool: fewer than there are cycles.
const BESIDES: usize = 4;
/// What a lease, the reaper or the grace of somebody who left takes away.
const TAKEN_AWAY: Duration = Duration::from_secs(60);

const SESSIONS: &str = "select from pg_stat_activity where application_name = 'sluice'";

/// What others would have of instances that are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    etcd_keys: usize,
    etcd_leases: usize,
    /// Interest, presence, the index of each instance.
    redis_keys: usize,
    redis_connections: usize,
    postgres_sessions: usize,
}

impl Kept {
    async fn of(cluster: &Real) -> Self {
        let (from, to) = (BASE64_STANDARD.encode("/sluice/"), BASE64_STANDARD.encode("/sluice0"));
        let keys = etcd(cluster, "kv/range", &json!({ "key": from, "range_end": to })).await;
        let leases = etcd(cluster, "lease/leases", &json!({})).await;
        let count = |answer: &Value, of: &str| answer[of].as_array().map_or(0, Vec::len);
        let redis = redis(cluster).await;
        let number = |before: &str| {
            let line = redis.lines().find_map(|line| line.strip_prefix(before));
            line.unwrap_or_else(|| panic!("{before}: {redis}")).trim().parse().unwrap()
        };
        Self {
            etcd_keys: keys["kvs"]
                .as_array()
                .map_or(0, |keys| keys.iter().filter(|key| !is_duty(key)).count()),
            etcd_leases: count(&leases, "leases"),
            redis_keys: number(":"),
            redis_connections: number("connected_clients:"),
            postgres_sessions: usize::try_from(cluster.sql(SESSIONS).await).unwrap(),
        }
    }

    /// No more than then: of keys none, of connections as many as pools may open.
    fn fits(&self, then: &Self) -> bool {
        self.etcd_keys <= then.etcd_keys
            && self.etcd_leases <= then.etcd_leases
            && self.redis_keys <= then.redis_keys
            && self.redis_connections <= then.redis_connections + BESIDES
            && self.postgres_sessions <= then.postgres_sessions + BESIDES
    }
}

/// Of duties there are always as many, but for the moment in which nobody has taken them over.
fn is_duty(key: &Value) -> bool {
    let name = BASE64_STANDARD.decode(key["key"].as_str().unwrap()).unwrap();
    String::from_utf8(name).unwrap().contains("/duties/")
}

async fn etcd(cluster: &Real, what: &str, body: &Value) -> Value {
    let url = format!("{}/v3/{what}", cluster.store(Service::Etcd).url());
    let answer = probe::post(&url, &body.to_string(), SOON).await.unwrap();
    serde_json::from_str(&answer.body).unwrap()
}

/// The number of keys, as `:7`, and what Redis says of its clients.
async fn redis(cluster: &Real) -> String {
    let url = cluster.store(Service::Redis).url().replace("redis://", "");
    let mut tcp = TcpStream::connect(address_of(&url)).await.unwrap();
    tcp.write_all(b"DBSIZE\r\nINFO clients\r\nQUIT\r\n").await.unwrap();
    let mut said = String::new();
    tcp.read_to_string(&mut said).await.unwrap();
    said
}

/// What each line of its log says that ends a stop.
fn ends(log: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == "Stopped").collect()
}

async fn again_and_again(service: Service) {
    // Who watches stays: a lone gateway would send it away for up to fifteen seconds each time.
    let gateways = if service == Service::Gateway { 2 } else { 1 };
    let cluster = Real::start(gateways, 1, 1).await;
    let options = client_of(&cluster, "watch", gateways - 1);
    let observer = Observer::start(options, "news", Position::After(0)).await;
    let neighbours = || {
        let nodes = SERVICES.into_iter().flat_map(|service| cluster.nodes(service));
        let others = nodes.filter(|node| (node.service, node.index) != (service, 0));
        others.map(|node| Footprint::of(node.pid())).collect::<Vec<_>>()
    };
    let (cycles, mut longest, mut before) = (cycles(CYCLES), Duration::ZERO, None);
    for cycle in 1..=FIRST + cycles {
        let exit = term(&cluster.node(service, 0).unwrap()).await;
        longest = longest.max(exit.elapsed.unwrap());
        cluster.start_at(service, 0).await.unwrap();
        fill(&cluster, "news", cycle as u64, cycle as u64).await;
        observer.reaches(cycle as u64, SOON).await;
        if cycle == FIRST {
            before = Some((Kept::of(&cluster).await, neighbours()));
        }
    }
    let before = before.unwrap();
    let fits = |now: &(Kept, Vec<Footprint>)| {
        let mut pairs = now.1.iter().zip(&before.1);
        now.0.fits(&before.0) && pairs.all(|(now, then)| now.fits(then, BESIDES))
    };
    let (until, mut now) = (Instant::now() + TAKEN_AWAY, (Kept::of(&cluster).await, neighbours()));
    while !fits(&now) && Instant::now() < until {
        sleep(Duration::from_millis(100)).await;
        now = (Kept::of(&cluster).await, neighbours());
    }
    assert!(fits(&now), "{cycles} cycles of {service}: {now:?} after, {before:?} before");
    let log = std::fs::read_to_string(cluster.node(service, 0).unwrap().log()).unwrap();
    let ends = ends(&log);
    assert_eq!(ends.len(), FIRST + cycles, "{log}");
    for end in ends {
        assert_eq!(
            (&end["exit_code"], &end["abandoned"]),
            (&0.into(), &Value::Null),
            "no task is left: {end}"
        );
    }
    println!("{cycles} cycles of {service}: exit code 0 each, {longest:?} at most, {now:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_stops_and_starts_again_and_again() {
    again_and_again(Service::Gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logic_stops_and_starts_again_and_again() {
    again_and_again(Service::Logic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_stops_and_starts_again_and_again() {
    again_and_again(Service::Task).await;
}
