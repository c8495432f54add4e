//! Stops of single processes while one of them, or a server, stands still or is gone: there are none in one process.

mod callers;
mod crowd;
mod cycles;
mod matrix;
mod totals;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use sluice_launcher::{Service, service_binary};

use super::{Real, SERVICES, STORES, term};
use crate::deploys::under_load;
use crate::kit::{Ground, SOON, until};
use crate::record::Sent;
use crate::resume::fill;

/// Frozen and thawed: a logic beyond the deadline of a call, a task beyond `ack_wait`, a gateway beyond its lease.
#[tokio::test(flavor = "multi_thread")]
async fn freezing_each_service_breaks_nothing() {
    let cluster = Real::start(2, 2, 2).await;
    let (_, sent) = under_load(&cluster, 6_000, async |cluster| {
        for (service, seconds) in [(Service::Logic, 3), (Service::Task, 3), (Service::Gateway, 6)] {
            let node = cluster.node(service, 0).unwrap();
            assert!(node.freeze());
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            assert!(node.thaw());
        }
    })
    .await;
    sent.iter().for_each(Sent::all_ok);
    cluster.stop().await;
}

/// What an idle process takes, a fifth of a second, and what a machine with other work may add: none waits out a stage.
const AT_ONCE: Duration = Duration::from_millis(2_500);
/// What the stages of a task may take together (docs/operations.md).
const TASK: Duration = Duration::from_secs(5);

/// Each on its own; how long all of `sluice dev` takes is tested with it.
#[tokio::test(flavor = "multi_thread")]
async fn idle_processes_exit_at_once() {
    let cluster = Real::start(1, 1, 1).await;
    for service in [Service::Task, Service::Gateway, Service::Logic] {
        let exit = term(&cluster.node(service, 0).unwrap()).await;
        let elapsed = exit.elapsed.unwrap();
        assert!(elapsed < AT_ONCE, "an idle {service} took {elapsed:?}");
    }
    cluster.stop().await;
}

/// A hundred thousand messages are due when the only task is told to stop: it takes no longer than the call under way,
/// and the next task publishes the rest, each once.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_with_everything_due_stops_in_time() {
    let cluster = Real::start(1, 1, 1).await;
    let task = cluster.node(Service::Task, 0).unwrap();
    assert_eq!(cluster.sql(DUE).await, 100_000);
    let published = async || cluster.sql("select from messages where room like 'due-%'").await;
    until("it publishes", Duration::from_secs(20), async || published().await > 0).await;
    let exit = term(&task).await;
    let (elapsed, then) = (exit.elapsed.unwrap(), published().await);
    println!("a task with {} messages due took {elapsed:?}", 100_000 - then);
    assert!(then < 100_000, "it was to be stopped in the middle");
    assert!(elapsed < TASK, "{elapsed:?}");
    // What a dropped call has begun may still end.
    until("no call is under way", SOON, async || cluster.sql(FIRING).await == 0).await;
    let rest = published().await;
    fill(&cluster, "later", 1, 100).await;
    assert_eq!(published().await, rest, "nobody publishes what is due while no task is there");
    cluster.start_at(Service::Task, 0).await.unwrap();
    until("the rest is published", Duration::from_secs(60), async || {
        cluster.sql("select from scheduled limit 1").await == 0
    })
    .await;
    assert_eq!(published().await, 100_000, "each once");
    cluster.stop().await;
}

/// Statements of logic that publish what is due.
const FIRING: &str = "select from pg_stat_activity where application_name = 'sluice' and state <> 'idle' \
     and query like '%fire_due_v2(%'";

/// As publishes keep them: 100 rooms, each in one part.
const DUE: &str = "insert into scheduled (due, part, room, sender, key, hash, data) \
     select now(), n % 16, 'due-' || n % 96, 'ann', 'k' || n, sha256('1'), '1' from generate_series(1, 100000) n";

/// SIGTERM while a store hangs: in budget.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_needs_no_store() {
    for store in STORES {
        let cluster = Real::start(1, 1, 1).await;
        assert!(cluster.store(store).freeze());
        for service in SERVICES {
            let exit = term(&cluster.node(service, 0).unwrap()).await;
            println!("{service} with a frozen {store}: {:?}", exit.elapsed);
        }
        assert!(cluster.store(store).thaw());
        cluster.stop().await;
    }
}

/// Starts a service whose stores refuse every connection, and stops it as soon as its ports are bound.
fn stopped_while_starting(service: Service) -> (Option<i32>, Duration) {
    let binary = service_binary(service, None).unwrap();
    let mut child = Command::new(binary)
        .envs(["ETCD__ENDPOINTS=[\"http://127.0.0.1:1\"]", "NATS__URL=nats://127.0.0.1:1"].map(setting))
        .envs(
            ["REDIS__URL=redis://127.0.0.1:1", "POSTGRES__URL=postgres://sluice@127.0.0.1:1/x"].map(setting),
        )
        .envs(["LISTEN=127.0.0.1:0", "GRPC__LISTEN=127.0.0.1:0", "ADMIN__LISTEN=127.0.0.1:0"].map(setting))
        .envs(["TOKEN_SECRET=0123456789abcdef"].map(setting))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("admin"), "{service} says where it listens: {line:?}");
    let start = std::time::Instant::now();
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    (child.wait().unwrap().code(), start.elapsed())
}

fn setting(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap();
    (format!("SLUICE_{key}"), value.to_owned())
}

/// SIGTERM while all stores are gone, and during a start-up without any of them: in budget, saying what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_and_a_start_up_without_any_store_end_in_budget() {
    let cluster = Real::start(1, 1, 1).await;
    for store in STORES {
        cluster.stop_store(store).await.unwrap();
    }
    for service in SERVICES {
        let exit = term(&cluster.node(service, 0).unwrap()).await;
        println!("{service} without stores: {:?}", exit.elapsed);
    }
    cluster.stop().await;
    for service in SERVICES {
        let (code, took) = tokio::task::block_in_place(|| stopped_while_starting(service));
        assert_eq!(code, Some(0), "{service}");
        assert!(took < Duration::from_secs(8), "{service} took {took:?}");
    }
}
