//! Tokens that end: the client has another one in time, and after it was refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;
use sluice_client::{Client, Error, ErrorCode, Event, Options, Position, TokenError};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use super::{Gateway, Session, quick, until, welcome};

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(10);

/// One connection, and the token that it came with; it is not welcomed yet.
async fn accept(gateway: &Gateway) -> (Session, String) {
    let (stream, _) = gateway.0.accept().await.unwrap();
    let mut token = String::new();
    #[expect(clippy::result_large_err, reason = "the library's type")]
    let read = |request: &Request, response: Response| {
        let bearer = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        token = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
        Ok(response)
    };
    let socket = tokio_tungstenite::accept_hdr_async(stream, read).await.unwrap();
    (Session(socket), token)
}

async fn welcomed(gateway: &Gateway) -> (Session, String) {
    let (mut session, token) = tokio::time::timeout(SOON, accept(gateway)).await.unwrap();
    welcome(&mut session.0).await;
    (session, token)
}

/// A function whose tokens are numbered, of which the first `failures` fail, and how often it was asked.
fn numbered(options: Options, failures: u32) -> (Options, Arc<AtomicU32>) {
    let asked = Arc::<AtomicU32>::default();
    let count = Arc::clone(&asked);
    let options = options.token_from(move || {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            if number <= failures {
                return Err(TokenError::Later("out of order".into()));
            }
            Ok(format!("token-{number}"))
        }
    });
    (quick(options), asked)
}

#[tokio::test]
async fn a_token_that_ends_is_replaced_on_the_connection_that_stands() {
    let gateway = Gateway::bind().await;
    let (options, asked) = numbered(Options::new(gateway.url()), 0);
    let (connected, (mut session, token)) = tokio::join!(Client::connect(options), welcomed(&gateway));
    let (client, mut events) = connected.unwrap();
    assert_eq!(token, "token-1");
    session.say(json!({"expiring": {"within_ms": 5000}})).await;
    let refresh = session.hear().await;
    assert_eq!(refresh["refresh"]["token"], "token-2", "{refresh}");
    // Told again while it is under way it asks for nothing more.
    session.say(json!({"expiring": {"within_ms": 4000}})).await;
    session.say(json!({"ok": "refresh", "expires_at": 7, "id": refresh["id"]})).await;
    let told = until(&mut events, |event| matches!(event, Event::Expiring { .. })).await;
    assert!(matches!(told, Event::Expiring { within } if within == Duration::from_secs(5)), "{told:?}");
    until(&mut events, |event| matches!(event, Event::Expiring { .. })).await;
    // One that is refused, and one that cannot be checked now, is followed by another.
    session.say(json!({"expiring": {"within_ms": 5000}})).await;
    for (token, code, retry) in [("token-3", "unauthorized", false), ("token-4", "unavailable", true)] {
        let refresh = session.hear().await;
        assert_eq!(refresh["refresh"]["token"], token, "{refresh}");
        let error = json!({"code": code, "message": "no", "retry": retry});
        session.say(json!({"error": error, "id": refresh["id"]})).await;
    }
    let refresh = session.hear().await;
    assert_eq!(refresh["refresh"]["token"], "token-5", "{refresh}");
    session.say(json!({"ok": "refresh", "id": refresh["id"]})).await;
    // It is still the same connection; the next one begins with the last token.
    let (stored, ()) = tokio::join!(client.publish("news", &1), async {
        let publish = session.hear().await;
        session
            .say(json!({"ok": "pub", "room": "news", "seq": 1, "key": publish["key"], "id": publish["id"]}))
            .await;
    });
    assert_eq!(stored.unwrap().seq, 1);
    session.bye(1012, true).await;
    let (_session, token) = welcomed(&gateway).await;
    assert_eq!((token.as_str(), asked.load(Ordering::Relaxed)), ("token-5", 5));
}

#[tokio::test]
async fn a_token_that_was_refused_is_replaced_and_the_client_comes_back() {
    let gateway = Gateway::bind().await;
    let (options, asked) = numbered(Options::new(gateway.url()), 0);
    let (connected, (session, _)) = tokio::join!(Client::connect(options), welcomed(&gateway));
    let (_client, mut events) = connected.unwrap();
    session.bye(4501, false).await;
    // Two are refused at the door, the third is good.
    for number in [2, 3] {
        let (session, token) = tokio::time::timeout(SOON, accept(&gateway)).await.unwrap();
        assert_eq!(token, format!("token-{number}"));
        session.bye(4501, false).await;
    }
    let (_session, token) = welcomed(&gateway).await;
    assert_eq!((token.as_str(), asked.load(Ordering::Relaxed)), ("token-4", 4));
    let closed = until(&mut events, |event| matches!(event, Event::Closed { .. })).await;
    assert!(matches!(closed, Event::Closed { reconnects: true, code: Some(4501), .. }), "{closed:?}");
    until(&mut events, |event| matches!(event, Event::Connected(_))).await;
}

#[tokio::test]
async fn tokens_that_are_all_refused_end_the_client_and_so_does_the_first() {
    let gateway = Gateway::bind().await;
    let (options, asked) = numbered(Options::new(gateway.url()), 0);
    let refusing = async {
        let (session, _) = accept(&gateway).await;
        session.bye(4501, false).await;
    };
    let (first, ()) = tokio::join!(Client::connect(options.clone()), refusing);
    assert!(matches!(first, Err(Error::Refused(_))), "somebody waits for it: {first:?}");
    let (connected, (session, _)) = tokio::join!(Client::connect(options), welcomed(&gateway));
    let (client, mut events) = connected.unwrap();
    session.bye(4501, false).await;
    for _ in 0..5 {
        let (session, _) = tokio::time::timeout(SOON, accept(&gateway)).await.unwrap();
        session.bye(4501, false).await;
    }
    let ended = async { while events.next().await.is_some() {} };
    tokio::time::timeout(SOON, ended).await.expect("it ends");
    assert!(matches!(client.ping().await, Err(Error::Closed)));
    assert_eq!(asked.load(Ordering::Relaxed), 7, "each of them was a new one");
}

#[tokio::test]
async fn a_function_that_fails_is_asked_again_and_one_that_is_over_ends_the_client() {
    let gateway = Gateway::bind().await;
    let (options, _) = numbered(Options::new(gateway.url()), 1);
    let failed = Client::connect(options.clone()).await;
    assert!(matches!(failed, Err(Error::Token(TokenError::Later(_)))), "{failed:?}");
    let (connected, (session, _)) = tokio::join!(Client::connect(options), welcomed(&gateway));
    let (_client, mut events) = connected.unwrap();
    session.bye(4501, false).await;
    let (_session, token) = welcomed(&gateway).await;
    assert_eq!(token, "token-3");
    until(&mut events, |event| matches!(event, Event::Connected(_))).await;

    let over = quick(Options::new(gateway.url()))
        .token_from(|| async { Err(TokenError::Over("logged out".into())) });
    let refused = Client::connect(over).await;
    assert!(matches!(&refused, Err(Error::Refused(why)) if why == "logged out"), "{refused:?}");
}

#[tokio::test]
async fn a_room_that_the_server_ends_is_told_and_forgotten() {
    let gateway = Gateway::bind().await;
    let options = quick(Options::new(gateway.url()).token("t"));
    let (connected, (mut session, _)) = tokio::join!(Client::connect(options), welcomed(&gateway));
    let (client, mut events) = connected.unwrap();
    let (subscribed, _) = tokio::join!(client.subscribe("news", Position::Now), session.confirm(4));
    subscribed.unwrap();
    let refreshing = async {
        let refresh = session.hear().await;
        assert_eq!(refresh["refresh"]["token"], "less", "{refresh}");
        session.say(json!({"ok": "refresh", "expires_at": 7, "id": refresh["id"]})).await;
        session.say(json!({"unsubscribed": "news", "code": "forbidden", "reason": "not granted"})).await;
    };
    let (end, ()) = tokio::join!(client.refresh("less"), refreshing);
    assert_eq!(end.unwrap(), Some(7));
    let over = until(&mut events, |event| matches!(event, Event::Unsubscribed { .. })).await;
    let Event::Unsubscribed { room, error } = over else { panic!("{over:?}") };
    assert_eq!(
        (room.as_str(), error.code, error.message.as_str()),
        ("news", ErrorCode::Forbidden, "not granted")
    );
    // The next connection comes with the token in force, and does not ask for the room.
    session.bye(1012, true).await;
    let (mut session, token) = welcomed(&gateway).await;
    let (answered, ()) = tokio::join!(client.subscribe("other", Position::Now), async {
        let sub = session.hear().await;
        assert_eq!(sub["sub"], "other", "{sub}");
        session
            .say(json!({"ok": "sub", "room": "other", "after": 0, "head": 0, "epoch": "000000000000001f",
            "recovered": true, "id": sub["id"]}))
            .await;
    });
    answered.unwrap();
    assert_eq!(token, "less");
}
