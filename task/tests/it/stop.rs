//! Stops: quick when idle, inside the budget when nothing answers, patient with draining gateways when last.

use std::net::TcpListener;
use std::time::Duration;

use nix::sys::signal::Signal;
use sluice_lifecycle::{Outcome, Stage};
use sluice_testing::{eventually, free_port};
use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::rig::{Process, Rig, SOON, Task, config, get};

#[tokio::test]
async fn an_idle_task_stops_at_once() {
    let rig = Rig::start().await;
    let gateway = Gateway::start("gateway-a").await;
    let task = rig.task(&[&gateway]).await;
    let report = task.stop().await;
    assert!(report.is_clean(), "{report:?}");
    assert!(report.elapsed < Duration::from_millis(500), "{report:?}");
}

#[tokio::test]
async fn with_nothing_up_it_runs_says_what_is_missing_and_stops_in_its_budget() {
    // Swallowed by sockets that nobody accepts from, and refused.
    let holes: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let hole = |n: usize| holes[n].local_addr().unwrap().port();
    let black_holed = config(hole(0), hole(1), hole(2), &[]);
    let refused = config(free_port(), free_port(), free_port(), &[]);
    for config in [black_holed, refused] {
        let task = Task::start(config).await;
        let (ready, reason) = task.readyz().await;
        assert!(!ready && reason.contains("NATS"), "{reason}");
        assert_eq!(task.lifecycle.stage(), Stage::Ready);
        let report = task.stop().await;
        assert_eq!(report.exit_code(), 0);
        assert!(report.elapsed < Duration::from_secs(5), "{report:?}");
        let unclean = report.stages.iter().filter(|stage| stage.outcome != Outcome::Done).count();
        assert_eq!(unclean, 0, "{report:?}");
    }
}

#[tokio::test]
async fn the_last_task_pushes_until_draining_gateways_are_gone() {
    let mut rig = Rig::start().await;
    let gateway = Gateway::start("gateway-a").await;
    rig.interest(&gateway, &["news"]).await;
    let task = rig.task(&[&gateway]).await;
    gateway.says("gateway-a", true);
    rig.publish(&["news"]).await;
    eventually("it is pushed", SOON, async || gateway.runs().len() == 1).await;
    let lifecycle = task.lifecycle.clone();
    let others = async {
        eventually("it stops", SOON, async || lifecycle.stage() == Stage::NotReady).await;
        rig.publish(&["news"]).await;
        eventually("it is still pushed", SOON, async || gateway.runs().len() == 2).await;
        assert_eq!(lifecycle.stage(), Stage::NotReady);
        gateway.cut();
        Instant::now()
    };
    let (report, left) = tokio::join!(task.stop(), others);
    // The end of its stream is the end of the gateway; the stay alone would be longer.
    assert!(left.elapsed() < Duration::from_secs(2), "{report:?}");
    assert_eq!(report.exit_code(), 0);
}

#[tokio::test]
async fn a_notice_in_hand_is_brought_to_its_end() {
    let mut rig = Rig::start().await;
    let gateway = Gateway::start("gateway-a").await;
    rig.interest(&gateway, &["news"]).await;
    let task = rig.task(&[&gateway]).await;
    gateway.wedge(true);
    rig.publish(&["news"]).await;
    eventually("it is pushed", SOON, async || gateway.runs().len() == 1).await;
    let lifecycle = task.lifecycle.clone();
    let unwedge = async {
        eventually("it waits for the ack", SOON, async || lifecycle.stage() == Stage::Drain).await;
        gateway.wedge(false);
    };
    let (report, ()) = tokio::join!(task.stop(), unwedge);
    assert!(report.is_clean(), "{report:?}");
    rig.settled().await;
    assert_eq!(gateway.runs().len(), 1);
}

#[tokio::test]
async fn a_process_obeys_signals_also_with_its_servers_black_holed() {
    let holes: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let hole = |n: usize| holes[n].local_addr().unwrap().port();
    let config = config(hole(0), hole(1), hole(2), &[]);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut process = Process::start(&config);
        let said = process.announcement();
        assert_eq!(said["service"], "task");
        let admin = said["admin"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        let alive = async || get(&admin, "/livez").await.0.starts_with("HTTP/1.1 200");
        assert!(alive().await);
        let begun = Instant::now();
        process.signal(signal);
        assert_eq!(process.exited().await.code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}
