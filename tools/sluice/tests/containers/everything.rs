//! Everything stops: in compose's order, taken down, and signalled at once; then it comes back on the same volume.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::engine::{Project, SERVICES, docker};
use crate::load::{clients, did, records, under_load};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker Engine: make test-containers"]
async fn everything_stops_with_0_tells_every_client_and_comes_back() {
    for way in [["stop"].as_slice(), &["down"], &["kill", "-s", "TERM"]] {
        let project = Project::up("sluice-test-all", "compose.yaml").await;
        project.healthy(&SERVICES).await;
        let dir = under_load(async |during| {
            let began = Instant::now();
            let mut ids = Vec::new();
            for service in SERVICES {
                ids.push(project.id(service).await);
            }
            let wait: Vec<&str> = ["wait"].into_iter().chain(ids.iter().map(String::as_str)).collect();
            let (codes, _) = tokio::join!(docker(&wait), project.compose(way));
            assert_eq!(codes, "0\n0\n0", "{way:?} of {SERVICES:?}");
            project.compose(&["up", "--detach", "--no-build"]).await;
            project.healthy(&SERVICES).await;
            did(during, &format!("term everything by {}", way.join(" ")), "gateway", began, None);
        })
        .await;
        told(&dir.path().join("records"));
    }
}

/// Who was connected was told, and closed with 1012. Some are away of their own will at any moment, some read slowly.
fn told(dir: &std::path::Path) {
    let (mut told, mut closed) = (BTreeSet::new(), BTreeSet::new());
    for line in records(dir) {
        let (client, what) = (line[1].as_u64().unwrap(), &line[2]);
        if what.get("drain").or(what.get("bye")).is_some() {
            told.insert(client);
        }
        if what["closed"]["code"] == 1012 {
            closed.insert(client);
        }
    }
    println!("{} of {} clients were told, {} closed with 1012", told.len(), clients(), closed.len());
    assert!(told.len() * 100 >= clients() as usize * 90, "told: {told:?}");
    assert!(closed.len() * 100 >= clients() as usize * 90, "closed: {closed:?}");
}
