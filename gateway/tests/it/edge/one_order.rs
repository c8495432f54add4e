//! A room's order is decided once in a gateway, however many shards have subscribers of it (D3).

use std::time::Duration;

use serde_json::json;
use sluice_lifecycle::{Stage, StageOutcome};
use sluice_proto::grpc::gateway_client::GatewayClient;
use sluice_proto::grpc::{PushBatch, PushRequest, RoomRun, push_reply, push_request};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::logic::EPOCH;
use super::rig::{Client, Rig};

const SHARDS: usize = 4;
const ROOM: &str = "news";

/// A push that was lost is missed by every shard, and read once for all of them.
#[tokio::test]
async fn d3_what_a_push_did_not_bring_is_read_once_for_all_shards() {
    let rig = Rig::start(SHARDS, false).await;
    let mut readers = Vec::new();
    for _ in 0..2 * SHARDS {
        // Shards take clients in turn: each has two.
        let mut client = Client::connect(&rig).await;
        client.say(json!({"sub": ROOM})).await;
        assert_eq!(client.hear().await["ok"], json!("sub"));
        readers.push(client);
    }
    let kept = rig.logic.store(ROOM, 2);
    rig.logic.hold_reads(true);
    let (sender, requests) = mpsc::channel(4);
    let mut client = GatewayClient::connect(format!("http://{}", rig.grpc)).await.unwrap();
    let mut replies = client.push(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let run = RoomRun {
        room: ROOM.into(),
        first: 2,
        last: 2,
        messages: vec![kept[1].clone()],
        ..RoomRun::default()
    };
    let batch = PushBatch { id: 1, epoch: EPOCH, runs: vec![run] };
    sender.send(PushRequest { kind: Some(push_request::Kind::Batch(batch)) }).await.unwrap();
    // Acknowledged by the home alone, while nobody has got anything.
    let acked = async {
        while let Some(reply) = replies.message().await.unwrap() {
            if let Some(push_reply::Kind::Acked(id)) = reply.kind {
                return id;
            }
        }
        panic!("the stream ended")
    };
    assert_eq!(timeout(Duration::from_secs(5), acked).await.expect("an ack"), 1);
    rig.logic.until_reads(1, 0).await;
    rig.logic.hold_reads(false);
    for reader in &mut readers {
        for seq in 1..=2 {
            let frame = reader.hear().await;
            assert_eq!((&frame["msg"], &frame["seq"]), (&json!(ROOM), &json!(seq)), "{frame}");
        }
    }
    assert_eq!(rig.logic.reads(), (1, 1), "one for all shards");
    drop((sender, replies));
    assert_eq!(rig.stop().await.outcome(Stage::Drain), Some(&StageOutcome::Done));
}
