//! What is refused, or waits, above a bound.

use std::time::{Duration, Instant};

use futures::future::select_all;
use serde_json::json;
use sluice_gateway::config::Config;
use sluice_gateway::defaults::HISTORY_CALLS_MAX;
use sluice_gateway::defaults::{
    CALL_WITHIN, PRESENCE_CALLS_MAX, PUSH_STREAMS_MAX, QUESTIONS_MAX, REQUESTS_MAX, SUBS_PENDING_MAX,
};
use sluice_lifecycle::{Stage, StageOutcome};
use sluice_proto::grpc::PushRequest;
use sluice_proto::grpc::gateway_client::GatewayClient;
use sluice_proto::limits::BATCH_BYTES_MAX;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

use super::rig::{Client, Rig};

/// Questions above the bound are refused at once; the others are not lost.
#[tokio::test]
async fn a_question_too_many_is_refused_at_once() {
    let rig = Rig::start(1, false).await;
    let mut crowd = Vec::new();
    for _ in 0..=QUESTIONS_MAX / usize::from(REQUESTS_MAX) {
        crowd.push(Client::connect(&rig).await);
    }
    rig.logic.hold(true);
    let began = Instant::now();
    for client in &mut crowd {
        for id in 0..REQUESTS_MAX {
            client.say(json!({"presence": "news", "id": id})).await;
        }
    }
    let first = select_all(crowd.iter_mut().map(|client| Box::pin(client.hear()))).await.0;
    assert_eq!(first["error"]["code"], json!("unavailable"), "{first}");
    assert_eq!(first["error"]["retry"], json!(true));
    assert!(began.elapsed() < CALL_WITHIN, "at once, not by the deadline: {:?}", began.elapsed());
    rig.logic.hold(false);
    // This thread now has a thousand answers to give and to take besides: only the drain is looked at.
    assert_eq!(rig.stop().await.outcome(Stage::Drain), Some(&StageOutcome::Done));
}

/// Asks who is in a room, by ten clients while logic does not answer; they all hear, each its own answer. How many
/// questions logic heard at once, and in all.
async fn ten_ask(room: impl Fn(usize) -> String) -> (usize, usize) {
    let rig = Rig::start(1, false).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(Client::connect(&rig).await);
    }
    rig.logic.hold(true);
    for (n, client) in clients.iter_mut().enumerate() {
        client.say(json!({"presence": room(n), "id": n})).await;
        client.say(json!({"unsub": "news", "id": "read"})).await;
        // What stands behind it was read, so the question was taken.
        assert_eq!(client.hear().await["id"], json!("read"));
    }
    rig.logic.hold(false);
    for (n, client) in clients.iter_mut().enumerate() {
        let answer = client.hear().await;
        assert_eq!((&answer["ok"], &answer["id"]), (&json!("presence"), &json!(n)));
        assert_eq!(answer["room"], json!(room(n)));
    }
    let calls = rig.logic.presence_calls();
    assert!(rig.stop().await.is_clean());
    calls
}

/// A few at a time: what many ask at once does not stand before everybody else's calls in logic.
#[tokio::test]
async fn questions_about_presence_are_asked_a_few_at_a_time() {
    let (most, all) = ten_ask(|n| format!("room-{n}")).await;
    assert!((1..=PRESENCE_CALLS_MAX).contains(&most), "{most} at once");
    assert_eq!(all, 10);
}

/// Who asks before a page is read shares the read: a crowd that asks who is there costs a few calls.
#[tokio::test]
async fn who_asks_for_the_same_room_shares_a_call() {
    let (_, all) = ten_ask(|_| "news".into()).await;
    assert_eq!(all, PRESENCE_CALLS_MAX + 1, "the first ones, and one for all who came meanwhile");
}

/// A stream; it ends when what is returned is dropped.
async fn push(channel: &Channel) -> Result<mpsc::Sender<PushRequest>, Code> {
    let (sender, requests) = mpsc::channel(1);
    let reply = GatewayClient::new(channel.clone()).push(ReceiverStream::new(requests)).await;
    reply.map(|_| sender).map_err(|status| status.code())
}

/// Streams above the bound are refused; one that ends makes place.
#[tokio::test]
async fn a_push_stream_too_many_is_refused() {
    let rig = Rig::start(1, false).await;
    let mut channels = Vec::new();
    for _ in 0..8 {
        channels.push(Channel::from_shared(format!("http://{}", rig.grpc)).unwrap().connect().await.unwrap());
    }
    let mut streams = Vec::new();
    for n in 0..PUSH_STREAMS_MAX {
        streams.push(push(&channels[n % channels.len()]).await.unwrap());
    }
    assert_eq!(push(&channels[0]).await.unwrap_err(), Code::ResourceExhausted);
    drop(streams.pop());
    let again = async {
        while push(&channels[0]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(5), again).await.expect("a place is free again");
    drop((streams, channels));
    // Hundreds of streams end on one thread: as above, only the drain is looked at.
    assert_eq!(rig.stop().await.outcome(Stage::Drain), Some(&StageOutcome::Done));
}

/// Above the bound of `sub`s without answer a socket is not read; nobody else's is concerned.
#[tokio::test]
async fn a_subscription_too_many_waits_in_its_socket() {
    let rig = Rig::start(1, false).await;
    let (mut crowd, mut other) = (Client::connect(&rig).await, Client::connect(&rig).await);
    rig.logic.hold_subscribes(true);
    for n in 0..SUBS_PENDING_MAX {
        crowd.say(json!({"sub": format!("room{n}")})).await;
    }
    crowd.say(json!({"ping": {}, "id": "behind"})).await;
    other.say(json!({"ping": {}, "id": "other"})).await;
    assert_eq!(other.hear().await["id"], json!("other"));
    let unread = timeout(Duration::from_millis(200), crowd.hear()).await;
    assert!(unread.is_err(), "{unread:?}");
    rig.logic.hold_subscribes(false);
    let mut subscribed = 0;
    loop {
        let frame = crowd.hear().await;
        if frame["id"] == json!("behind") {
            break;
        }
        assert_eq!(frame["ok"], json!("sub"));
        subscribed += 1;
    }
    assert!(subscribed > 0, "the ping was read when answers had come");
    assert_eq!(rig.stop().await.outcome(Stage::Drain), Some(&StageOutcome::Done));
}

/// Of each connection one page of history is asked for at a time, of all a few; subscriptions do not wait for them.
#[tokio::test]
async fn pages_of_history_are_asked_for_one_by_one() {
    let rig = Rig::start(1, false).await;
    let mut crowd = Vec::new();
    for _ in 0..2 * HISTORY_CALLS_MAX {
        crowd.push(Client::connect(&rig).await);
    }
    rig.logic.hold_reads(true);
    let (first, others) = crowd.split_first_mut().unwrap();
    for id in 0..REQUESTS_MAX {
        first.say(json!({"history": "news", "limit": 1, "id": id})).await;
    }
    rig.logic.until_reads(1, 0).await;
    others[0].say(json!({"sub": "news", "id": "sub"})).await;
    assert_eq!(others[0].hear().await["ok"], json!("sub"));
    assert_eq!(rig.logic.reads().0, 1, "one of this connection");
    for (n, other) in others.iter_mut().enumerate() {
        other.say(json!({"history": format!("news{n}"), "limit": 1, "id": 0})).await;
    }
    rig.logic.until_reads(HISTORY_CALLS_MAX, 0).await;
    others[0].say(json!({"sub": "others", "id": "sub"})).await;
    assert_eq!(others[0].hear().await["ok"], json!("sub"), "while all pages are held");
    assert_eq!(rig.logic.reads().0, HISTORY_CALLS_MAX);
    rig.logic.hold_reads(false);
    for id in 0..REQUESTS_MAX {
        let answer = first.hear().await;
        assert_eq!((&answer["ok"], &answer["id"]), (&json!("history"), &json!(id)));
    }
    for other in &mut *others {
        assert_eq!(other.hear().await["ok"], json!("history"));
    }
    assert_eq!(rig.stop().await.outcome(Stage::Drain), Some(&StageOutcome::Done));
}

/// Many who ask for one page are answered by one read: by the one that began after the last of them asked.
#[tokio::test]
async fn a_page_that_many_ask_for_is_read_once() {
    const CROWD: usize = 12;
    let rig = Rig::start(1, false).await;
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(Client::connect(&rig).await);
    }
    rig.logic.hold_reads(true);
    for (n, client) in crowd.iter_mut().enumerate() {
        client.say(json!({"history": "news", "limit": 1, "id": n})).await;
        if n == 0 {
            rig.logic.until_reads(1, 0).await;
        }
        // Whoever hears this has been read.
        client.say(json!({"ping": {}, "id": "heard"})).await;
        assert_eq!(client.hear().await["id"], json!("heard"));
    }
    rig.logic.hold_reads(false);
    for (n, client) in crowd.iter_mut().enumerate() {
        let answer = client.hear().await;
        assert_eq!((&answer["ok"], &answer["id"]), (&json!("history"), &json!(n)), "{answer}");
    }
    assert_eq!(rig.logic.reads(), (2, 2), "the first one's, and one for all who asked while it was read");
    assert_eq!(rig.stop().await.outcome(Stage::Drain), Some(&StageOutcome::Done));
}

/// A user who has pages under way as large as its budget waits with the next ones; others do not.
#[tokio::test]
async fn one_users_pages_are_asked_for_within_its_budget() {
    let mut config = Config { shards: 1, ..Config::default() };
    config.limits.user.history_bytes = BATCH_BYTES_MAX;
    let rig = Rig::with(config, false).await;
    let (mut ann, mut too) = (Client::named(&rig, "ann").await, Client::named(&rig, "ann").await);
    let mut bob = Client::named(&rig, "bob").await;
    rig.logic.hold_reads(true);
    ann.say(json!({"history": "a", "limit": 1, "id": 1})).await;
    rig.logic.until_reads(1, 0).await;
    too.say(json!({"history": "b", "limit": 1, "id": 2})).await;
    too.say(json!({"ping": {}, "id": "heard"})).await;
    assert_eq!(too.hear().await["id"], json!("heard"));
    bob.say(json!({"history": "c", "limit": 1, "id": 3})).await;
    rig.logic.until_reads(2, 0).await;
    assert_eq!(rig.logic.rooms_read(), ["a", "c"]);
    rig.logic.hold_reads(false);
    for (client, room) in [(&mut ann, "a"), (&mut bob, "c"), (&mut too, "b")] {
        assert_eq!(client.hear().await["room"], json!(room));
    }
    assert_eq!(rig.logic.reads(), (3, 3));
    assert_eq!(rig.stop().await.outcome(Stage::Drain), Some(&StageOutcome::Done));
}

/// A client that left needs no answer: its question is dropped in logic, and those that waited are never asked.
#[tokio::test]
async fn questions_of_a_client_that_left_are_dropped() {
    let rig = Rig::start(1, false).await;
    let mut client = Client::connect(&rig).await;
    rig.logic.hold_reads(true);
    for id in 0..REQUESTS_MAX - 1 {
        client.say(json!({"history": "news", "limit": 1, "id": id})).await;
    }
    rig.logic.until_reads(1, 0).await;
    drop(client);
    rig.logic.until_reads(1, 1).await;
    assert_eq!(rig.logic.reads(), (1, 1));
    assert_eq!(rig.stop().await.outcome(Stage::Drain), Some(&StageOutcome::Done));
}
