//! What logic ends: connections of a user, subscriptions, and whoever came with a revoked token.

use serde_json::{Value, json};
use sluice_proto::grpc::gateway_client::GatewayClient;
use sluice_proto::grpc::{DisconnectRequest, Revocation, UnsubscribeRequest};
use sluice_proto::wire::close;
use sluice_testing::eventually;
use tonic::transport::Channel;

use super::event_reader::Reader;
use super::logic::ISSUED_AT_S;
use super::rig::{Client, Rig, SOON};

async fn logic(rig: &Rig) -> GatewayClient<Channel> {
    GatewayClient::connect(format!("http://{}", rig.grpc)).await.unwrap()
}

/// A call that ends connections of ann.
pub fn ann(session: &str, issued_until_s: Option<u32>) -> DisconnectRequest {
    let revocation =
        issued_until_s.map(|issued_until_s| Revocation { user: "ann".into(), issued_until_s, position: 1 });
    DisconnectRequest { user: "ann".into(), session: session.into(), revocation }
}

pub async fn ended(rig: &Rig, request: DisconnectRequest) -> u32 {
    logic(rig).await.disconnect(request).await.unwrap().into_inner().connections
}

/// It is told why, and whether to come back.
async fn leaves(client: &mut Client, code: u16, reconnect: bool) {
    let bye = client.hear().await["bye"].clone();
    assert_eq!((&bye["code"], &bye["reconnect"]), (&json!(code), &json!(reconnect)), "{bye}");
    assert_eq!(bye["reconnect_ms"].is_u64(), reconnect, "{bye}");
    assert_eq!(client.end().await.map(|(code, _)| code), Some(code));
}

/// It goes on.
async fn stays(client: &mut Client) {
    client.say(json!({"ping": 1})).await;
    assert_eq!(client.hear().await, json!({"ok": "ping"}));
}

/// In every shard, and again: what is done is done.
#[tokio::test]
async fn all_connections_of_a_user_end_and_those_of_others_stay() {
    let rig = Rig::start(3, false).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(Client::named(&rig, "ann").await);
    }
    let mut bob = Client::named(&rig, "bob").await;
    assert_eq!(ended(&rig, ann("", None)).await, 6);
    for client in &mut clients {
        leaves(client, close::DISCONNECTED, true).await;
    }
    assert_eq!(ended(&rig, ann("", None)).await, 0);
    stays(&mut bob).await;
    stays(&mut Client::named(&rig, "ann").await).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_session_ends_alone() {
    let rig = Rig::start(2, false).await;
    let mut one = Client::with_token(&rig, "ann").await;
    let session = one.hear().await["welcome"]["session"].as_str().unwrap().to_owned();
    let mut other = Client::named(&rig, "ann").await;
    assert_eq!(ended(&rig, ann(&session, None)).await, 1);
    leaves(&mut one, close::DISCONNECTED, true).await;
    stays(&mut other).await;
    rig.stop().await;
}

#[tokio::test]
async fn who_has_a_revoked_token_ends_for_good_and_a_later_token_stays() {
    let rig = Rig::start(2, false).await;
    let mut client = Client::named(&rig, "ann").await;
    assert_eq!(ended(&rig, ann("", Some(ISSUED_AT_S - 1))).await, 0, "this one is of a later second");
    stays(&mut client).await;
    assert_eq!(
        ended(
            &rig,
            DisconnectRequest {
                revocation: Some(Revocation { user: "ann".into(), issued_until_s: ISSUED_AT_S, position: 2 }),
                ..ann("", None)
            }
        )
        .await,
        1
    );
    leaves(&mut client, close::REVOKED, false).await;
    // Logic says that the token is good, as it has not read of it yet.
    let mut again = Client::with_token(&rig, "ann").await;
    let error = again.hear().await["error"].clone();
    assert!(
        error["code"] == "unauthorized" && error["message"].as_str().unwrap().contains("revoked"),
        "{error}"
    );
    leaves(&mut again, close::UNAUTHORIZED, false).await;
    rig.stop().await;
}

/// Each token counts for what it opened, whichever came later.
#[tokio::test]
async fn a_revoked_token_of_a_room_ends_that_room_beside_a_later_token() {
    let rig = Rig::start(2, false).await;
    let mut client = Client::with_token(&rig, "ann#lobby").await;
    assert_eq!(client.hear().await["welcome"]["user"], "ann");
    client.say(json!({"sub": "secret", "token": "ann#secret"})).await;
    assert_eq!(client.hear().await["ok"], "sub");
    rig.logic.issued_at(ISSUED_AT_S + 1);
    client.say(json!({"refresh": {"token": "ann#lobby"}})).await;
    assert_eq!(client.hear().await["ok"], "refresh");
    client.say(json!({"sub": "later", "token": "ann#later"})).await;
    assert_eq!(client.hear().await["ok"], "sub");
    assert_eq!(ended(&rig, ann("", Some(ISSUED_AT_S))).await, 0, "the connection goes on");
    let lost = client.hear().await;
    assert_eq!((&lost["unsubscribed"], &lost["code"]), (&json!("secret"), &json!("unauthorized")), "{lost}");
    client.say(json!({"history": "secret"})).await;
    assert_eq!(client.hear().await["error"]["code"], "forbidden");
    client.say(json!({"history": "later"})).await;
    assert_eq!(client.hear().await["room"], "later");
    rig.stop().await;
}

/// While its token was being checked: logic had said yes.
#[tokio::test]
async fn a_verdict_that_a_revocation_overtakes_does_not_count() {
    let rig = Rig::start(1, false).await;
    rig.logic.hold_tokens(true);
    let mut client = Client::with_token(&rig, "ann").await;
    eventually("it is asked about", SOON, async || !rig.logic.asked().0.is_empty()).await;
    assert_eq!(ended(&rig, ann("", Some(ISSUED_AT_S))).await, 0, "nobody knows who it is");
    rig.logic.hold_tokens(false);
    assert_eq!(client.hear().await["error"]["code"], "unauthorized");
    leaves(&mut client, close::UNAUTHORIZED, false).await;
    rig.stop().await;
}

/// The logic that made it died before it told anybody, or did not know this gateway yet.
#[tokio::test]
async fn a_revocation_that_nobody_told_is_found() {
    let rig = Rig::start(2, false).await;
    let mut client = Client::named(&rig, "ann").await;
    let mut bob = Client::named(&rig, "bob").await;
    rig.logic.revoke("ann", ISSUED_AT_S);
    leaves(&mut client, close::REVOKED, false).await;
    stays(&mut bob).await;
    rig.stop().await;
}

/// A gateway that starts after a revocation hears nothing of it, so it believes nobody who knows less.
#[tokio::test]
async fn a_logic_that_is_behind_is_not_believed() {
    let logic = super::logic::Scripted::default();
    logic.revoke("ann", ISSUED_AT_S);
    logic.is_behind(true);
    let rig = Rig::on(logic).await;
    let mut client = Client::with_token(&rig, "ann").await;
    eventually("it is asked again", SOON, async || rig.logic.asked().0.len() > 2).await;
    rig.logic.is_behind(false);
    assert_eq!(client.hear().await["welcome"]["user"], "ann", "this one would have refused it");
    rig.stop().await;
}

/// Its answer will not come, and it does not wait for that.
#[tokio::test]
async fn a_publish_without_outcome_holds_nobody() {
    let rig = Rig::start(1, false).await;
    let mut client = Client::named(&rig, "ann").await;
    rig.logic.hold(true);
    client.say(json!({"pub": "news", "data": 1, "key": "k", "id": 1})).await;
    rig.logic.until_called().await;
    assert_eq!(ended(&rig, ann("", Some(ISSUED_AT_S))).await, 1);
    leaves(&mut client, close::REVOKED, false).await;
    rig.logic.hold(false);
    rig.stop().await;
}

async fn subscribed(client: &mut Client, room: &str) {
    client.say(json!({"sub": room})).await;
    assert_eq!(client.hear().await["ok"], "sub");
}

async fn unsubscribed(rig: &Rig, room: &str) -> u32 {
    let request = UnsubscribeRequest { user: "ann".into(), session: String::new(), room: room.into() };
    logic(rig).await.unsubscribe(request).await.unwrap().into_inner().subscriptions
}

fn said(room: &str) -> Value {
    json!({"unsubscribed": room, "code": "not_subscribed", "reason": "ended by the application"})
}

#[tokio::test]
async fn one_subscription_ends_and_the_rest_goes_on() {
    let rig = Rig::start(2, false).await;
    let mut client = Client::named(&rig, "ann").await;
    for room in ["news", "chat", "work"] {
        subscribed(&mut client, room).await;
    }
    assert_eq!(unsubscribed(&rig, "news").await, 1);
    assert_eq!(client.hear().await, said("news"));
    client.say(json!({"pub": "news", "data": 1, "key": "a", "id": 1})).await;
    assert_eq!(client.hear().await["ok"], "pub", "and no message");
    client.say(json!({"pub": "chat", "data": 1, "key": "b", "id": 2})).await;
    let heard = [client.hear().await, client.hear().await];
    assert!(heard.iter().any(|frame| frame["msg"] == "chat"), "{heard:?}");
    assert_eq!(unsubscribed(&rig, "news").await, 0);
    // All that are left; and it may come back, as its grants are what they were.
    assert_eq!(unsubscribed(&rig, "").await, 2);
    let mut heard = [client.hear().await, client.hear().await].map(|frame| frame["unsubscribed"].clone());
    heard.sort_by_key(Value::to_string);
    assert_eq!(heard, [json!("chat"), json!("work")]);
    subscribed(&mut client, "news").await;
    rig.stop().await;
}

/// Also who only reads: by events, and the stream ends as one does.
#[tokio::test]
async fn a_reader_of_events_is_taken_out_of_a_room_and_disconnected_too() {
    let rig = Rig::start(2, false).await;
    let bearer = ["Authorization: Bearer ann"];
    let mut reader = Reader::open(&rig, "/sse?room=news&room=chat", &bearer).await;
    for _ in 0..2 {
        reader.hears("ok").await;
    }
    assert_eq!(unsubscribed(&rig, "news").await, 1);
    assert_eq!(reader.hears("unsubscribed").await, said("news"));
    assert_eq!(ended(&rig, ann("", None)).await, 1);
    let bye = reader.hears("bye").await["bye"].clone();
    assert_eq!((&bye["code"], &bye["reconnect"]), (&json!(close::DISCONNECTED), &json!(true)), "{bye}");
    rig.stop().await;
}

/// Its `sub` is answered all the same.
#[tokio::test]
async fn a_subscription_that_is_not_answered_yet_is_refused() {
    let rig = Rig::start(1, false).await;
    let mut client = Client::named(&rig, "ann").await;
    rig.logic.hold_subscribes(true);
    client.say(json!({"sub": "news", "id": 7})).await;
    eventually("it is under way", SOON, async || unsubscribed(&rig, "news").await == 1).await;
    let answer = client.hear().await;
    assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!("forbidden"), &json!(7)), "{answer}");
    rig.logic.hold_subscribes(false);
    stays(&mut client).await;
    rig.stop().await;
}
