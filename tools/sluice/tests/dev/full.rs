//! A disk without space under `sluice serve`: publishes are refused for now, what was answered ok stays, and all goes on
//! by itself when there is space again, also after a kill in between.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sluice_client::raw::Socket;

use crate::rig::{Dev, connect, frame, stored_for, token, until};

/// A small file system of its own; gone when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir(&at).unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "none"]).arg(&at).status();
        done.is_ok_and(|status| status.success()).then_some(Self(at))
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

async fn numbers(serve: &Dev) -> Vec<u64> {
    let stored = stored_for(serve.ws(1), "news", Some(&token("ann"))).await;
    stored.iter().map(|message| message["data"]["n"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_for_now_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Small::mount(dir.path().join("small")) else {
        eprintln!("SKIPPED: a full disk: this user may not mount a tmpfs");
        return;
    };
    let data: &Path = &disk.0.join("data");
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

    serve.kill();
    disk.grow();
    let serve = Dev::serve(data);
    until("there is space again", async || is_stored(&serve, accepted).await).await;
    assert!(is_stored(&serve, accepted + 1).await);
    let all: Vec<u64> = (0..accepted as u64 + 2).collect();
    assert_eq!(numbers(&serve).await, all, "each once, in order, none left out");
}
