//! A Prometheus with our configuration and our alerts scrapes a cluster while all of it is rolled: what operators see of a
//! roll, asked for by the API that their dashboards use.

mod dashboards;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use sluice_launcher::{Options, probe};
use sluice_testing::free_port;
use tempfile::TempDir;

use super::{Real, SERVICES, term};
use crate::deploys::under_load;
use crate::kit::{Ground, SOON, socket_of, until};
use crate::record::Sent;

/// How many of each service.
const EACH: usize = 2;
/// From the last answer of a process to the first of its successor: a stop of 8 s, a start, a busy machine.
const AWAY_MAX_S: usize = 20;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

/// A running Prometheus; killed when dropped.
struct Prometheus {
    child: Child,
    url: String,
    folder: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Prometheus {
    fn is_installed() -> bool {
        let mut version = Command::new("prometheus");
        version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        version.status().is_ok_and(|status| status.success())
    }

    /// With deploy/prometheus, asking every second those who are there.
    async fn start(cluster: &Real) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str| std::fs::read_to_string(deploy().join("prometheus").join(name)).unwrap();
        let mut config = read("prometheus.yaml");
        for interval in ["scrape_interval: 5s", "evaluation_interval: 5s"] {
            assert!(config.contains(interval), "{config}");
            config = config.replace(interval, &interval.replace("5s", "1s"));
        }
        for service in SERVICES {
            let job = format!("job_name: sluice-{service}\n");
            let (before, after) = config.split_once(&job).expect("a job for each service");
            let line = after.lines().find(|line| line.contains("targets:")).unwrap();
            let there = cluster.nodes(service);
            let there: Vec<&str> = there.iter().map(|node| host(node.admin())).collect();
            let after = after.replacen(line, &format!("      - targets: {there:?}"), 1);
            config = format!("{before}{job}{after}");
        }
        std::fs::write(folder.path().join("prometheus.yaml"), config).unwrap();
        std::fs::write(folder.path().join("alerts.yaml"), read("alerts.yaml")).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", folder.path().join("prometheus.yaml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let prometheus = Self { child, url: format!("http://{address}"), folder };
        until("Prometheus is ready", SOON, async || {
            let ready = probe::get(&format!("{}/-/ready", prometheus.url), SOON).await;
            ready.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        prometheus
    }

    /// `data` of an answer of its API.
    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let encoded =
            |(name, value): &(&str, &str)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
        let query: Vec<String> = parameters.iter().map(encoded).collect();
        let url = format!("{}/api/v1/{path}?{}", self.url, query.join("&"));
        let answer = probe::get(&url, SOON).await.unwrap();
        let mut said: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(said["status"], "success", "{parameters:?}: {said}\n{}", self.log());
        said["data"].take()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The series that an expression gives now.
    async fn series(&self, expression: &str) -> Vec<Value> {
        let data = self.ask("query", &[("query", expression)]).await;
        data["result"].as_array().unwrap().clone()
    }

    /// What an expression of one number is now; 0 where there is no series.
    async fn number(&self, expression: &str) -> f64 {
        let series = self.series(expression).await;
        assert!(series.len() <= 1, "{expression}: {series:?}");
        series.first().map_or(0.0, |one| one["value"][1].as_str().unwrap().parse().unwrap())
    }

    /// Each series of an expression, second by second since `since`.
    async fn since(&self, since: u64, expression: &str) -> Vec<Value> {
        let (since, now) = (since.to_string(), now_s().to_string());
        let span = [("query", expression), ("start", since.as_str()), ("end", now.as_str()), ("step", "1")];
        let data = self.ask("query_range", &span).await;
        data["result"].as_array().unwrap().clone()
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn host(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// Two of each, on ports that their successors have too: a scrape is configured by addresses.
async fn cluster() -> Real {
    let mut options = Options { gateways: EACH, logics: EACH, tasks: EACH, ..Options::default() };
    for service in SERVICES {
        for n in 1..=EACH {
            options = options.set(&format!("{service}-{n}.admin.listen=127.0.0.1:{}", free_port())).unwrap();
        }
    }
    Real::with(options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_of_all_services_is_seen_and_alarms_nobody() {
    if !Prometheus::is_installed() {
        eprintln!("SKIPPED: Prometheus is not there: no scrape was tried; make deps installs it");
        return;
    }
    let cluster = cluster().await;
    let prometheus = Prometheus::start(&cluster).await;
    let all = (SERVICES.len() * EACH) as f64;
    until("all are scraped", SOON, async || prometheus.number("sum(up)").await == all).await;
    let begun = now_s();
    // Answers neither `drain` nor its close frame: while that is waited for, the drain is scraped.
    let silent = socket_of(&cluster, "silent", 0).await;
    let (_, sent) = under_load(&cluster, 5_000, async |cluster| {
        for service in SERVICES {
            for index in 1..EACH {
                cluster.roll(service, index).await;
            }
            // A quick roll fits between two scrapes. The first of each service stays away until one has found it so.
            term(&cluster.node(service, 0).unwrap()).await;
            until("one is away", SOON, async || prometheus.number("sum(up)").await == all - 1.0).await;
            cluster.start_at(service, 0).await.unwrap();
        }
    })
    .await;
    sent.iter().for_each(Sent::all_ok);
    drop(silent);
    until("all are scraped again", SOON, async || prometheus.number("sum(up)").await == all).await;

    let most = async |of: &str| prometheus.number(&format!("sum(max_over_time({of}[2m]))")).await;
    // Two observers and a sender on one gateway, and the silent one; then all of them on the other.
    assert!(most("sluice_gateway_drain_connections").await >= 4.0);
    assert!(most(r#"sluice_gateway_departures_total{how="moved"}"#).await >= 3.0);
    assert!(most(r#"sluice_gateway_resumes_total{recovered="true"}"#).await >= 4.0);
    assert_eq!(most(r#"sluice_gateway_resumes_total{recovered="false"}"#).await, 0.0);
    assert!(most(r#"sluice_gateway_stage{stage="drain"}"#).await >= 1.0, "one was seen at it");
    // The last task to go has given its duties to the one that came before.
    let taken = r#"sluice_task_duties_taken_total{from="given_back"}"#;
    until("duties have changed hands", SOON, async || most(taken).await >= 1.0).await;
    for histogram in ["gateway_publish", "gateway_delivery", "logic_group", "task_notice", "task_push"] {
        let counted = most(&format!("sluice_{histogram}_seconds_count")).await;
        assert!(counted > 10.0, "{histogram}: {counted}");
    }

    let up = prometheus.since(begun, "up").await;
    assert_eq!(up.len(), SERVICES.len() * EACH, "{up:?}");
    for target in &up {
        let values = target["values"].as_array().unwrap().iter();
        let seen: String = values.map(|at| at[1].as_str().unwrap()).collect();
        let away = seen.split('1').map(str::len).max().unwrap();
        assert!(away <= AWAY_MAX_S, "{}: {seen}", target["metric"]);
    }
    let fired = prometheus.since(begun, r#"ALERTS{alertstate="firing"}"#).await;
    assert!(fired.is_empty(), "{fired:?}");
    alerts_are_judged(&prometheus).await;
    dashboards::are_answered(&prometheus, begun).await;
    cluster.stop().await;
}

/// Every alert was evaluated against what was scraped, without an error.
async fn alerts_are_judged(prometheus: &Prometheus) {
    let rules = prometheus.ask("rules", &[]).await;
    let groups = rules["groups"].as_array().unwrap();
    let rules: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(rules.len() > 30, "{rules:?}");
    for rule in rules {
        assert_eq!((&rule["health"], rule.get("lastError")), (&"ok".into(), None), "{rule}");
    }
}
