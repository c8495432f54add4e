//! Everything in this very process, as a test of another crate would use it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod keys;
mod metrics;

use std::time::Duration;

use serde_json::json;
use sluice_client::raw::{ConnectError, Handshake, Socket};
use sluice_client::{Client, Event, Position};
use sluice_dev::{Dev, Error, Options, Refused};
use sluice_lifecycle::{Lifecycle, Report, StopReason};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

/// Runs `work` on a Sluice in `options`, then stops it.
async fn with(options: Options, work: impl AsyncFnOnce(&Dev)) -> Result<Report, Error> {
    let (lifecycle, engine) = Lifecycle::new(sluice_dev::plan());
    let started = async {
        let dev = Dev::start(options, &lifecycle).await;
        if let Ok(dev) = &dev {
            work(dev).await;
        }
        lifecycle.stop(StopReason::Manual("the work is done".into()));
        dev
    };
    let (report, dev) = tokio::join!(engine.run(), started);
    dev.map(|_| report)
}

/// Publishes `count` messages, through whichever gateway, and expects the seqs after `before`.
async fn publish(dev: &Dev, before: u64, count: u64) {
    let (client, _events) =
        Client::connect(sluice_client::Options::new(&dev.gateways()[0].ws)).await.unwrap();
    for n in before..before + count {
        assert_eq!(client.publish("news", &json!(n)).await.unwrap().seq, n + 1);
    }
    client.close().await;
}

async fn listen(dev: &Dev, count: u64) {
    let (client, mut events) =
        Client::connect(sluice_client::Options::new(&dev.gateways()[1].ws)).await.unwrap();
    client.subscribe("news", Position::After(0)).await.unwrap();
    let mut seqs = Vec::new();
    while seqs.len() < usize::try_from(count).unwrap() {
        let event = timeout(SOON, events.next()).await.expect("in time").expect("the client lives");
        if let Event::Message(message) = event {
            seqs.push(message.seq);
        }
    }
    assert_eq!(seqs, (1..=count).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_service_can_be_restarted_and_all_stop_without_a_rest() {
    let dir = tempfile::tempdir().unwrap();
    let report = with(Options::in_memory(dir.path()), async |dev| {
        publish(dev, 0, 3).await;
        for name in ["logic", "task", "gateway-1", "gateway-2"] {
            dev.restart(name).await.unwrap();
        }
        publish(dev, 3, 3).await;
        listen(dev, 6).await; // memory outlives a logic
        let refused = dev.restart("gateway-3").await.unwrap_err();
        assert_eq!(refused, Refused::Unknown("gateway-3".into(), "gateway-1, gateway-2, logic, task".into()));
    });
    let report = report.await.unwrap();
    assert!(report.is_clean() && report.exit_code() == 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_found_as_it_was_left_and_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateways = Vec::new();
    let first = with(Options::in_folder(dir.path()), async |dev| {
        publish(dev, 0, 2).await;
        gateways = dev.gateways();
        let second = with(Options::in_folder(dir.path()), async |_| {}).await;
        assert!(matches!(second, Err(Error::InUse { .. })), "{second:?}");
    });
    first.await.unwrap();
    let again = with(Options::in_folder(dir.path()), async |dev| {
        assert_eq!(dev.gateways(), gateways);
        listen(dev, 2).await;
    });
    again.await.unwrap();
}

/// A front end has a server of its own while it is written, and so another origin than ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_a_named_origin_is_let_in_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let origins = vec!["http://localhost:5173".to_owned()];
    let done = with(Options { origins, ..Options::in_memory(dir.path()) }, async |dev| {
        let knock = async |origin: &str| {
            Socket::connect(&Handshake::new(&dev.gateways()[0].ws).header("Origin", origin)).await
        };
        knock("http://localhost:5173").await.unwrap();
        knock(dev.page()).await.unwrap();
        let foreign = knock("http://localhost:5174").await;
        assert!(matches!(foreign, Err(ConnectError::Status { status: 403, .. })), "{foreign:?}");
    });
    done.await.unwrap();
}
