//! Clients that were not written here: `websockets` (Python) and `websocat`. The transcript in WIRE.md is
//! executed line by line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::kit::cluster;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn run(script: &str, arguments: &[&str]) -> Output {
    let script = root().join("tools/sluice/tests/promises").join(script);
    let output = Command::new("python3")
        .arg(script)
        .args(arguments)
        .output()
        .expect("python3 is installed: make deps");
    print!("{}", String::from_utf8_lossy(&output.stdout));
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn the_transcript_of_wire_md_is_true() {
    let cluster = cluster(2, 1, 1).await;
    let wire = root().join("proto/WIRE.md");
    let token = cluster.token("alice", &["*"], &["*"]).unwrap();
    let (one, two) = (cluster.gateway(0), cluster.gateway(1));
    let arguments = [wire.to_str().unwrap(), one.ws(), two.ws(), &token];
    let output = tokio::task::block_in_place(|| run("transcript.py", &arguments));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn websocat_publishes_and_subscribes() {
    let cluster = cluster(1, 1, 1).await;
    let token = cluster.token("alice", &["*"], &["*"]).unwrap();
    let gateway = cluster.gateway(0);
    let arguments = [gateway.ws(), &token];
    let output = tokio::task::block_in_place(|| run("websocat.py", &arguments));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    cluster.stop().await;
}
