//! Tokens of clients that stay: a new one on a connection that stands, one for a single room, and what is told of ends.

use serde_json::json;
use sluice_gateway::config::Config;
use sluice_proto::grpc::ChangeKind;
use sluice_proto::wire::close;
use sluice_service::clock::Clock;

use super::rig::{Client, Rig};

const BEGIN: i64 = 1_700_000_000_000;
const SECOND: i64 = 1_000;

async fn subscribed(client: &mut Client, room: &str) {
    client.say(json!({"sub": room})).await;
    let ok = client.hear().await;
    assert_eq!((&ok["ok"], &ok["room"]), (&json!("sub"), &json!(room)), "{ok}");
}

/// With pings that make it look at tokens each second, whatever its clock shows.
async fn rig(clock: &Clock) -> Rig {
    Rig::at(clock.clone(), Config { shards: 1, ping_every_s: 1, ..Config::default() }, false).await
}

#[tokio::test]
async fn a_new_token_changes_what_is_granted_and_ends_what_is_not() {
    let rig = Rig::start(1, false).await;
    let mut client = Client::named(&rig, "ann").await;
    subscribed(&mut client, "news").await;
    subscribed(&mut client, "lobby").await;
    // What is sent behind it is judged by what it grants.
    client.say(json!({"refresh": {"token": "ann#lobby,more"}, "id": 1})).await;
    client.say(json!({"sub": "news", "id": 2})).await;
    client.say(json!({"sub": "more", "id": 3})).await;
    assert_eq!(client.hear().await, json!({"ok": "refresh", "id": 1}));
    let ended = client.hear().await;
    assert_eq!((&ended["unsubscribed"], &ended["code"]), (&json!("news"), &json!("forbidden")), "{ended}");
    let refused = client.hear().await;
    assert_eq!((&refused["error"]["code"], &refused["id"]), (&json!("forbidden"), &json!(2)), "{refused}");
    assert_eq!(client.hear().await["id"], 3);
    // Presence knows, and the other rooms have lost nothing.
    rig.logic
        .until_report(|report| {
            report.changes.iter().any(|change| change.kind() == ChangeKind::Left && change.room == "news")
        })
        .await;
    let mut other = Client::named(&rig, "bob").await;
    for room in ["news", "lobby"] {
        other.say(json!({"pub": room, "data": 1})).await;
        assert_eq!(other.hear().await["ok"], "pub");
    }
    assert_eq!(client.hear().await["msg"], "lobby");
    assert!(rig.stop().await.is_clean());
}

#[tokio::test]
async fn a_new_token_that_is_of_no_use_leaves_everything_as_it_is() {
    let rig = Rig::start(1, false).await;
    let mut client = Client::named(&rig, "ann").await;
    subscribed(&mut client, "news").await;
    for (token, code, retry) in
        [("bob", "forbidden", false), ("bad", "unauthorized", false), ("late", "unavailable", true)]
    {
        client.say(json!({"refresh": {"token": token}, "id": token})).await;
        let refused = client.hear().await;
        assert_eq!((&refused["error"]["code"], &refused["id"]), (&json!(code), &json!(token)), "{refused}");
        assert_eq!(refused["error"]["retry"], retry, "{refused}");
    }
    client.say(json!({"connect": {"token": "ann"}})).await;
    let told = client.hear().await;
    assert!(told["error"]["message"].as_str().is_some_and(|text| text.contains("refresh")), "{told}");
    client.say(json!({"pub": "news", "data": 1})).await;
    let (one, two) = (client.hear().await, client.hear().await);
    assert!([&one, &two].iter().any(|frame| frame["msg"] == "news"), "{one} {two}");
    assert!(rig.stop().await.is_clean());
}

/// Nobody can say now who it is: it may come back, and is not sent away for good.
#[tokio::test]
async fn whose_key_may_come_yet_is_told_to_come_again() {
    let rig = Rig::start(1, false).await;
    let mut client = Client::with_token(&rig, "late").await;
    assert_eq!(client.hear().await["error"]["code"], "unavailable");
    let bye = client.hear().await;
    assert_eq!(
        (&bye["bye"]["code"], &bye["bye"]["reconnect"]),
        (&json!(close::TRY_LATER), &json!(true)),
        "{bye}"
    );
    assert!(rig.stop().await.is_clean());
}

#[tokio::test]
async fn the_end_is_told_in_time_and_a_new_token_moves_it() {
    let clock = Clock::manual(BEGIN);
    let rig = rig(&clock).await;
    rig.logic.expire_at(BEGIN + 100 * SECOND);
    let mut client = Client::named(&rig, "ann").await;
    clock.set_ms(BEGIN + 81 * SECOND);
    assert_eq!(client.hear().await, json!({"expiring": {"within_ms": 19_000}}));
    rig.logic.expire_at(BEGIN + 1_000 * SECOND);
    client.say(json!({"refresh": {"token": "ann"}, "id": 1})).await;
    assert_eq!(client.hear().await, json!({"ok": "refresh", "expires_at": BEGIN + 1_000 * SECOND, "id": 1}));
    // Past its first end, and told of the second one.
    clock.set_ms(BEGIN + 971 * SECOND);
    assert_eq!(client.hear().await, json!({"expiring": {"within_ms": 29_000}}));
    clock.set_ms(BEGIN + 1_000 * SECOND);
    assert_eq!(client.hear().await["bye"]["code"], json!(close::UNAUTHORIZED));
    assert_eq!(client.end().await, Some((close::UNAUTHORIZED, "token expired".to_owned())));
    assert!(rig.stop().await.is_clean());
}

#[tokio::test]
async fn a_token_of_its_own_opens_one_room_until_its_end() {
    let clock = Clock::manual(BEGIN);
    let rig = rig(&clock).await;
    let mut client = Client::with_token(&rig, "ann#lobby").await;
    assert_eq!(client.hear().await["welcome"]["user"], "ann");
    client.say(json!({"sub": "secret", "id": 1})).await;
    assert_eq!(client.hear().await["error"]["code"], "forbidden");
    for token in ["ann#other", "bob#secret"] {
        client.say(json!({"sub": "secret", "token": token, "id": 2})).await;
        assert_eq!(client.hear().await["error"]["code"], "forbidden", "{token}");
    }
    rig.logic.expire_at(BEGIN + 10 * SECOND);
    client.say(json!({"sub": "secret", "token": "ann#secret", "id": 3})).await;
    client.say(json!({"history": "secret", "id": 4})).await;
    let (one, two) = (client.hear().await, client.hear().await);
    assert!([&one, &two].iter().all(|frame| frame["room"] == "secret"), "{one} {two}");
    clock.set_ms(BEGIN + 10 * SECOND);
    let ended = client.hear().await;
    assert_eq!(
        (&ended["unsubscribed"], &ended["code"]),
        (&json!("secret"), &json!("unauthorized")),
        "{ended}"
    );
    client.say(json!({"unsub": "secret"})).await;
    assert_eq!(client.hear().await["error"]["code"], "not_subscribed");
    client.say(json!({"sub": "lobby"})).await;
    assert_eq!(client.hear().await["ok"], "sub", "the connection goes on");
    assert!(rig.stop().await.is_clean());
}
