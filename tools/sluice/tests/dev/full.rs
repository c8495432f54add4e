//! A disk without space under `sluice serve`: publishes are refused for now, what was answered ok stays, and all goes on
//! by itself when there is space again, also after a kill in between.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_client::raw::Socket;
use sluice_launcher::probe;
use tokio::time::{Instant, sleep};

use crate::rig::{Dev, SOON, connect, frame, stored_for, token, until};

/// A small file system of its own; gone when dropped.
pub struct Small(PathBuf);

impl Small {
    /// None where this user may not mount, which is said.
    pub fn mount(at: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir(&at).unwrap();
        let size = format!("size={size}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(&at).status();
        if done.is_ok_and(|status| status.success()) {
            return Some(Self(at));
        }
        eprintln!("SKIPPED: a full disk: this user may not mount a tmpfs");
        None
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn grow(&self) {
        let grown = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&self.0).status();
        assert!(grown.unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok(); // the folder goes with its parent
    }
}

async fn publish(socket: &mut Socket, n: usize) -> Value {
    let text = "x".repeat(20_000);
    let frame_ =
        json!({ "pub": "news", "data": { "n": n, "text": text }, "key": format!("{n:032x}"), "id": n });
    socket.send(frame_.to_string()).await.unwrap();
    frame(socket).await
}

/// Connects anew for each try: one that was refused for now is closed by the rules, so that nothing overtakes it.
async fn is_stored(serve: &Dev, n: usize) -> bool {
    let (mut socket, _) = connect(serve.ws(0), Some(&token("ann"))).await;
    publish(&mut socket, n).await["ok"] == "pub"
}

/// What the page of the process says of its readiness.
async fn ready(serve: &Dev) -> (u16, String) {
    let answer = probe::get(&format!("{}/readyz", serve.page()), SOON).await.unwrap();
    (answer.status, answer.body)
}

async fn numbers(serve: &Dev) -> Vec<u64> {
    let stored = stored_for(serve.ws(1), "news", Some(&token("ann"))).await;
    stored.iter().map(|message| message["data"]["n"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_for_now_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Small::mount(dir.path().join("small"), "3m") else { return };
    let data: &Path = &disk.path().join("data");
    let mut serve = Dev::serve(data);
    let (mut socket, _) = connect(serve.ws(0), Some(&token("ann"))).await;
    let mut accepted = 0;
    let refusal = loop {
        let answer = publish(&mut socket, accepted).await;
        if answer["ok"] != "pub" {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 1_000, "it is never full");
    };
    assert_eq!(refusal["error"]["retry"], true, "{refusal}");
    assert!(accepted > 10, "{accepted}");
    assert!(numbers(&serve).await.len() >= accepted, "it is read all the same");
    // Longer than a failure of somebody's publish speaks for the store: nobody publishes any more.
    let told = Instant::now();
    while told.elapsed() < Duration::from_secs(5) {
        let (status, said) = ready(&serve).await;
        assert!(status == 503 && said.contains("free space on the disk"), "{status} {said}");
        sleep(Duration::from_millis(500)).await;
    }

    serve.kill();
    disk.grow();
    let serve = Dev::serve(data);
    until("there is space again", async || is_stored(&serve, accepted).await).await;
    until("it says so", async || ready(&serve).await.0 == 200).await;
    assert!(is_stored(&serve, accepted + 1).await);
    let all: Vec<u64> = (0..accepted as u64 + 2).collect();
    assert_eq!(numbers(&serve).await, all, "each once, in order, none left out");
}
