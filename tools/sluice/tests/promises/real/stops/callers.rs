//! Fifty ask for one stop at once: by signals, over the pages of the process itself, and over those of another one. It
//! is one stop, and each of them has the same answer.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use sluice_launcher::{Node, Options, Service, Signal};
use sqlx::Connection as _;
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

/// Who will ask for a stop of one instance.
struct Callers<'a> {
    node: &'a Node,
    id: String,
    commanding: Vec<Caller>,
    /// By its own pages, and by those of another one.
    asking: Vec<Caller>,
}

impl<'a> Callers<'a> {
    async fn of(node: &'a Node, other: &'a Node) -> Self {
        let callers = |at, count| join_all((0..count).map(move |_| Caller::at(at)));
        let (commanding, asking) = tokio::join!(callers(node, COMMANDING), callers(node, ASKING_ITSELF));
        let another = callers(other, ASKING_ANOTHER).await;
        let asking = asking.into_iter().chain(another).collect();
        Self { node, id: id(node).await, commanding, asking }
    }
}

/// All of them ask at once; returns when each has its answer.
async fn all_ask(Callers { node, id, commanding, asking }: Callers<'_>) {
    let command = json!({ "command": "stop", "target": id }).to_string();
    let path = format!("/admin/instances/{id}/stop");
    let commanding = commanding.into_iter().map(async |mut caller| {
        let answer = caller.ask("POST", "/admin/command", &command).await;
        Some(answer)
    });
    let asking = asking.into_iter().map(async |mut caller| {
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

/// Of everything at once: a publish without an outcome holds its gateway, which holds the last logic and the last task,
/// so that none is gone before all have asked.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_who_ask_for_a_stop_at_once_have_one_and_the_same_answer() {
    let folder = tempfile::tempdir().unwrap();
    // With another gateway beside it a drain has its whole time.
    let options = Options { gateways: 2, ..Options::default() };
    let cluster = commanded(folder.path(), options).await;
    let [gateway, logic, task] = Service::SERVICES.map(|service| cluster.node(service, 0).unwrap());
    until("all know each other", SOON, async || {
        page(&task, "/admin/instances").await["count"] == 4
            && page(&gateway, "/admin/instances").await["count"] == 4
    })
    .await;
    let mut ann = socket_of(&cluster, "ann", 0).await;
    let mut store = cluster.look().await;
    let mut hold = store.begin().await.unwrap();
    sqlx::query("lock table messages in access exclusive mode").execute(&mut *hold).await.unwrap();
    ann.send(r#"{"pub":"news","data":1}"#).await.unwrap();
    until("it is under way", SOON, async || page(&gateway, "/status").await["in_flight"] == 1).await;
    let of_gateway = Callers::of(&gateway, &logic).await;
    let (of_logic, of_task) = (Callers::of(&logic, &task).await, Callers::of(&task, &logic).await);
    tokio::join!(all_ask(of_gateway), async {
        until("the gateway drains", SOON, async || page(&gateway, "/status").await["stage"] == "drain").await;
        tokio::join!(all_ask(of_logic), all_ask(of_task));
    });
    hold.rollback().await.unwrap();
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
