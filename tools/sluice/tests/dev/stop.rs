//! One signal stops everything in order, also with clients connected, and clients are told.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;

use crate::rig::{Dev, connect, frame, last_words, sluice};

/// The stop is asked to take less than a second; this much it may take on a busy machine.
const AT_MOST: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_signal_ends_everything_with_0_and_every_client_is_told() {
    for signal in ["-INT", "-TERM", "-QUIT"] {
        let dir = tempfile::tempdir().unwrap();
        let mut dev = Dev::start(dir.path(), &["--gateways", "3"]);
        let mut clients = Vec::new();
        for n in 0..30 {
            let (mut socket, _) = connect(dev.ws(n % 3), None).await;
            socket.send(json!({ "sub": format!("room-{n}") }).to_string()).await.unwrap();
            frame(&mut socket).await;
            socket.send(json!({ "pub": format!("room-{n}"), "data": n }).to_string()).await.unwrap();
            clients.push(socket);
        }
        dev.signal(signal);
        let begun = std::time::Instant::now();
        for (frames, code) in join_all(clients.into_iter().map(last_words)).await {
            assert_eq!(code, 1012, "{frames:?}");
            for told in ["drain", "bye"] {
                assert!(frames.iter().any(|frame| frame.get(told).is_some()), "{told}: {frames:?}");
            }
            assert!(frames.iter().any(|frame| frame["ok"] == "pub"), "answered: {frames:?}");
        }
        let (status, _) = dev.wait();
        let elapsed = begun.elapsed();
        println!("{signal} with 30 clients: exit code {:?} after {} ms", status.code(), elapsed.as_millis());
        assert_eq!(status.code(), Some(0));
        assert!(elapsed < AT_MOST, "{elapsed:?}");
    }
}

#[test]
fn people_see_what_it_is_for_and_the_stages() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = sluice();
    command.args(["dev", "--memory", "--gateways", "1", "--dir"]).arg(dir.path());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut said = String::new();
    while !said.contains("Ctrl-C") {
        let mut some = [0; 1_024];
        let read = output.read(&mut some).unwrap();
        assert!(read > 0, "it ended: {said}");
        said.push_str(&String::from_utf8_lossy(&some[..read]));
    }
    for word in [
        "FOR DEVELOPMENT",
        "memory: GONE",
        "ws://127.0.0.1:",
        "metrics http://",
        "websocat",
        "sub news",
        "pub news",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let at = |word: &str| rest.find(word).unwrap_or_else(|| panic!("{word}: {rest}"));
    // Each line has the stages of one service, in the order in which they end.
    let order = ["stopping", "\n  gateway-1 ", "\n  task ", "\n  logic ", "stopped in"].map(at);
    assert!(order.is_sorted(), "{rest}");
    assert!(rest.contains("drain") && rest.contains("release"), "{rest}");
}
