//! The store of a `sluice serve` is copied into the database of a cluster: its clients go on there as if nothing had been.

use std::path::Path;

use serde_json::{Value, json};
use sluice_client::raw::Socket;
use sluice_launcher::{Options, Service};

use super::Real;
use crate::kit::{Ground, socket_of};
use crate::one_process::{Dev, SECRET, connect, frame, run, text, token};

const MESSAGES: usize = 1_200;

fn publish(n: usize) -> String {
    json!({ "pub": "news", "data": n, "key": format!("{n:032x}"), "id": n }).to_string()
}

fn copy(folder: &Path, url: &str) -> (bool, String) {
    let output = run(&["store", "copy", "--from", folder.to_str().unwrap(), "--to", url]);
    (output.status.success(), text(if output.status.success() { &output.stdout } else { &output.stderr }))
}

async fn ask(socket: &mut Socket, request: Value) -> Value {
    socket.send(request.to_string()).await.unwrap();
    frame(socket).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_an_outgrown_process_resume_on_the_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let mut serve = Dev::serve(dir.path());
    let (mut socket, _) = connect(serve.ws(0), Some(&token("ann"))).await;
    for n in 0..MESSAGES {
        socket.send(publish(n)).await.unwrap();
    }
    for _ in 0..MESSAGES {
        assert_eq!(frame(&mut socket).await["ok"], "pub");
    }
    let epoch = ask(&mut socket, json!({ "sub": "news", "after": MESSAGES })).await["epoch"].clone();
    let later = json!({ "pub": "later", "data": 1, "key": "due", "delay_ms": 3_600_000 });
    let due = ask(&mut socket, later).await["due"].clone();
    let never = json!({ "pub": "later", "data": 1, "key": "never", "delay_ms": 3_600_000 });
    assert_eq!(ask(&mut socket, never).await["ok"], "pub");
    assert_eq!(ask(&mut socket, json!({ "cancel": "later", "key": "never" })).await["cancelled"], true);

    // Its services run: they learn of the copy by themselves.
    let options = Options { gateways: 2, logics: 1, tasks: 1, ..Options::default() };
    let cluster = Real::with(Options { token_secret: Some(SECRET.to_owned()), ..options }).await;
    let url = cluster.url_with_password(Service::Postgres);
    let (done, said) = copy(dir.path(), &url);
    assert!(!done && said.contains("`sluice serve` runs in"), "{said}");
    serve.signal("-TERM");
    assert_eq!(serve.wait().0.code(), Some(0));
    let (done, said) = copy(dir.path(), &url);
    assert!(done && said.contains(&format!("{MESSAGES} messages in 1 rooms, 2 delayed")), "{said}");
    assert!(said.contains(epoch.as_str().unwrap()), "{said}: {epoch}");
    let (done, said) = copy(dir.path(), &url);
    assert!(!done && said.contains("is not empty"), "{said}");

    // Where it was when it left, in the epoch it knew.
    let mut socket = socket_of(&cluster, "ann", 0).await;
    let position = MESSAGES - 100;
    let ok = ask(&mut socket, json!({ "sub": "news", "after": position, "epoch": epoch })).await;
    assert_eq!((&ok["recovered"], &ok["head"]), (&json!(true), &json!(MESSAGES)), "{ok}");
    for n in position..MESSAGES {
        let message = frame(&mut socket).await;
        assert_eq!((&message["seq"], &message["data"]), (&json!(n + 1), &json!(n)), "{message}");
    }
    // Sent again because its answer was lost: known by its key.
    let mut other = socket_of(&cluster, "ann", 1).await;
    let again = ask(&mut other, serde_json::from_str(&publish(7)).unwrap()).await;
    assert_eq!((&again["ok"], &again["seq"]), (&json!("pub"), &json!(8)), "{again}");
    let used = ask(&mut other, json!({ "pub": "news", "data": "other", "key": format!("{:032x}", 7) })).await;
    assert_eq!(used["error"]["code"], "conflict", "{used}");
    let next = ask(&mut other, serde_json::from_str(&publish(MESSAGES)).unwrap()).await;
    assert_eq!(next["seq"], json!(MESSAGES + 1), "{next}");
    assert_eq!(frame(&mut socket).await["data"], json!(MESSAGES));
    // What waited waits.
    let later = json!({ "pub": "later", "data": 1, "key": "due", "delay_ms": 3_600_000 });
    assert_eq!(ask(&mut other, later).await["due"], due);
    let never = json!({ "pub": "later", "data": 1, "key": "never", "delay_ms": 1 });
    assert_eq!(ask(&mut other, never).await["error"]["code"], "conflict", "what was taken back stays so");

    assert_eq!(cluster.table("news").await.len(), MESSAGES + 1);
    cluster.stop().await;
}
