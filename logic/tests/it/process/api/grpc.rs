//! The same calls over gRPC, on the same port: the same answers, and the same problems as statuses.

use bytes::Bytes;
use serde_json::{Value, json};
use sluice_proto::api as proto;
use sluice_proto::api::api_client::ApiClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::kit::{KEY, Served};
use crate::rig::get;
use crate::stores::stores;

/// Calls with a key.
fn with_key<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request
}

fn keyed<T>(message: T) -> Request<T> {
    with_key(message, KEY)
}

fn publish(room: &str, data: &'static str, key: &str) -> proto::PublishRequest {
    let data = Bytes::from_static(data.as_bytes());
    proto::PublishRequest { room: room.into(), data, key: Some(key.into()), from: None }
}

fn says<'a>(status: &'a Status, name: &str) -> Option<&'a str> {
    status.metadata().get(name).and_then(|value| value.to_str().ok())
}

async fn channel(served: &Served) -> Channel {
    Endpoint::from_shared(format!("http://{}", served.api.address)).unwrap().connect().await.unwrap()
}

async fn client(served: &Served) -> ApiClient<Channel> {
    ApiClient::new(channel(served).await)
}

#[tokio::test]
async fn what_http_answers_grpc_answers_too() {
    let cluster = stores().await;
    let served = Served::start(&cluster, &[]).await;
    let mut client = client(&served).await;
    let first = client.publish(keyed(publish("news", r#"{"t": "hi"}"#, "k1"))).await.unwrap().into_inner();
    assert_eq!((first.room.as_str(), first.seq, first.duplicate), ("news", 1, false));
    let by_http = json!({"room": "news", "data": {"t": "hi"}, "key": "k1"}).to_string();
    let spaced = by_http.replace("\"t\":", "\"t\": ");
    let again = served.api.send("POST", "/v1/publish", &[], spaced).await.ok();
    assert_eq!((&again["seq"], &again["duplicate"]), (&json!(1), &json!(true)), "one message, whoever asks");

    let rooms = vec!["a".to_owned(), "b".into(), "c*".into()];
    let broadcast = proto::BroadcastRequest { rooms, data: Bytes::from_static(b"1"), ..Default::default() };
    let results = client.broadcast(keyed(broadcast)).await.unwrap().into_inner().results;
    let failed =
        results.iter().filter(|it| matches!(it.outcome, Some(proto::item_result::Outcome::Failed(_))));
    assert_eq!((results.len(), failed.count()), (3, 1));
    let item = |when| proto::BatchItem {
        room: "later".into(),
        data: Bytes::from_static(b"1"),
        key: Some(format!("{when:?}")),
        when,
        ..Default::default()
    };
    let delayed = item(Some(proto::batch_item::When::DelayMs(3_600_000)));
    let key = delayed.key.clone().unwrap();
    let batch = proto::BatchRequest { messages: vec![item(None), delayed] };
    assert_eq!(client.batch(keyed(batch)).await.unwrap().into_inner().results.len(), 2);
    let asked = proto::ScheduledRequest { room: "later".into(), ..Default::default() };
    let waiting = client.scheduled(keyed(asked)).await.unwrap().into_inner();
    assert_eq!((waiting.messages.len(), waiting.messages[0].key.as_str()), (1, key.as_str()));
    let cancel = proto::CancelRequest { room: "later".into(), key, from: None };
    assert!(client.cancel(keyed(cancel)).await.unwrap().into_inner().cancelled);

    let asked = proto::HistoryRequest { room: "news".into(), ..Default::default() };
    let page = client.history(keyed(asked)).await.unwrap().into_inner();
    assert_eq!((&page.messages[0].data[..], page.more), (&br#"{"t": "hi"}"#[..], false));
    let asked = proto::ExportRequest { room: "news".into(), after: 0 };
    let mut export = client.export(keyed(asked)).await.unwrap().into_inner();
    let mut lines = Vec::new();
    while let Some(reply) = export.message().await.unwrap() {
        lines.extend_from_slice(&reply.lines);
    }
    let lines: Vec<Value> = lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!((&lines[0]["seq"], &lines[1]["end"]["reason"]), (&json!(1), &json!("complete")));
    let rooms = client.rooms(keyed(proto::RoomsRequest::default())).await.unwrap().into_inner();
    assert_eq!(
        rooms.rooms.iter().map(|room| room.room.as_str()).collect::<Vec<_>>(),
        ["a", "b", "later", "news"]
    );
    let of = Some(proto::presence_request::Of::User("ann".into()));
    let asked = proto::PresenceRequest { of, ..Default::default() };
    assert_eq!(client.presence(keyed(asked)).await.unwrap().into_inner().count, 0);
    let info = client.info(keyed(proto::InfoRequest {})).await.unwrap().into_inner();
    assert_eq!(serde_json::from_slice::<Value>(&info.json).unwrap()["key"]["name"], "test");

    let metrics = get(served.logic.admin(), "/metrics").await.1;
    let counted = "sluice_logic_api_calls_total{key=\"test\",method=\"publish\",outcome=\"completed\"} 2\n";
    assert!(metrics.contains(counted), "{metrics}");
    served.end().await;
    cluster.stop().await;
}

#[tokio::test]
async fn it_describes_itself_to_whoever_asks() {
    let cluster = stores().await;
    let served = Served::start(&cluster, &[]).await;
    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel(&served).await);
    let replies = reflection.server_reflection_info(futures::stream::iter([asked])).await.unwrap();
    let reply = replies.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = reply.message_response else {
        panic!("{reply:?}")
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"sluice.api.v1.Api"), "{names:?}");
    served.end().await;
    cluster.stop().await;
}

#[tokio::test]
async fn what_is_refused_is_a_status_that_says_whether_to_come_again() {
    let cluster = stores().await;
    let served = Served::start(&cluster, &[]).await;
    let mut client = client(&served).await;
    client.publish(keyed(publish("a", "1", "k"))).await.unwrap();
    for (request, code, ours) in [
        (keyed(publish("a", "2", "k")), Code::AlreadyExists, "conflict"),
        (keyed(publish("a", "{", "k2")), Code::InvalidArgument, "bad_request"),
        (keyed(publish("", "1", "k2")), Code::InvalidArgument, "bad_request"),
        (with_key(publish("a", "1", "k2"), "nobody"), Code::Unauthenticated, "unauthorized"),
        (Request::new(publish("a", "1", "k2")), Code::Unauthenticated, "unauthorized"),
    ] {
        let refused = client.publish(request).await.unwrap_err();
        assert_eq!((refused.code(), says(&refused, "x-sluice-code")), (code, Some(ours)), "{refused:?}");
        assert_eq!(says(&refused, "x-sluice-retry"), Some("false"));
        assert!(!refused.message().is_empty());
    }
    let large = proto::PublishRequest { data: vec![b'1'; 70_000].into(), ..publish("a", "1", "k3") };
    let refused = client.publish(keyed(large)).await.unwrap_err();
    assert_eq!(says(&refused, "x-sluice-code"), Some("too_large"), "{refused:?}");
    assert_eq!(served.api.get("history?room=a").await.ok()["head"], 1);
    served.end().await;
    cluster.stop().await;
}
