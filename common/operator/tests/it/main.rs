//! The operator's pages over real sockets: who may, what is carried to whom, and what each answer says.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_cluster::solo::{SoloCluster, SoloRegistry};
use sluice_cluster::{Cluster, Duty, InstanceState, Registration, Service};
use sluice_lifecycle::{Engine, Lifecycle, Plan, Stage, StopReason};
use sluice_operator::Operator;
use sluice_service::admin::AdminPages;
use sluice_service::listen;
use sluice_service::metrics::Registry;
use sluice_testing::{eventually, keep_log, logged};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(5);
const TOKEN: &str = "hush";

/// An instance with the operator's pages; what it does when it is drained is nothing.
struct Node {
    at: String,
    lifecycle: Lifecycle,
    operator: Operator,
    cluster: Arc<SoloCluster>,
    _engine: Engine,
}

impl Node {
    async fn start(registry: &SoloRegistry, service: Service, token: Option<&str>) -> Self {
        let plan = Plan::new(Duration::from_secs(2)).stage(Stage::Gone, Duration::from_secs(1));
        let (lifecycle, engine) = Lifecycle::new(plan);
        let bound = listen::bind("127.0.0.1:0").await.unwrap();
        let at = bound.address().to_string();
        let duties =
            if service == Service::Task { [Duty::Sweep, Duty::Due(3)].into() } else { BTreeSet::new() };
        let registration = Registration { service, address: at.clone(), url: None, version: "1".into() };
        let cluster = Arc::new(registry.join(&lifecycle.scope(Stage::Gone), registration, duties));
        let metrics = Registry::new(service.as_str());
        let shared: Arc<dyn Cluster> = Arc::clone(&cluster) as Arc<dyn Cluster>;
        let operator = Operator::new(lifecycle.clone(), shared, &metrics);
        let mut pages = AdminPages::new(service.as_str(), lifecycle.clone(), metrics);
        pages.token = token.map(Arc::from);
        operator.describe(&mut pages);
        pages.serve_with(operator.routes(), bound, &lifecycle.scope(Stage::Gone));
        operator.follow();
        lifecycle.ready();
        Self { at, lifecycle, operator, cluster, _engine: engine }
    }

    fn id(&self) -> String {
        self.cluster.me().borrow().to_string()
    }

    async fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, Value) {
        let mut tcp = TcpStream::connect(&self.at).await.unwrap();
        let shown = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{shown}Content-Length: {length}\r\n\r\n{body}"
        );
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, None, "").await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        self.ask("POST", path, Some(TOKEN), body).await
    }

    fn reason(&self) -> Option<StopReason> {
        self.lifecycle.progress().borrow().reason.clone()
    }

    fn is_drained(&self) -> bool {
        self.operator.drain().is_on()
    }
}

fn registry() -> SoloRegistry {
    SoloRegistry::new(Duration::from_secs(10))
}

/// Everything that may be asked for, for this target.
fn commands(target: &str) -> Vec<(String, String)> {
    let plain = |path: &str| (path.to_owned(), String::new());
    let wish = |command: &str, target: &str| {
        let body = json!({ "command": command, "target": target, "emergency": true });
        ("/admin/command".to_owned(), body.to_string())
    };
    vec![
        plain("/admin/drain"),
        plain("/admin/undrain"),
        plain(&format!("/admin/instances/{target}/stop")),
        plain(&format!("/admin/instances/{target}/drain")),
        plain("/admin/duties/sweep/release"),
        plain("/admin/duties/due/3/release"),
        wish("stop", target),
        wish("release", "sweep"),
        wish("release", "all"),
    ]
}

#[tokio::test]
async fn a_loop_that_has_run_wild_is_answered_429() {
    let registry = registry();
    let node = Node::start(&registry, Service::Gateway, Some(TOKEN)).await;
    let mut carried_out = 0;
    let said = loop {
        let (status, said) = node.post("/admin/drain", "").await;
        if status == 429 {
            break said;
        }
        assert_eq!(status, 202, "{said}");
        carried_out += 1;
        assert!(carried_out < 10_000, "never too many");
    };
    assert!(carried_out >= 50, "{carried_out}: a roll by script is no loop");
    assert!(said["error"].as_str().unwrap().contains("again in 1 s"), "{said}");
    // Neither reading nor who has no token is any concern of it.
    node.get("/admin/duties").await;
    assert_eq!(node.ask("POST", "/admin/drain", Some("husk"), "").await.0, 401);
    eventually("a turn is free again", SOON, async || node.post("/admin/undrain", "").await.0 == 202).await;
}

#[tokio::test]
async fn without_the_token_nothing_happens_and_it_is_logged() {
    keep_log();
    let registry = registry();
    let open = Node::start(&registry, Service::Task, None).await;
    let kept = Node::start(&registry, Service::Gateway, Some(TOKEN)).await;
    let owned = open.cluster.owned().borrow().clone();
    assert_eq!(owned, [Duty::Sweep, Duty::Due(3)].into());
    let mut asked = 0;
    for (node, shown) in [(&kept, None), (&kept, Some("husk")), (&kept, Some("")), (&open, Some(TOKEN))] {
        for (path, body) in commands(&kept.id()) {
            let (status, said) = node.ask("POST", &path, shown, &body).await;
            assert_eq!(status, 401, "{path}");
            assert!(said["error"].as_str().unwrap().contains("admin.token_file"), "{said}");
            asked += 1;
            let lines = logged("An operator's request was refused.");
            assert!(lines.len() == asked && lines[asked - 1].contains(&path), "{lines:?}");
        }
    }
    for node in [&open, &kept] {
        assert!(!node.is_drained() && node.reason().is_none());
    }
    assert_eq!(*open.cluster.owned().borrow(), owned);
    assert_eq!((open.cluster.counts().lost, open.cluster.counts().given_back), (0, 0));
}

#[tokio::test]
async fn commands_are_carried_to_the_instance_that_is_meant() {
    let registry = registry();
    let asked = Node::start(&registry, Service::Gateway, Some(TOKEN)).await;
    // It needs no token of its own: who was asked has checked it.
    let meant = Node::start(&registry, Service::Task, None).await;
    let id = meant.id();
    let path = |command: &str| format!("/admin/instances/{id}/{command}");
    let told = asked.post(&path("drain"), "").await;
    assert_eq!(told, (202, json!({ "command": "drain", "target": id })));
    eventually("it is drained", SOON, async || meant.is_drained()).await;
    assert!(!asked.is_drained());
    let body = json!({ "command": "undrain", "target": id }).to_string();
    assert_eq!(asked.post("/admin/command", &body).await.0, 202);
    eventually("it comes back", SOON, async || !meant.is_drained()).await;
    // This one itself, by its id and without.
    for path in ["/admin/drain".to_owned(), format!("/admin/instances/{}/drain", asked.id())] {
        assert_eq!(asked.post(&path, "").await.0, 202);
        assert!(asked.is_drained());
        assert_eq!(asked.post("/admin/undrain", "").await.0, 202);
        assert!(!asked.is_drained());
    }
    assert_eq!(asked.post(&path("stop"), "").await.0, 202);
    eventually("it stops", SOON, async || meant.reason() == Some(StopReason::Admin)).await;
    assert_eq!(asked.reason(), None);
    let me = format!("/admin/instances/{}/stop", asked.id());
    assert_eq!(asked.post(&me, "").await.0, 202);
    assert_eq!(asked.reason(), Some(StopReason::Admin));
    // Whoever asks for a stop gets one, however late.
    let wish = json!({ "command": "stop", "target": asked.id() });
    assert_eq!(asked.post("/admin/command", &wish.to_string()).await, (202, wish));
    let (status, said) = asked.post("/admin/drain", "").await;
    assert!(status == 409 && said["error"].as_str().unwrap().contains("stops already"), "{said}");
}

#[tokio::test]
async fn duties_are_taken_from_their_owners_one_by_one_or_all_at_once() {
    let registry = registry();
    let gateway = Node::start(&registry, Service::Gateway, Some(TOKEN)).await;
    let (a, b) = (
        Node::start(&registry, Service::Task, None).await,
        Node::start(&registry, Service::Task, None).await,
    );
    let owned = |node: &Node| node.cluster.owned().borrow().clone();
    let (of_a, of_b) = (owned(&a), owned(&b));
    let duty = of_a.first().unwrap().to_string();
    let released = gateway.post(&format!("/admin/duties/{duty}/release"), "").await;
    assert_eq!(released, (200, json!({ "released": duty, "owner": a.id() })));
    assert_eq!((owned(&a), owned(&b)), (of_b, of_a), "they changed places, as each is to have one");
    let page = gateway.get("/admin/duties").await;
    let row = page.as_array().unwrap().iter().find(|row| row["duty"] == duty.as_str()).unwrap();
    assert_eq!((&row["owner"], &row["owner_lives"]), (&json!(b.id()), &json!(true)));
    assert!(row["since_ms"].is_i64() && row["mine"] == false, "{row}");

    let all = |emergency: bool| {
        json!({ "command": "release", "target": "all", "emergency": emergency }).to_string()
    };
    let (status, said) = gateway.post("/admin/command", &all(false)).await;
    assert!(status == 400 && said["error"].as_str().unwrap().contains("emergency"), "{said}");
    let (status, said) = gateway.post("/admin/command", &all(true)).await;
    assert_eq!((status, said["released"].as_array().unwrap().len()), (200, 2), "{said}");
    let both: BTreeSet<Duty> = owned(&a).union(&owned(&b)).copied().collect();
    assert_eq!(both, [Duty::Sweep, Duty::Due(3)].into(), "and taken again at once");
    let (status, said) = gateway.post("/admin/duties/reap/release", "").await;
    assert!(status == 409 && said["error"].as_str().unwrap().contains("nobody owns reap"), "{said}");
}

#[tokio::test]
async fn the_root_names_every_page_with_its_method() {
    let registry = registry();
    let node = Node::start(&registry, Service::Task, Some(TOKEN)).await;
    let index = node.get("/").await;
    let mut named = BTreeSet::new();
    for page in index["pages"].as_array().unwrap() {
        let text = |name: &str| page[name].as_str().unwrap().to_owned();
        let (method, path) = (text("method"), text("path"));
        let mut filled = path.clone();
        for (name, value) in [("{id}", "nobody"), ("{command}", "drain"), ("{duty}", "due"), ("{part}", "9")]
        {
            filled = filled.replace(name, value);
        }
        let (status, said) = node.ask(&method, &filled, Some(TOKEN), "").await;
        let why = said["error"].as_str().unwrap_or_default();
        assert!(status != 405 && !why.starts_with("no page"), "{method} {filled}: {status} {said}");
        named.insert(format!("{method} {path}"));
    }
    for path in ["GET /admin/instances", "GET /admin/duties", "POST /admin/drain", "POST /admin/command"] {
        assert!(named.contains(path), "{path} in {named:?}");
    }
}

#[tokio::test]
async fn a_drained_instance_says_in_its_status_that_it_accepts_nothing() {
    let registry = registry();
    let node = Node::start(&registry, Service::Gateway, Some(TOKEN)).await;
    let said = async || {
        let status = node.get("/status").await;
        (status["accepting"].clone(), status["drained_by_operator"].clone())
    };
    assert_eq!(said().await, (json!(true), json!(false)));
    node.post("/admin/drain", "").await;
    assert_eq!(said().await, (json!(false), json!(true)));
    node.post("/admin/undrain", "").await;
    assert_eq!(said().await, (json!(true), json!(false)));
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let registry = registry();
    let node = Node::start(&registry, Service::Gateway, Some(TOKEN)).await;
    let unknown = json!({ "command": "dance", "target": node.id() }).to_string();
    for (path, body, expected) in [
        ("/admin/instances/task-a-1/stop", "", (404, "GET /admin/instances")),
        ("/admin/instances/task-a-1/dance", "", (404, "no command")),
        ("/admin/command", unknown.as_str(), (404, "no command")),
        ("/admin/duties/dishes/release", "", (404, "no duty")),
        ("/admin/duties/due/9/release", "", (404, "no duty")),
        ("/admin/command", "{}", (400, "INSTANCE or DUTY")),
        ("/admin/command", r#"{"command":"stop","target":"x","now":1}"#, (400, "unknown field")),
    ] {
        let (status, said) = node.post(path, body).await;
        assert_eq!(status, expected.0, "{path} {body}: {said}");
        assert!(said["error"].as_str().unwrap().contains(expected.1), "{path} {body}: {said}");
    }
    assert!(!node.is_drained() && node.reason().is_none());
}

#[tokio::test]
async fn who_is_there_is_on_the_page_and_in_the_metrics() {
    let registry = registry();
    let gateway = Node::start(&registry, Service::Gateway, Some(TOKEN)).await;
    let task = Node::start(&registry, Service::Task, None).await;
    gateway.cluster.set_state(InstanceState::Draining).await;
    let page = task.get("/admin/instances").await;
    assert_eq!(page["count"], 2);
    let row = page["instances"].as_array().unwrap().iter().find(|row| row["id"] == gateway.id()).unwrap();
    assert_eq!((&row["service"], &row["state"]), (&json!("gateway"), &json!("draining")));
    assert_eq!((&row["ttl_s"], &row["version"]), (&json!(10), &json!("1")));
    assert!(row["last_seen_ms"].as_i64().unwrap() >= row["started_ms"].as_i64().unwrap());
    let (mut tcp, mut metrics) = (TcpStream::connect(&task.at).await.unwrap(), String::new());
    tcp.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").await.unwrap();
    tcp.read_to_string(&mut metrics).await.unwrap();
    for line in [
        "sluice_task_instances{service=\"gateway\",state=\"draining\"} 1",
        "sluice_task_instances{service=\"task\",state=\"serving\"} 1",
        "sluice_task_duties_owned 2",
        "sluice_task_duties_taken_total{from=\"nobody\"} 2",
        "sluice_task_duties_taken_total{from=\"ended\"} 0",
        "sluice_task_leases_lost_total 0",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}
