//! The promises that survive a reconnect, without any socket.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::value::RawValue;
use sluice_proto::wire::WireLimits;
use tokio::sync::Semaphore;

use super::*;
use crate::event::{Due, Message, Scheduled, Stored};

fn welcome() -> Welcome {
    let limits = WireLimits::default();
    let (session, instance, user) = ("s".into(), "g".into(), "ann".into());
    Welcome { session, instance, user, token: None, epoch: "000000000000001f".into(), ping_s: 25, limits }
}

fn publish(state: &mut ClientState, key: &str) -> oneshot::Receiver<Result<Stored, Error>> {
    let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let (reply, answer) = oneshot::channel();
    let data = RawValue::from_string("1".into()).unwrap();
    let ask = Ask::Publish(data, reply);
    state.publish(Publish { room: "r".into(), key: key.into(), ask, _place: place });
    answer
}

fn sent(state: &mut ClientState) -> Vec<(u64, String)> {
    let read = |text: String| {
        let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
        (frame["id"].as_u64().unwrap(), frame["key"].as_str().unwrap().to_owned())
    };
    std::iter::from_fn(|| state.next_publish()).map(read).collect()
}

fn keys(state: &mut ClientState) -> Vec<String> {
    sent(state).into_iter().map(|(_, key)| key).collect()
}

/// A subscription from `after`, confirmed.
fn subscribed(state: &mut ClientState, after: u64) {
    let (reply, _answer) = oneshot::channel();
    state.subscribe("r".into(), Position::After(after), false, reply).unwrap();
    let id = state.last_id;
    let ok = format!(
        r#"{{"ok":"sub","room":"r","after":{after},"head":9,"epoch":"000000000000001f","recovered":true,"id":{id}}}"#
    );
    assert_eq!(state.frame(&ok, Source::Active), Then::Nothing);
}

fn msg(seq: u64) -> String {
    format!(r#"{{"msg":"r","seq":{seq},"from":"bob","at":1,"data":{{}}}}"#)
}

#[test]
fn after_a_fence_everything_unanswered_goes_first_and_in_order() {
    let mut state = ClientState::default();
    state.attach(welcome());
    let mut answers: Vec<_> = ["a", "b", "c"].map(|key| publish(&mut state, key)).into();
    let ids = sent(&mut state);
    assert_eq!(
        state.frame(&format!(r#"{{"ok":"pub","room":"r","seq":7,"id":{}}}"#, ids[1].0), Source::Active),
        Then::Nothing
    );
    let retry =
        format!(r#"{{"error":{{"code":"unavailable","message":"m","retry":true}},"id":{}}}"#, ids[0].0);
    assert_eq!(state.frame(&retry, Source::Active), Then::Fenced);
    publish(&mut state, "d");
    assert_eq!(keys(&mut state), [""; 0], "nothing new behind a fence");
    assert_eq!(answers[1].try_recv().unwrap().unwrap(), Stored { seq: 7, key: "b".into() });
    assert!(answers[0].try_recv().is_err(), "retry:true is no outcome");
    state.attach(welcome());
    assert_eq!(keys(&mut state), ["a", "c", "d"]);
}

#[test]
fn a_final_refusal_is_an_outcome() {
    let mut state = ClientState::default();
    state.attach(welcome());
    let mut answer = publish(&mut state, "a");
    let id = sent(&mut state)[0].0;
    let conflict = format!(r#"{{"error":{{"code":"conflict","message":"m","retry":false}},"id":{id}}}"#);
    assert_eq!(state.frame(&conflict, Source::Old), Then::Nothing);
    assert!(matches!(answer.try_recv().unwrap(), Err(Error::Answer(_))));
    state.attach(welcome());
    assert_eq!(keys(&mut state), [""; 0]);
}

#[test]
fn a_subscription_resumes_after_the_last_message_seen() {
    let mut state = ClientState::default();
    state.attach(welcome());
    subscribed(&mut state, 4);
    state.frame(&msg(5), Source::Active);
    state.frame(r#"{"skipped":"r","from":6,"to":8}"#, Source::Active);
    state.frame(&msg(9), Source::Active);
    state.frame(&msg(11), Source::Active);
    state.frame(&msg(10), Source::Old);
    let seen: Vec<&Event> = state.events.iter().skip(1).collect();
    assert!(
        matches!(
            seen[..],
            [
                Event::Message(Message { seq: 5, .. }),
                Event::Skipped { from: 6, to: 8, .. },
                Event::Message(Message { seq: 9, .. }),
                Event::OutOfOrder { expected: 10, .. }
            ]
        ),
        "{seen:?}"
    );
    let frames = state.attach(welcome());
    assert_eq!(frames.len(), 1);
    assert!(frames[0].contains(r#""after":9,"epoch":"000000000000001f""#), "{}", frames[0]);
    state.frame(&msg(10), Source::Active);
    assert!(matches!(state.events.back(), Some(Event::Connected(_))), "nothing precedes the answer");
}

#[test]
fn a_new_epoch_is_told_and_remembered() {
    let mut state = ClientState::default();
    state.attach(welcome());
    subscribed(&mut state, 4);
    let moved = r#"{"ok":"sub","room":"r","after":2,"head":2,"epoch":"00000000000000ff","recovered":false}"#;
    state.frame(moved, Source::Active);
    assert!(matches!(
        state.events.back(),
        Some(Event::Resumed(Subscribed { recovered: false, after: 2, .. }))
    ));
    assert!(state.attach(welcome())[0].contains(r#""after":2,"epoch":"00000000000000ff""#));
}

#[test]
fn a_subscription_that_cannot_be_served_now_is_tried_again() {
    let mut state = ClientState::default();
    state.attach(welcome());
    subscribed(&mut state, 4);
    state.attach(welcome());
    let id = state.last_id;
    let later = format!(r#"{{"error":{{"code":"unavailable","message":"later","retry":true}},"id":{id}}}"#);
    assert_eq!(state.frame(&later, Source::Active), Then::Reconnect("later".into()));
    assert_eq!(state.attach(welcome()).len(), 1);
    let id = state.last_id;
    let never = format!(r#"{{"error":{{"code":"forbidden","message":"no","retry":false}},"id":{id}}}"#);
    assert_eq!(state.frame(&never, Source::Active), Then::Nothing);
    assert!(matches!(state.events.back(), Some(Event::Unsubscribed { .. })));
    assert_eq!(state.attach(welcome()).len(), 0);
}

proptest! {
    /// Whatever is answered on whichever connection: what is sent on the next one is exactly what has no answer, in order.
    #[test]
    fn resends_are_what_is_unanswered_in_order(rounds in prop::collection::vec((0_usize..6, prop::collection::vec(any::<(prop::sample::Index, bool)>(), 0..4)), 1..8)) {
        let mut state = ClientState::default();
        let mut unanswered: Vec<String> = Vec::new();
        let mut n = 0;
        for (new, answers) in rounds {
            state.attach(welcome());
            for _ in 0..new {
                n += 1;
                unanswered.push(format!("k{n}"));
                publish(&mut state, &format!("k{n}"));
            }
            let frames = sent(&mut state);
            prop_assert_eq!(frames.iter().map(|(_, key)| key.clone()).collect::<Vec<_>>(), unanswered.clone());
            for (which, old) in answers {
                if frames.is_empty() { break; }
                let (id, key) = which.get(&frames);
                let source = if old { Source::Old } else { Source::Active };
                state.frame(&format!(r#"{{"ok":"pub","room":"r","seq":1,"id":{id}}}"#), source);
                unanswered.retain(|other| other != key);
            }
        }
    }
}

#[test]
fn every_step_is_told_in_its_place_to_whoever_asked_for_it() {
    for detailed in [false, true] {
        let mut state = ClientState::new(detailed);
        state.attach(welcome());
        subscribed(&mut state, 4);
        state.asked("r"); // as the driver does when it has sent it
        state.frame(&msg(5), Source::Active);
        state.attach(welcome());
        let (reply, _answer) = oneshot::channel();
        state.request(PendingRequest::Unsubscribe("r".into(), reply)).unwrap();
        state.frame(&msg(6), Source::Active);
        let told: Vec<String> = state.events.iter().map(|event| format!("{event:?}")).collect();
        let told: Vec<&str> = told.iter().map(|text| text.split([' ', '(']).next().unwrap()).collect();
        let all = ["Connected", "Subscribed", "Message", "Connected", "Asked", "Left"];
        if detailed {
            assert_eq!(told, all);
        } else {
            assert_eq!(told, ["Connected", "Message", "Connected"]);
        }
    }
}

/// What is for later is sent again like a publish, in its place, and so is what takes it back.
#[test]
fn a_schedule_and_its_cancel_survive_a_reconnect_in_order() {
    let mut state = ClientState::default();
    state.attach(welcome());
    let places = Arc::new(Semaphore::new(2));
    let ask = |state: &mut ClientState, ask: Ask| {
        let place = Arc::clone(&places).try_acquire_owned().unwrap();
        state.publish(Publish { room: "r".into(), key: "k".into(), ask, _place: place });
    };
    let data = RawValue::from_string("1".into()).unwrap();
    let (reply, mut scheduled) = oneshot::channel();
    ask(&mut state, Ask::Schedule(data, Due::In(Duration::from_millis(5)), reply));
    let (reply, mut cancelled) = oneshot::channel();
    ask(&mut state, Ask::Cancel(reply));
    let frames = |state: &mut ClientState| std::iter::from_fn(|| state.next_publish()).collect::<Vec<_>>();
    let first = frames(&mut state);
    assert_eq!(first[0], r#"{"pub":"r","delay_ms":5,"key":"k","data":1,"id":1}"#);
    assert_eq!(first[1], r#"{"cancel":"r","key":"k","id":2}"#);
    state.attach(welcome());
    assert_eq!(frames(&mut state), first);
    state.frame(r#"{"ok":"pub","room":"r","due":9,"key":"k","id":1}"#, Source::Active);
    let waits = Scheduled::Waits { due_ms: 9, key: "k".into() };
    assert_eq!(scheduled.try_recv().unwrap().unwrap(), waits);
    state.frame(r#"{"ok":"cancel","room":"r","key":"k","cancelled":false,"id":2}"#, Source::Active);
    assert!(!cancelled.try_recv().unwrap().unwrap());
}

#[test]
fn who_watches_hears_who_comes_and_goes_and_when_to_ask_again() {
    let mut state = ClientState::default();
    state.attach(welcome());
    let (reply, _answer) = oneshot::channel();
    let sub = state.subscribe("r".into(), Position::After(4), true, reply).unwrap();
    assert!(sub.contains(r#""presence":true"#), "{sub}");
    let join = r#"{"join":"r","user":"bob","at":5,"info":{"n":1}}"#;
    state.frame(join, Source::Active);
    let ok = |id: u64| {
        format!(
            r#"{{"ok":"sub","room":"r","after":4,"head":9,"epoch":"000000000000001f","recovered":true,"id":{id}}}"#
        )
    };
    state.frame(&ok(state.last_id), Source::Active);
    for frame in [join, r#"{"leave":"r","user":"bob","at":6}"#, r#"{"stale":"r"}"#] {
        state.frame(frame, Source::Active);
        state.frame(frame, Source::Old);
        state.frame(&frame.replace("\"r\"", "\"other\""), Source::Active);
    }
    let again = state.attach(welcome());
    assert!(again[0].contains(r#""presence":true"#), "{again:?}");
    state.frame(&ok(state.last_id), Source::Active);
    let told: Vec<String> = state.events.iter().map(|event| format!("{event:?}")).collect();
    let told: Vec<&str> = told.iter().map(|text| text.split([' ', '(']).next().unwrap()).collect();
    let all = ["Connected", "UserJoined", "UserLeft", "Stale", "Connected", "Resumed", "Stale"];
    assert_eq!(told, all, "before its first answer nothing; after a reconnect it is to ask again");
}

#[test]
fn a_subscription_that_the_server_ended_is_told_and_not_resumed() {
    let mut state = ClientState::default();
    state.attach(welcome());
    let (reply, _answer) = oneshot::channel();
    state.subscribe("r".into(), Position::After(4), false, reply).unwrap();
    let ended = r#"{"unsubscribed":"r","reason":"ended by the application"}"#;
    state.frame(ended, Source::Active);
    let id = state.last_id;
    let ok = format!(
        r#"{{"ok":"sub","room":"r","after":4,"head":9,"epoch":"000000000000001f","recovered":true,"id":{id}}}"#
    );
    state.frame(&ok, Source::Active);
    state.frame(ended, Source::Old);
    state.frame(ended, Source::Active);
    state.frame(ended, Source::Active);
    let told: Vec<&Event> = state.events.iter().skip(1).collect();
    let [Event::Unsubscribed { room, error }] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((room.as_str(), error.message.as_str()), ("r", "ended by the application"));
    assert_eq!(state.attach(welcome()), Vec::<String>::new());
}
