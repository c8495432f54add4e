//! Clients that were not written here: `websockets` (Python) and `websocat`. The transcript in WIRE.md is
//! executed line by line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::kit::Ground;

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

pub async fn the_transcript_of_wire_md_is_true<G: Ground>() {
    let ground = G::start(2, 1, 1).await;
    let wire = root().join("proto/WIRE.md");
    let (one, two, token) = (ground.ws(0), ground.ws(1), ground.token("alice"));
    let arguments = [wire.to_str().unwrap(), &one, &two, &token];
    let output = tokio::task::block_in_place(|| run("transcript.py", &arguments));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ground.stop().await;
}

pub async fn websocat_publishes_and_subscribes<G: Ground>() {
    let ground = G::start(1, 1, 1).await;
    let (url, token) = (ground.ws(0), ground.token("alice"));
    let arguments = [url.as_str(), &token];
    let output = tokio::task::block_in_place(|| run("websocat.py", &arguments));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ground.stop().await;
}
