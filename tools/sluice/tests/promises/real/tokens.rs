//! Tokens that end soon, and a provider that rotates its keys, is away and answers slowly: nobody loses a connection, nobody
//! is refused who should be let in, and nobody is let in who should not be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sluice_client::raw::{Frame, Handshake, Socket};
use sluice_client::{
    Client, Error, ErrorCode, Event, Events, Options as ClientOptions, Position, TokenError,
};
use sluice_launcher::Options;
use sluice_launcher::provider::{Answers, KeyType, Provider};
use sluice_launcher::token::{Claims, Grants, SigningKey};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

use super::Real;
use crate::kit::{Ground, SOON, json};

/// How long tokens are good; services add half a minute for clocks that differ.
const TOKEN_S: u64 = 5;
const LEEWAY_S: u64 = 30;
/// How often logic fetches the keys.
const REFRESH_S: u64 = 2;
/// A slow provider answers after so long.
const SLOW: Duration = Duration::from_secs(2);
/// A key that is withdrawn counts no longer: until it is fetched again, slowly, after one that was under way.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(2 * (REFRESH_S + SLOW.as_secs()) + 2);

/// What the provider goes through, from the beginning.
#[derive(Clone, Copy)]
struct Scene {
    lasts: Duration,
    rotates: Duration,
    away: (Duration, Duration),
    slow: (Duration, Duration),
}

/// What was counted.
#[derive(Default)]
struct Counts {
    refreshed: AtomicU64,
    /// No verdict was possible for a moment: the client came again.
    put_off: AtomicU64,
    let_in: AtomicU64,
    kept_out: AtomicU64,
    messages: AtomicU64,
    /// Ends that were told to who is not eager.
    told: AtomicU64,
}

/// A key that signed before, and since when it is withdrawn.
struct Withdrawn {
    key: SigningKey,
    since: Instant,
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims(user: &str, exp: u64) -> Claims {
    let all = || vec!["*".to_owned()];
    let grants = Grants { sub: all(), publish: all() };
    Claims { sub: user.into(), exp, grants, iss: None, aud: None, info: None, iat: None }
}

fn token(provider: &Provider, user: &str) -> String {
    provider.sign(&claims(user, now_s() + TOKEN_S)).unwrap()
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// One that stays, and must not notice anything: it asks for tokens when it needs them, and if it is `eager` at other times
/// too.
async fn stays(
    (user, eager): (String, bool),
    url: String,
    provider: Arc<Provider>,
    counts: Arc<Counts>,
    mut over: watch::Receiver<bool>,
) {
    let (issuer, name) = (Arc::clone(&provider), user.clone());
    let options = ClientOptions::new(url).token_from(move || {
        let token = issuer.sign(&claims(&name, now_s() + TOKEN_S));
        async move { token.map_err(|error| TokenError::Later(error.to_string())) }
    });
    let (client, mut events) = Client::connect(options).await.unwrap();
    client.subscribe("news", Position::Now).await.unwrap();
    let mut turns = interval(Duration::from_millis(1_500));
    loop {
        tokio::select! {
            biased;
            () = ended(&mut over) => break,
            event = events.next() => judge(&user, event.expect("the client goes on"), &counts),
            _ = turns.tick() => {
                let new = eager.then(|| token(&provider, &user));
                turn(&user, &client, &mut events, new, &counts).await;
            }
        }
    }
    client.close().await;
}

/// Not the value itself, which holds a lock.
async fn ended(over: &mut watch::Receiver<bool>) {
    over.wait_for(|over| *over).await.ok();
}

fn judge(user: &str, event: Event, counts: &Counts) {
    let bad = matches!(
        event,
        Event::Closed { .. } | Event::Unsubscribed { .. } | Event::OutOfOrder { .. } | Event::Bye(_)
    );
    assert!(!bad, "{user}: {event:?}");
    if matches!(event, Event::Message(_)) {
        add(&counts.messages);
    }
    if matches!(event, Event::Expiring { .. }) {
        add(&counts.told);
    }
}

/// A publish, and perhaps a token that nobody asked for. Events are read meanwhile.
async fn turn(user: &str, client: &Client, events: &mut Events, new: Option<String>, counts: &Counts) {
    let speaker = client.clone();
    let work = async move {
        speaker.publish("news", user).await.expect("stored");
        match new {
            Some(new) => speaker.refresh(&new).await.map(Some),
            None => Ok(None),
        }
    };
    let mut work = std::pin::pin!(timeout(SOON, work));
    let refreshed = loop {
        tokio::select! {
            refreshed = &mut work => break refreshed.expect("an answer in time"),
            event = events.next() => judge(user, event.expect("the client goes on"), counts),
        }
    };
    match refreshed {
        Ok(None) => {}
        Ok(Some(end)) => {
            assert!(end.is_some(), "{user}: the new end is told");
            add(&counts.refreshed);
        }
        Err(Error::Answer(error)) if error.code == ErrorCode::Unavailable && error.retry => {
            add(&counts.put_off)
        }
        Err(error) => panic!("{user} should be let in: {error}"),
    }
}

/// What a connection with this token hears first.
async fn first_word(url: &str, token: &str) -> Value {
    let mut socket = Socket::connect(&Handshake::new(url).token(token)).await.unwrap();
    match timeout(SOON, socket.next()).await.expect("a word in time") {
        Frame::Text(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?} instead of a word"),
    }
}

/// New ones come all the time: each is let in, at once or when it comes again.
async fn come(url: String, provider: Arc<Provider>, counts: Arc<Counts>, mut over: watch::Receiver<bool>) {
    let mut number = 0_u64;
    while !*over.borrow() {
        number += 1;
        let user = format!("guest-{number}");
        let began = Instant::now();
        loop {
            let word = first_word(&url, &token(&provider, &user)).await;
            if word["welcome"]["user"] == user {
                add(&counts.let_in);
                break;
            }
            assert_eq!(word["error"]["retry"], true, "{user} should be let in: {word}");
            add(&counts.put_off);
            assert!(began.elapsed() < SOON * 2, "{user} was put off for too long: {word}");
            sleep(Duration::from_millis(500)).await;
        }
        timeout(Duration::from_millis(300), ended(&mut over)).await.ok();
    }
}

/// Tokens that are good for nothing, of every kind.
async fn intrude(url: &str, provider: &Provider, withdrawn: &[Withdrawn], counts: &Counts) {
    let good = || claims("intruder", now_s() + TOKEN_S);
    let (kid, key) = provider.signing_key().unwrap();
    let stranger = || SigningKey::from_pkcs8(&rcgen_key()).unwrap();
    let mut tokens = vec![
        key.sign(&claims("intruder", now_s() - LEEWAY_S - 5)).unwrap(),
        stranger().named(&kid).sign(&good()).unwrap(),
        stranger().named("nobody's").sign(&good()).unwrap(),
        SigningKey::secret(&serde_json::to_string(&json!({"kid": kid})).unwrap())
            .named(&kid)
            .sign(&good())
            .unwrap(),
        "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJpbnRydWRlciJ9.".to_owned(),
    ];
    let gone = withdrawn.iter().filter(|key| key.since.elapsed() > WITHDRAWN_WITHIN);
    tokens.extend(gone.map(|gone| gone.key.sign(&good()).unwrap()));
    for token in tokens {
        let word = first_word(url, &token).await;
        assert!(word.get("welcome").is_none() && word["error"].is_object(), "nobody is let in: {word}");
        add(&counts.kept_out);
    }
}

fn rcgen_key() -> Vec<u8> {
    rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_der()
}

/// What the provider goes through while clients stay and come, and intruders try.
async fn play(scene: Scene) {
    let provider = Arc::new(Provider::start().await.unwrap());
    let options = Options { gateways: 2, logics: 2, ..Options::default() };
    let options = options.set(&format!("logic.token_keys.jwks_url={}", provider.url())).unwrap();
    let options = options.set(&format!("logic.token_keys.jwks_refresh_s={REFRESH_S}")).unwrap();
    let cluster = Real::with(options.set("logic.anonymous=false").unwrap()).await;
    let (counts, over) = (Arc::<Counts>::default(), watch::Sender::new(false));
    let mut people = JoinSet::new();
    for n in 0..16 {
        let (provider, counts) = (Arc::clone(&provider), Arc::clone(&counts));
        let who = (format!("ann-{n}"), n < 8);
        people.spawn(stays(who, cluster.ws(n % 2), provider, counts, over.subscribe()));
    }
    for at in 0..2 {
        let (provider, counts) = (Arc::clone(&provider), Arc::clone(&counts));
        people.spawn(come(cluster.ws(at), provider, counts, over.subscribe()));
    }
    let began = Instant::now();
    let (mut withdrawn, mut rotated) = (Vec::new(), began);
    let mut before: Option<SigningKey> = None;
    let within = |(from, to): (Duration, Duration)| (from..to).contains(&began.elapsed());
    while began.elapsed() < scene.lasts {
        let answers = match (within(scene.away), within(scene.slow)) {
            (true, _) => Answers::Not,
            (false, true) => Answers::After(SLOW),
            (false, false) => Answers::AtOnce,
        };
        provider.answer(answers);
        // One that is away rotates nothing: what nobody can fetch nobody could verify.
        if answers != Answers::Not && rotated.elapsed() >= scene.rotates {
            let (_, key) = provider.signing_key().unwrap();
            let of = if withdrawn.len() % 2 == 0 { KeyType::P256 } else { KeyType::Ed25519 };
            provider.rotate(of).unwrap();
            // The one before the last is published no longer.
            withdrawn.extend(before.replace(key).map(|key| Withdrawn { key, since: Instant::now() }));
            rotated = Instant::now();
        }
        let known = if answers == Answers::Not { &[][..] } else { &withdrawn };
        intrude(&cluster.ws(withdrawn.len() % 2), &provider, known, &counts).await;
        assert!(people.try_join_next().is_none_or(|ended| panic!("somebody ended: {ended:?}")));
        sleep(Duration::from_millis(500)).await;
    }
    over.send_replace(true);
    while let Some(ended) = people.join_next().await {
        ended.unwrap();
    }
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "refreshed {}, ends told {}, put off {}, let in {}, kept out {}, messages {}, keys fetched {}",
        count(&counts.refreshed),
        count(&counts.told),
        count(&counts.put_off),
        count(&counts.let_in),
        count(&counts.kept_out),
        count(&counts.messages),
        provider.asked()
    );
    for counted in [&counts.refreshed, &counts.let_in, &counts.kept_out, &counts.messages] {
        assert!(count(counted) > 20, "it was hardly tried");
    }
    assert!(count(&counts.told) >= 8, "each of those who are not eager was told of an end");
    cluster.stop().await;
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The ten minutes below in forty seconds: long enough that every token ends once.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_seconds_and_a_provider_in_trouble_lose_nobody() {
    play(Scene { lasts: secs(42), rotates: secs(6), away: (secs(6), secs(16)), slow: (secs(18), secs(32)) })
        .await;
}

/// `make tokens`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten minutes"]
async fn ten_minutes_of_short_tokens_lose_nobody() {
    let (away, slow) = ((secs(120), secs(180)), (secs(240), secs(480)));
    play(Scene { lasts: secs(600), rotates: secs(20), away, slow }).await;
}

/// Grants that a new token has not: on the real services, through to presence.
#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_left_with_the_grant_for_it() {
    let cluster = Real::start(1, 1, 1).await;
    let grants = |rooms: &[&str]| Grants {
        sub: rooms.iter().map(|room| (*room).into()).collect(),
        publish: vec!["*".into()],
    };
    let handshake =
        Handshake::new(cluster.ws(0)).token(cluster.token_with("ann", grants(&["news", "lobby"])));
    let mut ann = Socket::connect(&handshake).await.unwrap();
    assert_eq!(json(&mut ann).await["welcome"]["user"], "ann");
    for room in ["news", "lobby"] {
        ann.send(json!({"sub": room}).to_string()).await.unwrap();
        assert_eq!(json(&mut ann).await["room"], room);
    }
    let less = cluster.token_with("ann", grants(&["lobby"]));
    ann.send(json!({"refresh": {"token": less}, "id": 1}).to_string()).await.unwrap();
    let answer = json(&mut ann).await;
    assert!(answer["ok"] == "refresh" && answer["expires_at"].is_i64(), "{answer}");
    assert_eq!(json(&mut ann).await["unsubscribed"], "news");
    let one_room = cluster.token_with("ann", grants(&["secret"]));
    ann.send(json!({"sub": "secret", "token": one_room, "id": 2}).to_string()).await.unwrap();
    assert_eq!(json(&mut ann).await["room"], "secret");
    let mut bob = crate::kit::socket_of(&cluster, "bob", 0).await;
    for (room, users) in [("news", 0), ("lobby", 1), ("secret", 1)] {
        crate::kit::until(room, SOON, async || {
            bob.send(json!({"presence": room}).to_string()).await.unwrap();
            json(&mut bob).await["count"] == users
        })
        .await;
    }
    cluster.stop().await;
}
