//! Clients that were not written here: `websockets` (Python) and `websocat`. The transcript in WIRE.md is
//! executed line by line, and its example of a client is taken through stops and kills.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::Deserialize;
use sluice_launcher::Service;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use crate::kit::{Ground, SOON};

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

/// What `complete.py` prints at its end.
#[derive(Deserialize)]
struct Told {
    /// Position and number of each message that came, in the order of coming.
    came: Vec<(u64, u64)>,
    /// Position and number of each answered publish.
    answers: Vec<(u64, u64)>,
}

/// The client of `examples/` publishes and reads while every service is stopped and every process killed.
pub async fn the_client_in_python_keeps_the_promises<G: Ground>() {
    let websockets = Command::new("python3").args(["-c", "import websockets"]).stderr(Stdio::null()).status();
    if !websockets.is_ok_and(|status| status.success()) {
        eprintln!(
            "SKIPPED: the client in Python, as python3 with `websockets` is not there; make deps installs it"
        );
        return;
    }
    let ground = G::start(2, 2, 2).await;
    let mut python = tokio::process::Command::new("python3");
    python.arg(root().join("tools/sluice/tests/promises/complete.py")).arg(root().join("examples/client.py"));
    python.args([ground.token("alice"), ground.ws(0), ground.ws(1)]).kill_on_drop(true);
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut lines = BufReader::new(stdout).lines();
    let reading = timeout(SOON, lines.next_line()).await.expect("messages come in time").unwrap();
    assert_eq!(reading.as_deref(), Some("reading"));

    for service in [Service::Gateway, Service::Logic, Service::Task] {
        ground.roll(service, 0).await;
    }
    ground.roll(Service::Gateway, 1).await;
    ground.kill_each().await;
    ground.roll(Service::Gateway, 1).await;

    stdin.write_all(b"stop\n").await.unwrap();
    let last = timeout(SOON * 4, lines.next_line()).await.expect("it ends in time").unwrap();
    let told: Told = serde_json::from_str(&last.expect("what came")).unwrap();
    assert!(child.wait().await.unwrap().success());
    let stored: Vec<(u64, u64)> =
        ground.table("numbers").await.iter().map(|row| (row.seq, row.data.parse().unwrap())).collect();
    let in_order: Vec<(u64, u64)> = (0..stored.len() as u64).map(|n| (n + 1, n)).collect();
    assert_eq!(stored, in_order, "each number once, in the order of publishing");
    assert_eq!(told.came, stored, "the reader saw what is stored, each once, in order");
    assert_eq!(told.answers, stored, "every answer names its position");
    ground.stop().await;
}
