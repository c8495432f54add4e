//! A message that was never committed, pushed by somebody who may: the real one with that position is not swallowed.

use std::time::Duration;

use serde_json::json;
use sluice_lifecycle::{Stage, StageOutcome};
use sluice_proto::grpc::gateway_client::GatewayClient;
use sluice_proto::grpc::{Message, PushBatch, PushRequest, RoomRun, push_request};
use sluice_proto::ids::InstanceId;
use sluice_service::grpc::channels::{Caller, dial};
use sluice_service::tls::Role;
use sluice_testing::eventually;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::logic::EPOCH;
use super::rig::{Client, Rig};

const ROOM: &str = "news";

/// A stream of the task of this name; it ends when what is returned is dropped.
async fn task(rig: &Rig, name: &str) -> mpsc::Sender<PushRequest> {
    let (sender, requests) = mpsc::channel(4);
    let caller = Caller::fixed(InstanceId::parse(name).unwrap());
    let mut client = GatewayClient::new(dial(&rig.grpc, Role::Gateway, &caller).unwrap());
    let mut replies = client.push(ReceiverStream::new(requests)).await.unwrap().into_inner();
    tokio::spawn(async move { while let Ok(Some(_)) = replies.message().await {} });
    sender
}

async fn push(to: &mpsc::Sender<PushRequest>, message: Message) {
    let run = RoomRun {
        room: ROOM.into(),
        first: message.seq,
        last: message.seq,
        messages: vec![message],
        ..RoomRun::default()
    };
    let batch = PushBatch { id: 1, epoch: EPOCH, runs: vec![run] };
    to.send(PushRequest { kind: Some(push_request::Kind::Batch(batch)) }).await.unwrap();
}

#[tokio::test]
async fn a_forged_push_does_not_swallow_the_real_one() {
    let rig = Rig::start(2, false).await;
    let mut reader = Client::connect(&rig).await;
    reader.say(json!({"sub": ROOM})).await;
    assert_eq!(reader.hear().await["ok"], json!("sub"));
    let (rogue, real) = (task(&rig, "rogue").await, task(&rig, "task-a").await);
    let forged = Message { seq: 1, sender: "ann".into(), data: "\"forged\"".into(), ..Message::default() };
    push(&rogue, forged).await;
    assert_eq!(reader.hear().await["data"], json!("forged"), "nobody could tell");
    assert_eq!(rig.conflicts(), 0);

    let stored = rig.logic.store(ROOM, 1);
    push(&real, stored[0].clone()).await;
    // Told that what it has may not be what is stored: a client reads it again.
    let told = reader.hear().await;
    assert_eq!(
        (&told["ok"], &told["recovered"], told.get("id")),
        (&json!("sub"), &json!(false), None),
        "{told}"
    );
    eventually("it is counted", Duration::from_secs(5), async || rig.conflicts() == 1).await;
    let names = rig.pushers();
    assert!(names.contains("rogue at 127.0.0.1:") && names.contains("task-a at 127.0.0.1:"), "{names}");

    // The same again is no conflict, and the room goes on.
    push(&real, stored[0].clone()).await;
    let stored = rig.logic.store(ROOM, 1);
    push(&real, stored[1].clone()).await;
    let next = reader.hear().await;
    assert_eq!((&next["seq"], &next["data"]), (&json!(2), &json!(2)), "{next}");
    assert_eq!(rig.conflicts(), 1);
    drop((rogue, real));
    assert_eq!(rig.stop().await.outcome(Stage::Drain), Some(&StageOutcome::Done));
}
