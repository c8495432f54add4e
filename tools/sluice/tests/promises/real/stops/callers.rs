//! Fifty ask for one stop at once: by signals, over the pages of the process itself, and over those of another one. It
//! is one stop, and each of them has the same answer.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use sluice_launcher::{Node, Options, Service, Signal};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::exits_well;
use super::super::operators::{TOKEN, commanded, id, page};
use crate::kit::{SOON, socket_of, until};

/// Each in turn.
const SIGNALS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP];
/// Who asks how: as many as these together.
const SIGNALLING: usize = 12;
const COMMANDING: usize = 13;
const ASKING_ITSELF: usize = 13;
const ASKING_ANOTHER: usize = 12;
const CALLERS: usize = SIGNALLING + COMMANDING + ASKING_ITSELF + ASKING_ANOTHER;
const _: () = assert!(CALLERS == 50);

/// Somebody with a connection to the pages of an instance.
struct Caller(BufReader<TcpStream>);

impl Caller {
    /// It is served: its first question was answered.
    async fn at(node: &Node) -> Self {
        let address = node.admin().trim_start_matches("http://");
        let mut caller = Self(BufReader::new(TcpStream::connect(address).await.unwrap()));
        assert_eq!(caller.ask("GET", "/livez", "").await.0, 200);
        caller
    }

    async fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.0.get_mut().write_all(request.as_bytes()).await.unwrap();
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            let read = timeout(SOON, self.0.read_line(&mut line)).await.expect("an answer in time");
            assert!(read.unwrap() > 0, "{path}: it ended without an answer");
            let line = line.trim_end().to_ascii_lowercase();
            if line.starts_with("http/") {
                status = line[9..12].parse().unwrap();
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        (status, String::from_utf8(body).unwrap())
    }
}

/// All of them ask `node` to stop, some through `other`; returns when each has its answer.
async fn all_ask(node: &Node, other: &Node) {
    let id = id(node).await;
    let callers = |at, count| join_all((0..count).map(move |_| Caller::at(at)));
    let (commanding, itself, another) =
        tokio::join!(callers(node, COMMANDING), callers(node, ASKING_ITSELF), callers(other, ASKING_ANOTHER));
    let command = json!({ "command": "stop", "target": id }).to_string();
    let path = format!("/admin/instances/{id}/stop");
    let commanding = commanding.into_iter().map(async |mut caller| {
        let answer = caller.ask("POST", "/admin/command", &command).await;
        Some(answer)
    });
    let asking = itself.into_iter().chain(another).map(async |mut caller| {
        let answer = caller.ask("POST", &path, "").await;
        Some(answer)
    });
    let signalling = SIGNALS.iter().cycle().take(SIGNALLING).map(async |signal| {
        assert!(node.signal(*signal), "{} is gone already", node.name());
        None
    });
    let (commanding, asking, signalling) =
        tokio::join!(join_all(commanding), join_all(asking), join_all(signalling));
    let answers: Vec<_> = commanding.into_iter().chain(asking).chain(signalling).collect();
    assert_eq!(answers.len(), CALLERS);
    for (status, body) in answers.into_iter().flatten() {
        let said: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &said), (202, &json!({ "command": "stop", "target": id })), "{}", node.name());
    }
}

/// Exit code 0, and its log tells of one stop.
async fn was_one_stop(node: &Node) {
    exits_well(node).await;
    let log = std::fs::read_to_string(node.log()).unwrap();
    let said =
        |what: &str| log.lines().filter(|line| line.contains(&format!("\"message\":\"{what}"))).count();
    assert_eq!((said("Stopping\""), said("Stopped\"")), (1, 1), "{}: {log}", node.name());
    let ignored = said("Already stopping");
    assert!((1..CALLERS).contains(&ignored), "{}: {ignored} came later", node.name());
}

/// Of everything at once: a client that stays holds the gateway, which holds the others, so that none is gone before
/// the last has asked.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_who_ask_for_a_stop_at_once_have_one_and_the_same_answer() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = commanded(folder.path(), Options::default()).await;
    let [gateway, logic, task] = Service::SERVICES.map(|service| cluster.node(service, 0).unwrap());
    until("all know each other", SOON, async || {
        page(&task, "/admin/instances").await["count"] == 3
            && page(&gateway, "/admin/instances").await["count"] == 3
    })
    .await;
    let _stays = socket_of(&cluster, "ann", 0).await;
    tokio::join!(all_ask(&gateway, &logic), async {
        until("the gateway drains", SOON, async || page(&gateway, "/status").await["state"] == "draining")
            .await;
        tokio::join!(all_ask(&logic, &task), all_ask(&task, &logic));
    });
    for node in [&gateway, &logic, &task] {
        was_one_stop(node).await;
    }
    cluster.stop().await;
}

/// Callers that hang up, and come when it is over, change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_when_it_is_over_finds_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = commanded(folder.path(), Options::default()).await;
    for service in Service::SERVICES {
        let node = cluster.node(service, 0).unwrap();
        assert!(node.term());
        exits_well(&node).await;
        assert!(SIGNALS.iter().all(|signal| !node.signal(*signal)));
        let address = node.admin().trim_start_matches("http://").to_owned();
        let refused = timeout(Duration::from_secs(5), TcpStream::connect(address)).await.unwrap();
        assert!(refused.is_err(), "its port is free");
    }
    cluster.stop().await;
}
