//! The admin pages over a real socket, and that no connection to them delays a stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_lifecycle::{Lifecycle, Plan, Stage, StopReason, Work};
use sluice_service::admin::AdminPages;
use sluice_service::listen;
use sluice_service::metrics::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// One request on a connection of its own: status line and headers, body.
async fn get(address: &str, method: &str, path: &str) -> (String, String) {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.into())
}

fn parsed(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

struct Rig {
    address: String,
    lifecycle: Lifecycle,
    engine: JoinSet<sluice_lifecycle::Report>,
}

async fn rig() -> Rig {
    let plan = Plan::new(Duration::from_secs(3))
        .stage(Stage::Drain, Duration::from_secs(1))
        .stage(Stage::Gone, Duration::from_secs(1));
    let (lifecycle, engine) = Lifecycle::new(plan);
    let metrics = Registry::new("test");
    metrics.counter("messages", "Messages").inc();
    let admin = AdminPages {
        instance: Arc::new(|| "test-1".into()),
        status: Arc::new(
            || json!({ "clients": 7, "stage": "not to be overwritten", "completed": "nor this" }),
        ),
        missed: Arc::new(|| Err("cut 7 connections".into())),
        ..AdminPages::new("test", lifecycle.clone(), metrics)
    };
    lifecycle.report_work(|| Work { in_flight: 2, accepted: 8, completed: 4, rejected: 1, cancelled: 1 });
    let bound = listen::bind("127.0.0.1:0").await.unwrap();
    let address = bound.address().to_string();
    admin.serve(bound, &lifecycle.scope(Stage::Gone));
    let mut running = JoinSet::new();
    running.spawn(engine.run());
    Rig { address, lifecycle, engine: running }
}

#[tokio::test]
async fn pages_answer_and_readiness_follows_the_stage() {
    let mut rig = rig().await;
    let at = rig.address.as_str();
    let (head, body) = get(at, "GET", "/readyz").await;
    assert!(head.starts_with("http/1.1 503"), "{head}");
    assert_eq!(
        parsed(&body),
        json!({ "stage": "starting", "reason": "the service is starting", "degraded": [] })
    );
    rig.lifecycle.ready();
    let (head, _) = get(at, "GET", "/readyz").await;
    assert!(head.starts_with("http/1.1 200") && head.contains("cache-control: no-store"), "{head}");
    assert!(get(at, "HEAD", "/livez").await.0.starts_with("http/1.1 200"));
    assert!(get(at, "POST", "/livez").await.0.starts_with("http/1.1 405"));
    let (head, body) = get(at, "GET", "/nothing").await;
    assert!(head.starts_with("http/1.1 404") && body.contains("/status"), "{body}");
    let metrics = get(at, "GET", "/metrics").await.1;
    for line in [
        "sluice_test_messages_total 1",
        "sluice_test_stage{stage=\"ready\"} 1",
        "sluice_test_stage{stage=\"drain\"} 0",
        "sluice_test_build_info{version=",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }

    let status = parsed(&get(at, "GET", "/status").await.1);
    assert_eq!((&status["stage"], &status["state"]), (&json!("ready"), &json!("running")));
    assert_eq!((&status["service"], &status["instance"]), (&json!("test"), &json!("test-1")));
    assert_eq!((&status["clients"], &status["safe_to_kill"]), (&json!(7), &json!(false)));
    assert_eq!(status["a_kill_would"], "cut 7 connections");
    assert_eq!((&status["remaining_ms"], &status["eta_ms"]), (&Value::Null, &Value::Null));
    let work = json!({
        "accepting": true, "is_processing": true, "in_flight": 2, "processed_count": 5, "accepted": 8,
        "completed": 4, "rejected": 1, "cancelled": 1,
    });
    for (name, value) in work.as_object().unwrap() {
        assert_eq!(&status[name], value, "{name}");
    }
    assert!(status["uptime_ms"].is_u64());

    let held = rig.lifecycle.scope(Stage::Drain).track("transfer");
    rig.lifecycle.note("unknown", 2);
    rig.lifecycle.stop(StopReason::Manual("test".into()));
    rig.lifecycle.progress().wait_for(|now| now.stage == Stage::Drain).await.unwrap();
    let status = parsed(&get(at, "GET", "/status").await.1);
    assert_eq!((&status["stage"], &status["state"]), (&json!("drain"), &json!("draining")));
    assert_eq!(status["blockers"], json!({ "transfer": 1 }));
    assert_eq!((&status["counts"]["unknown"], &status["counts"]["completed"]), (&json!(2), &json!(4)));
    assert_eq!(status["accepting"], false);
    let ms = |name: &str| status[name].as_u64().unwrap();
    assert!(ms("remaining_ms") > 1000 && ms("eta_ms") <= 2000, "{status}");
    let (head, body) = get(at, "GET", "/readyz").await;
    assert!(head.starts_with("http/1.1 503") && body.contains("draining"), "{head} {body}");
    drop(held);
    assert!(rig.engine.join_next().await.unwrap().unwrap().is_clean());
    assert!(TcpStream::connect(at).await.is_err());
}

/// For programs JSON, for a browser a page with links that lead somewhere.
#[tokio::test]
async fn the_root_says_who_answers_and_leads_to_every_page() {
    let rig = rig().await;
    let at = rig.address.as_str();
    let (head, body) = get(at, "GET", "/").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let index = parsed(&body);
    assert_eq!((&index["service"], &index["instance"]), (&json!("test"), &json!("test-1")));
    assert_eq!((&index["state"], &index["stage"]), (&json!("starting"), &json!("starting")));
    assert!(index["message"].as_str().unwrap().contains("sluice test"), "{index}");
    let mut tcp = TcpStream::connect(at).await.unwrap();
    let request =
        "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html,*/*;q=0.8\r\nConnection: close\r\n\r\n";
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut html = String::new();
    tcp.read_to_string(&mut html).await.unwrap();
    assert!(html.contains("text/html") && html.contains("<h1>test-1</h1>"), "{html}");
    rig.lifecycle.ready();
    for page in index["pages"].as_array().unwrap() {
        let path = page["path"].as_str().unwrap();
        assert!(html.contains(&format!("href=\"{path}\"")), "{path}: {html}");
        assert!(get(at, "GET", path).await.0.starts_with("http/1.1 200"), "{path}");
    }
    assert!(get(at, "POST", "/").await.0.starts_with("http/1.1 405"));
}

#[tokio::test]
async fn silent_and_half_open_connections_do_not_delay_a_stop() {
    let mut rig = rig().await;
    let mut open = Vec::new();
    for said in ["", "GET /livez HTTP/1.1\r\nHo", "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut tcp = TcpStream::connect(&rig.address).await.unwrap();
        tcp.write_all(said.as_bytes()).await.unwrap();
        open.push(tcp);
    }
    get(&rig.address, "GET", "/livez").await;
    let start = Instant::now();
    rig.lifecycle.stop(StopReason::Admin);
    let report = rig.engine.join_next().await.unwrap().unwrap();
    assert!(report.is_clean() && start.elapsed() < Duration::from_secs(1), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_cut_off() {
    let rig = rig().await;
    let start = tokio::time::Instant::now();
    let mut tcp = TcpStream::connect(&rig.address).await.unwrap();
    tcp.write_all(b"GET /livez HTTP/1.1\r\nHo").await.unwrap();
    let mut rest = Vec::new();
    let _ = tcp.read_to_end(&mut rest).await;
    assert!(start.elapsed() >= Duration::from_secs(5) && start.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let rig = rig().await;
    let error = listen::bind(&rig.address).await.unwrap_err();
    assert!(error.to_string().contains(&rig.address), "{error}");
    assert!(listen::bind("nonsense").await.unwrap_err().to_string().contains("nonsense"));
}

#[tokio::test]
async fn on_loopback_a_foreign_name_reads_no_status_and_no_metrics() {
    let rig = rig().await;
    let status = async |path: &str, host: &str| {
        let mut tcp = TcpStream::connect(&rig.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        answer[9..12].to_owned()
    };
    for path in ["/status", "/metrics"] {
        assert_eq!(status(path, "rebound.example").await, "403", "{path}");
        assert_eq!(status(path, &rig.address).await, "200", "{path}");
    }
    assert_eq!(status("/livez", "rebound.example").await, "200", "a health check may call it as it likes");
}
