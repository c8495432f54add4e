//! What a session counts: what is not answered yet holds its reading and its leaving.

mod tokens;

use sluice_proto::ids::SessionId;

use super::*;
use crate::address::Address;
use crate::uplink::{Answered, Later, Outcome, Publish};

#[derive(Default)]
struct Frames(Vec<String>);

impl Sink for Frames {
    fn frame(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        write(&mut bytes);
        self.0.push(String::from_utf8(bytes).unwrap());
    }
}

impl Frames {
    fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }
}

const LIMITS: SessionLimits = SessionLimits {
    unanswered_max: 3,
    unanswered_bytes_max: 10_000,
    bad_frames_max: 2,
    not_after_ms: 500,
    expiring_ms: 30_000,
};

fn facts() -> WelcomeFacts {
    WelcomeFacts {
        instance: InstanceId::parse("gateway-a").unwrap(),
        epoch: Epoch(1),
        ping_s: 25,
        limits: WireLimits::default(),
    }
}

fn ann(anonymous: bool) -> Identity {
    Identity {
        user: UserId::parse("ann").unwrap(),
        grants: sluice_proto::grpc::Grants { sub: vec!["*".into()], r#pub: vec!["*".into()] }.into(),
        anonymous,
        token: anonymous.then(|| "t".into()),
        expires_at_ms: None,
        issued_at_s: None,
        info: None,
    }
}

fn link() -> Arc<Link> {
    Link::new(SessionId(1), Address { shard: 0, slot: 0, generation: 0 })
}

fn open_with(limits: SessionLimits) -> (Session, Frames) {
    let (mut session, mut out) = (Session::new(link(), Arc::new(limits)), Frames::default());
    assert!(!session.wants_frames(), "not before it is known who this is");
    session.identified(Ok(ann(false)), false, &facts(), &mut out);
    assert!(out.last().starts_with(r#"{"welcome":"#) && session.wants_frames());
    (session, out)
}

fn publish(session: &mut Session, out: &mut Frames) -> Publish {
    let Todo::Publish(publish) = session.on_text(r#"{"pub":"news","data":1,"id":7}"#, 1_000, out) else {
        panic!("{}", out.last())
    };
    publish
}

#[test]
fn a_session_with_too_much_unanswered_is_not_read() {
    let (mut session, mut out) = open_with(LIMITS);
    let publishes: Vec<_> = (0..3).map(|_| publish(&mut session, &mut out)).collect();
    assert_eq!((session.unanswered(), session.wants_frames()), (3, false));
    let keys: Vec<_> = publishes.iter().map(|publish| publish.key.as_str()).collect();
    assert!(
        keys.iter().all(|key| key.starts_with('~')) && keys[0] != keys[1] && keys[1] != keys[2],
        "{keys:?}"
    );
    assert_eq!(publishes[0].not_after_ms, 1_500);
    let answered = Answered { publish: publishes[0].clone(), outcome: Outcome::Stored { seq: 4, at_ms: 1 } };
    session.answered(&answered, &mut out);
    assert_eq!((session.unanswered(), session.wants_frames()), (2, true));
    assert_eq!(out.last(), r#"{"ok":"pub","room":"news","seq":4,"id":7}"#);
}

#[test]
fn a_session_with_too_many_bytes_unanswered_is_not_read() {
    let (mut session, mut out) = open_with(SessionLimits { unanswered_bytes_max: 1, ..LIMITS });
    let publish = publish(&mut session, &mut out);
    assert!(!session.wants_frames());
    session.answered(&Answered { publish, outcome: Outcome::Conflict }, &mut out);
    assert!(session.wants_frames() && out.last().contains(r#""code":"conflict""#), "{}", out.last());
}

#[test]
fn who_leaves_says_bye_once_and_only_when_everything_has_its_outcome() {
    let (mut session, mut out) = open_with(LIMITS);
    let owed = publish(&mut session, &mut out);
    assert!(session.take_bye(9).is_none(), "it does not leave");
    session.end(Ending::Unchecked, 250);
    session.end(Ending::BadFrames(1), 1);
    assert!(session.take_bye(9).is_none() && session.wants_frames(), "it reads on, to refuse");
    assert!(matches!(session.on_text(r#"{"pub":"news","data":1}"#, 0, &mut out), Todo::Nothing));
    assert!(out.last().contains(r#""code":"not_sent""#) && out.last().contains(r#""retry":true"#));
    assert!(matches!(session.on_text(r#"{"sub":"news"}"#, 0, &mut out), Todo::Nothing));
    assert!(out.last().contains(r#""code":"unavailable""#));
    session.answered(&Answered { publish: owed, outcome: Outcome::Duplicate { seq: 2 } }, &mut out);
    let (ending, bye) = session.take_bye(9).expect("all is answered");
    assert!(matches!(ending, Ending::Unchecked), "the first reason stands");
    assert_eq!(bye.reconnect_ms, Some(250));
    assert!(session.take_bye(9).is_none() && !session.wants_frames());
}

#[test]
fn a_fence_makes_it_leave_with_the_time_to_stay_away() {
    let (mut session, mut out) = open_with(LIMITS);
    let owed = publish(&mut session, &mut out);
    session.link().fence();
    assert!(session.take_bye(77).is_none());
    session.answered(&Answered { publish: owed, outcome: Outcome::Unknown }, &mut out);
    let (ending, bye) = session.take_bye(77).expect("the fence is a reason");
    assert!(matches!(ending, Ending::Resend));
    assert_eq!(bye.reconnect_ms, Some(77));
}

#[test]
fn nothing_is_answered_after_bye() {
    let (mut session, mut out) = open_with(LIMITS);
    let late = publish(&mut session, &mut out);
    session.answered(&Answered { publish: late.clone(), outcome: Outcome::NotSent }, &mut out);
    session.end(Ending::Unchecked, 0);
    session.take_bye(0).expect("nothing is owed");
    let before = out.0.len();
    session.answered(&Answered { publish: late, outcome: Outcome::Stored { seq: 1, at_ms: 1 } }, &mut out);
    assert_eq!(out.0.len(), before);
}

#[test]
fn bad_frames_in_a_row_end_it_and_a_good_one_begins_the_count_anew() {
    let (mut session, mut out) = open_with(LIMITS);
    session.on_text("hello", 0, &mut out);
    session.on_text(r#"{"ping":1}"#, 0, &mut out);
    session.on_text("hello", 0, &mut out);
    assert!(session.take_bye(0).is_none());
    session.on_text("hello", 0, &mut out);
    assert!(matches!(session.take_bye(0), Some((Ending::BadFrames(2), _))));
}

#[test]
fn who_is_not_known_may_only_connect_and_who_is_anonymous_still_may() {
    let (mut session, mut out) = (Session::new(link(), Arc::new(LIMITS)), Frames::default());
    session.identified(Err(NotIdentified::Invalid("no".into())), true, &facts(), &mut out);
    assert!(session.waits_for_connect() && session.wants_frames() && out.0.is_empty());
    assert!(matches!(session.on_text(r#"{"sub":"news"}"#, 0, &mut out), Todo::Nothing));
    assert!(out.last().contains(r#""code":"unauthorized""#));
    let todo = session.on_text(r#"{"connect":{"token":"x"},"id":5}"#, 0, &mut out);
    assert!(matches!(todo, Todo::Authenticate { token } if token == "x"));
    assert!(!session.wants_frames() && !session.waits_for_connect());
    session.identified(Ok(ann(true)), false, &facts(), &mut out);
    assert!(out.last().contains(r#""token":"t""#) && out.last().contains(r#""id":5"#), "{}", out.last());
    let todo = session.on_text(r#"{"connect":{"token":"y"}}"#, 0, &mut out);
    assert!(matches!(todo, Todo::Authenticate { token } if token == "y"));
    session.identified(Ok(ann(false)), false, &facts(), &mut out);
    assert!(matches!(session.on_text(r#"{"connect":{"token":"z"}}"#, 0, &mut out), Todo::Nothing));
    assert!(out.last().contains(r#""code":"bad_request""#));
}

#[test]
fn who_cannot_be_checked_comes_back_and_who_is_refused_does_not() {
    for (error, code, reconnect_ms) in [
        (NotIdentified::Unavailable, "unavailable", Some(UNCHECKED_AGAIN_MS)),
        (NotIdentified::TooMany(7), "unavailable", Some(7)),
        (NotIdentified::Invalid("expired".into()), "unauthorized", None),
    ] {
        let (mut session, mut out) = (Session::new(link(), Arc::new(LIMITS)), Frames::default());
        session.identified(Err(error), false, &facts(), &mut out);
        assert!(out.last().contains(&format!(r#""code":"{code}""#)), "{}", out.last());
        let (_, bye) = session.take_bye(0).expect("it leaves");
        assert_eq!((bye.reconnect, bye.reconnect_ms), (reconnect_ms.is_some(), reconnect_ms));
    }
}

/// A session whose token was not given: only `connect` makes it known.
fn unknown() -> (Session, Frames) {
    let (mut session, mut out) = (Session::new(link(), Arc::new(LIMITS)), Frames::default());
    session.identified(Err(NotIdentified::Invalid("no".into())), true, &facts(), &mut out);
    (session, out)
}

#[test]
fn before_welcome_only_so_many_bytes_are_read_and_after_it_they_are_not_counted() {
    let max = UNIDENTIFIED_BYTES_MAX as usize;
    let (mut session, _) = unknown();
    session.on_bytes(max - 1);
    session.on_bytes(1);
    assert!(!session.floods() && session.take_bye(0).is_none());
    session.on_bytes(1);
    assert!(session.floods() && matches!(session.take_bye(0), Some((Ending::NotConnected, _))));
    let (mut session, _) = open_with(LIMITS);
    session.on_bytes(max + 1);
    assert!(!session.floods() && session.take_bye(0).is_none());
}

#[test]
fn before_welcome_the_second_frame_that_is_no_connect_ends_it_whatever_it_is() {
    for frames in [[r#"{"sub":"news"}"#, "hello"], ["hello", r#"{"sub":"news"}"#]] {
        let (mut session, mut out) = unknown();
        session.on_text(frames[0], 0, &mut out);
        assert!(session.take_bye(0).is_none());
        session.on_text(frames[1], 0, &mut out);
        assert!(matches!(session.take_bye(0), Some((Ending::NotConnected, _))), "{frames:?}");
    }
}

#[test]
fn who_is_ended_while_it_is_checked_is_told_so_and_the_verdict_comes_too_late() {
    let (mut session, mut out) = (Session::new(link(), Arc::new(LIMITS)), Frames::default());
    assert!(session.is_being_checked() && !session.has_left());
    session.end(Ending::Unchecked, 5);
    assert!(!session.is_being_checked() && session.wants_frames(), "it reads on, to refuse");
    session.identified(Ok(ann(false)), false, &facts(), &mut out);
    assert!(out.0.is_empty() && session.identity().is_none());
    session.take_bye(0).expect("it leaves");
    assert!(session.has_left() && !session.wants_frames());
}

#[test]
fn who_is_known_stays_so_when_it_is_ended() {
    let (mut session, _) = open_with(LIMITS);
    assert!(!session.is_being_checked() && !session.waits_for_connect());
    session.end(Ending::Unchecked, 5);
    assert!(!session.waits_for_connect());
    assert_eq!(session.identity().map(|who| who.user.as_str()), Some("ann"));
}

#[test]
fn bytes_without_outcome_are_those_of_all_publishes_together() {
    let (mut session, mut out) = open_with(LIMITS);
    let both: usize = (0..2).map(|_| publish(&mut session, &mut out).cost()).sum();
    let (mut session, mut out) = open_with(SessionLimits { unanswered_bytes_max: both, ..LIMITS });
    publish(&mut session, &mut out);
    assert!(session.wants_frames());
    publish(&mut session, &mut out);
    assert!(!session.wants_frames());
}

#[test]
fn what_is_not_granted_is_forbidden_and_leaving_a_room_needs_no_grant() {
    let (mut session, mut out) = (Session::new(link(), Arc::new(LIMITS)), Frames::default());
    let own = || vec!["own".to_owned()];
    let grants = sluice_proto::grpc::Grants { sub: own(), r#pub: own() }.into();
    session.identified(Ok(Identity { grants, ..ann(false) }), false, &facts(), &mut out);
    for text in
        [r#"{"sub":"news"}"#, r#"{"history":"news"}"#, r#"{"presence":"news"}"#, r#"{"pub":"news","data":1}"#]
    {
        assert!(matches!(session.on_text(text, 0, &mut out), Todo::Nothing), "{text}");
        assert!(out.last().contains(r#""code":"forbidden""#), "{text}: {}", out.last());
    }
    assert!(matches!(session.on_text(r#"{"sub":"own"}"#, 0, &mut out), Todo::Subscribe { .. }));
    assert!(matches!(session.on_text(r#"{"unsub":"news"}"#, 0, &mut out), Todo::Unsubscribe { .. }));
}

#[test]
fn the_last_bye_waits_for_no_outcome_fences_what_has_none_and_is_said_once() {
    let (mut session, mut out) = open_with(LIMITS);
    publish(&mut session, &mut out);
    let bye = session.take_last_bye(Ending::Unchecked, 250).expect("it was not said");
    assert_eq!(bye.reconnect_ms, Some(250));
    assert!(session.link().fenced() && session.has_left());
    assert!(session.take_last_bye(Ending::Unchecked, 250).is_none());
    let (mut session, _) = open_with(LIMITS);
    session.end(Ending::Unchecked, 7);
    let bye = session.take_last_bye(Ending::Unchecked, 250).expect("it was not said");
    assert_eq!(bye.reconnect_ms, Some(7), "the first reason stands");
}

#[test]
fn a_publish_for_later_is_answered_with_its_due_and_a_key_that_cancels_it() {
    let (mut session, mut out) = open_with(LIMITS);
    let mut ask = |text: &str, out: &mut Frames| {
        let Todo::Publish(publish) = session.on_text(text, 1_000, out) else { panic!("{}", out.last()) };
        publish
    };
    let later = ask(r#"{"pub":"news","data":1,"delay_ms":5,"id":1}"#, &mut out);
    let at = ask(r#"{"pub":"news","data":1,"at":2592001000,"key":"k"}"#, &mut out);
    let cancel = ask(r#"{"cancel":"news","key":"k","id":2}"#, &mut out);
    let asked = |publish: &Publish| publish.later.as_deref().copied();
    assert_eq!((asked(&later), asked(&at)), (Some(Later::In(5)), Some(Later::At(2_592_001_000))));
    assert_eq!((asked(&cancel), cancel.data.len(), cancel.key.as_str()), (Some(Later::Cancel), 0, "k"));
    assert!(!session.wants_frames(), "they count as unanswered");
    let key = later.key.clone();
    session.answered(&Answered { publish: later, outcome: Outcome::Scheduled { due_ms: 1_005 } }, &mut out);
    assert_eq!(out.last(), format!(r#"{{"ok":"pub","room":"news","due":1005,"key":"{key}","id":1}}"#));
    session.answered(&Answered { publish: at, outcome: Outcome::Duplicate { seq: 3 } }, &mut out);
    assert_eq!(out.last(), r#"{"ok":"pub","room":"news","seq":3,"key":"k"}"#);
    session.answered(&Answered { publish: cancel, outcome: Outcome::TooLate }, &mut out);
    assert_eq!(out.last(), r#"{"ok":"cancel","room":"news","key":"k","cancelled":false,"id":2}"#);

    let too_far = r#"{"pub":"news","data":1,"at":2592001001}"#;
    assert!(matches!(session.on_text(too_far, 1_000, &mut out), Todo::Nothing));
    assert!(out.last().contains("30 days"), "{}", out.last());
    assert_eq!(session.unanswered(), 0);
    session.link().fence();
    assert!(matches!(session.on_text(r#"{"cancel":"news","key":"k"}"#, 0, &mut out), Todo::Nothing));
    assert!(out.last().contains(r#""code":"not_sent""#), "{}", out.last());
}
