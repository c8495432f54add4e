//! Two versions beside each other: every process of one is replaced by one of the other under load, and back.
//! docs/upgrading.md says how it is run.

use std::path::PathBuf;

use sluice_launcher::{Options, Service};

use super::{Real, SERVICES, term};
use crate::deploys::under_load;
use crate::kit::Ground;
use crate::record::{Seen, Sent};

const PREVIOUS: &str = "SLUICE_PREVIOUS";

/// The program that runs at a place.
fn program(cluster: &Real, service: Service, index: usize) -> PathBuf {
    let pid = cluster.node(service, index).unwrap().pid();
    std::fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

/// Replaces each process by one of the other version: one after the other, by SIGTERM.
async fn roll_over(cluster: &Real) {
    for service in SERVICES {
        for index in 0..2 {
            let before = program(cluster, service, index);
            term(&cluster.node(service, index).unwrap()).await;
            cluster.start_at(service, index).await.unwrap();
            assert_ne!(program(cluster, service, index), before, "another version runs");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the programs of another version: docs/upgrading.md"]
async fn a_previous_version_rolls_to_this_one_and_back() {
    let previous = std::env::var_os(PREVIOUS).map(PathBuf::from);
    let previous = previous.unwrap_or_else(|| panic!("{PREVIOUS} names the folder of the other version"));
    let previous = previous.canonicalize().unwrap();
    let options =
        Options { gateways: 2, logics: 2, tasks: 2, previous: Some(previous), ..Options::default() };
    let cluster = Real::with(options).await;
    let (observers, sent) = under_load(&cluster, 15_000, async |cluster| {
        roll_over(cluster).await;
        roll_over(cluster).await;
    })
    .await;
    sent.iter().for_each(Sent::all_ok);
    let silences: Vec<_> = observers.iter().map(|observer| observer.look(Seen::silence)).collect();
    let stored = sent.iter().map(Sent::ok).sum::<usize>();
    println!("there and back: {stored} publishes, nothing lost, doubled or reordered; silences {silences:?}");
    cluster.stop().await;
}
