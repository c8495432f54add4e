//! `sluice pub --delay` and `sluice cancel`, as people use them.

use serde_json::{Value, json};

use crate::rig::{Dev, connect, frame, run, text};

/// What the command prints.
fn said(dev: &Dev, token: &str, arguments: &[&str]) -> Value {
    let target = ["--url", dev.ws(0), "--token", token];
    let output = tokio::task::block_in_place(|| run(&[arguments, &target].concat()));
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_published_later_and_another_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--gateways", "1"]);
    let (mut socket, token) = connect(dev.ws(0), None).await;
    socket.send(json!({ "sub": "news" }).to_string()).await.unwrap();
    assert_eq!(frame(&mut socket).await["ok"], "sub");

    let soon = said(&dev, &token, &["pub", "news", "\"soon\"", "--delay", "1.5"]);
    let key = soon["key"].as_str().unwrap();
    assert!(soon["due"].is_i64() && soon["seq"].is_null(), "{soon}");
    let never = ["pub", "news", "\"never\"", "--delay", "3600", "--key", "never"];
    assert_eq!(said(&dev, &token, &never)["key"], "never");
    for _ in 0..2 {
        let cancelled = said(&dev, &token, &["cancel", "news", "never"]);
        assert_eq!(cancelled, json!({ "room": "news", "key": "never", "cancelled": true }));
    }

    let came = frame(&mut socket).await;
    assert_eq!((&came["msg"], &came["data"], &came["key"]), (&json!("news"), &json!("soon"), &json!(key)));
    assert!(came["at"].as_i64() >= soon["due"].as_i64(), "{came} {soon}");
    assert_eq!(said(&dev, &token, &["cancel", "news", key])["cancelled"], false, "too late");
    let output = run(&["pub", "news", "1", "--delay", "-1"]);
    assert!(!output.status.success());
}
