//! Everything stops: in compose's order, taken down, and signalled at once; each time it comes back on the same volume.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use futures::future::join_all;
use serde_json::Value;

use crate::engine::{Project, SERVICES, docker};
use crate::load::{did, faults, records, under_load, whole};

/// Ways to stop everything.
const WAYS: [&[&str]; 3] = [&["stop"], &["down"], &["kill", "-s", "TERM"]];
/// Roles of those who read all the time and leave only when they are told to.
const STAYING: [&str; 3] = ["beacon", "sender", "observer"];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker Engine: make test-containers"]
async fn everything_stops_with_0_tells_every_client_and_comes_back() {
    let project = Project::up("sluice-test-all", "compose.yaml").await;
    project.healthy(&SERVICES).await;
    let dir = under_load(async |during| {
        for way in WAYS {
            whole().await;
            let ids = join_all(SERVICES.map(|service| project.id(service))).await;
            let began = Instant::now();
            // asked before the end: a container that was taken down cannot be asked any more
            let codes = join_all(ids.iter().map(|id| async move { docker(&["wait", id]).await }));
            let (codes, _) = tokio::join!(codes, project.compose(way));
            assert_eq!(codes, ["0"; 3], "{way:?} of {SERVICES:?}");
            project.compose(&["up", "--detach", "--no-build"]).await;
            // a stop that was asked for, of the gateway as well: the judge looks whether its clients were told
            did(during, &format!("term all by {}:", way.join(" ")), "gateway", began, None).await;
        }
    })
    .await;
    let records_dir = dir.path().join("records");
    for fault in faults(&records_dir) {
        told(&records_dir, &fault);
    }
}

/// Everybody who was connected, reads, and does not leave of its own will was told, and closed with 1012.
fn told(dir: &Path, fault: &Value) {
    let began_us = fault["began_us"].as_u64().unwrap();
    let mut clients = BTreeMap::<u64, Client>::new();
    for line in records(dir) {
        let (at_us, client, what) = (line[0].as_u64().unwrap(), line[1].as_u64().unwrap(), &line[2]);
        clients.entry(client).or_default().note(at_us < began_us, what);
    }
    let there: Vec<&Client> =
        clients.values().filter(|client| client.stays && client.conn.is_some()).collect();
    let of = |wanted: fn(&Client) -> bool| there.iter().filter(|client| wanted(client)).count();
    let (told, closed) = (of(|client| client.told), of(|client| client.code == Some(1012)));
    println!(
        "{}: {} were connected, {told} were told, {closed} closed with 1012",
        fault["kind"],
        there.len()
    );
    assert!(there.len() * 2 > clients.len(), "{} of {} were connected", there.len(), clients.len());
    assert_eq!((told, closed), (there.len(), there.len()));
}

/// How one client was left.
#[derive(Default)]
struct Client {
    stays: bool,
    /// The connection it had when it began.
    conn: Option<u64>,
    told: bool,
    /// How that was closed.
    code: Option<u64>,
}

impl Client {
    fn note(&mut self, before: bool, what: &Value) {
        if let Some(role) = what["client"]["role"].as_str() {
            self.stays = STAYING.contains(&role);
        } else if before && what.get("open").is_some() {
            self.conn = what["open"]["conn"].as_u64();
        } else if before && self.conn.is_some() && what["closed"]["conn"].as_u64() == self.conn {
            self.conn = None;
        } else if !before && self.conn.is_some() {
            let of = |name: &str| what[name]["conn"].as_u64() == self.conn;
            self.told |= of("drain") || of("bye");
            if of("closed") {
                self.code = what["closed"]["code"].as_u64();
            }
        }
    }
}
