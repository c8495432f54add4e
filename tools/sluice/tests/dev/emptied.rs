//! The folder is emptied while it runs: nothing is promised any more, and it stops with an error that says why.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};
use sluice_client::raw::Frame;
use tokio::time::timeout;

use crate::rig::{SOON, connect, frame, sluice};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_its_folder_was_emptied_no_ok_is_said_and_it_stops_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = sluice();
    command.args(["dev", "--json", "--gateways", "1", "--dir"]).arg(dir.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let first: Value = serde_json::from_str(&line).unwrap();
    let (mut socket, _) = connect(first["gateways"][0]["ws"].as_str().unwrap(), None).await;
    let publish = |n: u32| json!({ "pub": "news", "data": n, "id": n }).to_string();
    socket.send(publish(1)).await.unwrap();
    assert_eq!(frame(&mut socket).await["ok"], "pub");

    for entry in std::fs::read_dir(dir.path()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    // from here on until it ends, of what is sent nothing is answered `ok`
    socket.send(publish(2)).await.unwrap();
    let (mut n, mut refused) = (2, 0);
    loop {
        match timeout(SOON, socket.next()).await.expect("an answer or the end in time") {
            Frame::Text(text) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                assert_ne!(frame["ok"], "pub", "{frame}");
                if frame["error"]["retry"] == true {
                    refused += 1;
                    n += 1;
                    socket.send(publish(n)).await.ok(); // it may be closing
                }
            }
            Frame::End(_) => break,
            _ => {}
        }
    }
    assert!(refused > 0);
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.contains("sluice-dev.db was deleted or moved"), "{last}");
}
