//! Who watches a room is told who comes and goes, and nobody else is; who may have missed something is told that.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_proto::grpc::gateway_client::GatewayClient;
use sluice_proto::grpc::{
    ChangeKind, PresenceEvent, PushBatch, PushReply, PushRequest, Resync, RoomRun, push_reply, push_request,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::logic::EPOCH;
use super::rig::{Client, Rig};

const SHARDS: usize = 2;
const ROOM: &str = "news";

/// A task with its stream.
struct Task {
    requests: mpsc::Sender<PushRequest>,
    replies: Streaming<PushReply>,
    last: u64,
}

impl Task {
    async fn start(rig: &Rig) -> Self {
        let (requests, stream) = mpsc::channel(4);
        let mut client = GatewayClient::connect(format!("http://{}", rig.grpc)).await.unwrap();
        let replies = client.push(ReceiverStream::new(stream)).await.unwrap().into_inner();
        Self { requests, replies, last: 0 }
    }

    async fn send(&self, kind: push_request::Kind) {
        self.requests.send(PushRequest { kind: Some(kind) }).await.unwrap();
    }

    /// Pushes what happened in the room, until it is acknowledged.
    async fn tell(&mut self, events: &[PresenceEvent]) {
        self.last += 1;
        let run = RoomRun { room: ROOM.into(), presence: events.to_vec(), ..RoomRun::default() };
        self.send(push_request::Kind::Batch(PushBatch { id: self.last, epoch: EPOCH, runs: vec![run] }))
            .await;
        let acked = async {
            while let Some(reply) = self.replies.message().await.unwrap() {
                if let Some(push_reply::Kind::Acked(id)) = reply.kind {
                    return id;
                }
            }
            panic!("the stream ended")
        };
        assert_eq!(timeout(Duration::from_secs(5), acked).await.expect("an ack"), self.last);
    }
}

fn event(user: &str, at_ms: i64, left: bool) -> PresenceEvent {
    let info = if left { String::new() } else { r#"{"n":1}"#.into() };
    PresenceEvent { user: user.into(), at_ms, left, info }
}

/// Clients in every shard that are subscribed to the room.
async fn subscribed(rig: &Rig, frame: Value) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..SHARDS {
        // Shards take clients in turn.
        let mut client = Client::connect(rig).await;
        client.say(frame.clone()).await;
        assert_eq!(client.hear().await["ok"], json!("sub"));
        clients.push(client);
    }
    clients
}

/// What it heard until its own ping is answered.
async fn heard(client: &mut Client) -> Vec<Value> {
    client.say(json!({"ping": 1})).await;
    let mut heard = Vec::new();
    loop {
        let frame = client.hear().await;
        if frame["ok"] == json!("ping") {
            return heard;
        }
        heard.push(frame);
    }
}

#[tokio::test]
async fn who_watches_hears_who_comes_and_goes_once_and_nobody_else_does() {
    let rig = Rig::start(SHARDS, false).await;
    let mut watchers = subscribed(&rig, json!({"sub": ROOM, "presence": true})).await;
    let mut others = subscribed(&rig, json!({"sub": ROOM})).await;
    let mut task = Task::start(&rig).await;
    let events = [event("ann", 5, false), event("bob", 6, true)];
    task.tell(&events).await;
    // Killed before NATS heard of its acknowledgement: another one brings the same.
    let mut second = Task::start(&rig).await;
    second.tell(&events).await;
    let told = [
        json!({"join": ROOM, "user": "ann", "at": 5, "info": {"n": 1}}),
        json!({"leave": ROOM, "user": "bob", "at": 6}),
    ];
    for watcher in &mut watchers {
        assert_eq!(heard(watcher).await, told);
        watcher.say(json!({"unsub": ROOM})).await;
        assert_eq!(watcher.hear().await["ok"], json!("unsub"));
    }
    task.tell(&[event("cat", 7, false)]).await;
    for client in watchers.iter_mut().chain(&mut others) {
        assert_eq!(heard(client).await, Vec::<Value>::new());
    }
    assert!(rig.stop().await.is_clean());
}

#[tokio::test]
async fn logic_knows_who_watches_before_it_is_asked_who_is_there() {
    let rig = Rig::start(1, false).await;
    let mut watcher = Client::named(&rig, "ann").await;
    watcher.say(json!({"sub": ROOM, "presence": true})).await;
    assert_eq!(watcher.hear().await["ok"], json!("sub"));
    watcher.say(json!({"presence": ROOM, "id": 1})).await;
    assert_eq!(watcher.hear().await["ok"], json!("presence"));
    let watches = rig.logic.reports().into_iter().flat_map(|report| report.changes);
    let watches: Vec<bool> = watches
        .filter(|change| change.kind() == ChangeKind::Joined && change.room == ROOM)
        .map(|change| change.watches)
        .collect();
    assert_eq!(watches, [true]);
    assert!(rig.stop().await.is_clean());
}

#[tokio::test]
async fn who_may_have_missed_something_is_told_once_until_it_asks() {
    let rig = Rig::start(SHARDS, false).await;
    let mut watchers = subscribed(&rig, json!({"sub": ROOM, "presence": true})).await;
    let mut other = Client::connect(&rig).await;
    other.say(json!({"sub": ROOM})).await;
    assert_eq!(other.hear().await["ok"], json!("sub"));
    let mut task = Task::start(&rig).await;
    for watcher in &mut watchers {
        // A task that dropped something while this gateway lagged says so.
        task.send(push_request::Kind::Resync(Resync {})).await;
        assert_eq!(watcher.hear().await, json!({"stale": ROOM}));
    }
    task.tell(&[event("ann", 5, false)]).await;
    for watcher in &mut watchers {
        assert_eq!(heard(watcher).await, Vec::<Value>::new(), "it is to ask first");
        watcher.say(json!({"presence": ROOM, "id": 1})).await;
        assert_eq!(watcher.hear().await["ok"], json!("presence"));
    }
    task.tell(&[event("bob", 6, false)]).await;
    for watcher in &mut watchers {
        assert_eq!(watcher.hear().await["user"], json!("bob"));
    }
    assert_eq!(heard(&mut other).await, Vec::<Value>::new());
    assert!(rig.stop().await.is_clean());
}
