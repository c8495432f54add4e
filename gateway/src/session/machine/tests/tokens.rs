//! New tokens of a session that is open, and the ends of those that it has.

use crate::defaults::ROOMS_PER_CONNECTION_MAX;

use super::*;

const BEGIN_MS: i64 = 1_700_000_000_000;

fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

/// What logic says of a token: who, which rooms, until when.
fn says(user: &str, rooms: &[&str], expires_at_ms: Option<i64>) -> Identity {
    let sub = rooms.iter().map(|room| (*room).to_owned()).collect();
    Identity {
        user: UserId::parse(user).unwrap(),
        grants: sluice_proto::grpc::Grants { sub, r#pub: Vec::new() }.into(),
        expires_at_ms,
        ..ann(false)
    }
}

fn open(rooms: &[&str], expires_at_ms: Option<i64>) -> (Session, Frames) {
    let (mut session, mut out) = (Session::new(link(), Arc::new(LIMITS)), Frames::default());
    session.identified(Ok(says("ann", rooms, expires_at_ms)), false, &facts(), &mut out);
    session.token_begins(BEGIN_MS);
    (session, out)
}

fn refresh(session: &mut Session, out: &mut Frames) {
    let todo = session.on_text(r#"{"refresh":{"token":"t"},"id":7}"#, BEGIN_MS, out);
    assert!(matches!(&todo, Todo::Vouch { token, for_room: false } if token == "t"), "{todo:?}");
    assert!(session.is_refreshed() && session.is_being_checked());
    assert!(!session.wants_frames(), "what follows is judged by what the new token grants");
}

#[test]
fn a_new_token_of_the_same_user_changes_grants_and_end() {
    let (mut session, mut out) = open(&["news"], Some(BEGIN_MS + 60_000));
    refresh(&mut session, &mut out);
    let todo = session.vouched(Ok(says("ann", &["lobby"], Some(BEGIN_MS + 600_000))), BEGIN_MS, &mut out);
    assert!(matches!(todo, Todo::Regranted { changes_info: false }), "{todo:?}");
    assert_eq!(out.last(), r#"{"ok":"refresh","expires_at":1700000600000,"id":7}"#);
    assert!(session.wants_frames() && !session.is_refreshed());
    assert!(session.may_read(&room("lobby")) && !session.may_read(&room("news")));
    assert_eq!(session.token_due_at(), Some(BEGIN_MS + 570_000), "told half a minute before the new end");
    refresh(&mut session, &mut out);
    session.vouched(Ok(says("ann", &["lobby"], None)), BEGIN_MS, &mut out);
    assert_eq!((out.last(), session.token_due_at()), (r#"{"ok":"refresh","id":7}"#, None));
}

#[test]
fn a_new_token_that_is_of_no_use_ends_nothing() {
    let (mut session, mut out) = open(&["news"], Some(BEGIN_MS + 60_000));
    let due = session.token_due_at();
    for (verdict, code, retry) in [
        (Ok(says("bob", &["*"], None)), "forbidden", false),
        (Err(NotIdentified::Invalid("wrong".into())), "unauthorized", false),
        (Err(NotIdentified::Unavailable), "unavailable", true),
    ] {
        refresh(&mut session, &mut out);
        let todo = session.vouched(verdict, BEGIN_MS, &mut out);
        assert!(matches!(todo, Todo::Nothing), "{todo:?}");
        let last = out.last();
        assert!(
            last.contains(&format!(r#""code":"{code}""#)) && last.contains(&format!(r#""retry":{retry}"#)),
            "{last}"
        );
        assert!(last.ends_with(r#","id":7}"#) && session.wants_frames() && session.take_bye(1).is_none());
        assert_eq!(session.identity().map(|who| who.user.as_str()), Some("ann"));
        assert_eq!((session.token_due_at(), session.may_read(&room("lobby"))), (due, false));
    }
    assert!(matches!(session.on_text(r#"{"refresh":{"token":""}}"#, 0, &mut out), Todo::Nothing));
    assert!(out.last().contains("bad_request"));
}

#[test]
fn who_leaves_while_its_token_is_looked_at_says_bye_and_hears_no_verdict() {
    let (mut session, mut out) = open(&["news"], None);
    refresh(&mut session, &mut out);
    session.end(Ending::Slow, 1);
    let said = out.0.len();
    assert!(matches!(session.vouched(Ok(says("ann", &["*"], None)), BEGIN_MS, &mut out), Todo::Nothing));
    assert_eq!(out.0.len(), said);
    assert!(!session.may_read(&room("lobby")) && session.take_bye(1).is_some());
    // And who leaves already brings none.
    let (mut session, mut out) = open(&["news"], None);
    session.end(Ending::Slow, 1);
    for text in [r#"{"refresh":{"token":"t"}}"#, r#"{"sub":"lobby","token":"t"}"#] {
        assert!(matches!(session.on_text(text, 0, &mut out), Todo::Nothing));
        assert!(out.last().contains(r#""code":"unavailable""#), "{}", out.last());
    }
}

#[test]
fn the_end_is_told_once_before_it_comes() {
    // How long it lives, and how long before its end that is told.
    for (life, told) in [(600_000, 30_000), (150_000, 30_000), (35_000, 7_000), (5_000, 1_000), (4_999, 0)] {
        let (mut session, mut out) = open(&[], Some(BEGIN_MS + life));
        assert_eq!(session.token_due_at(), Some(BEGIN_MS + life - told), "{life}");
        let before = out.0.len();
        assert!(session.on_token_due(BEGIN_MS + life - told - 1, &mut out).is_empty());
        assert_eq!(out.0.len(), before, "not before");
        if told > 0 {
            session.on_token_due(BEGIN_MS + life - told, &mut out);
            assert_eq!(out.last(), format!(r#"{{"expiring":{{"within_ms":{told}}}}}"#));
            session.on_token_due(BEGIN_MS + life - 1, &mut out);
            assert_eq!(out.0.len(), before + 1, "once");
        }
        assert!(session.take_bye(1).is_none());
        assert_eq!(session.token_due_at(), Some(BEGIN_MS + life));
        session.on_token_due(BEGIN_MS + life, &mut out);
        let (ending, _) = session.take_bye(1).expect("it ends");
        assert!(matches!(ending, Ending::TokenExpired) && session.token_due_at().is_none());
    }
    let (mut session, mut out) = open(&[], None);
    assert!(session.on_token_due(i64::MAX, &mut out).is_empty() && session.token_due_at().is_none());
}

/// A `sub` with a token of its own, and logic's verdict on that.
fn with_token(session: &mut Session, out: &mut Frames, name: &str, verdict: Identity) -> Todo {
    let text = format!(r#"{{"sub":"{name}","after":4,"token":"t","id":8}}"#);
    let asked = session.on_text(&text, BEGIN_MS, out);
    assert!(matches!(asked, Todo::Vouch { for_room: true, .. }), "{asked:?}");
    session.vouched(Ok(verdict), BEGIN_MS, out)
}

#[test]
fn a_token_of_a_room_opens_that_room_until_its_end() {
    let (mut session, mut out) = open(&["lobby"], Some(BEGIN_MS + 900_000));
    let todo =
        with_token(&mut session, &mut out, "secret", says("ann", &["sec*", "other"], Some(BEGIN_MS + 9_000)));
    assert!(
        matches!(&todo, Todo::Subscribe { room, after: Some(4), .. } if room.as_str() == "secret"),
        "{todo:?}"
    );
    assert!(session.may_read(&room("secret")) && !session.may_read(&room("other")), "that room alone");
    let history = session.on_text(r#"{"history":"secret"}"#, 0, &mut out);
    assert!(matches!(history, Todo::History { .. }));
    assert_eq!(session.token_due_at(), Some(BEGIN_MS + 9_000));
    // A new token for all of the connection takes nothing from it.
    refresh(&mut session, &mut out);
    session.vouched(Ok(says("ann", &[], None)), BEGIN_MS, &mut out);
    assert!(session.may_read(&room("secret")) && !session.may_read(&room("lobby")));
    assert!(session.on_token_due(BEGIN_MS + 8_999, &mut out).is_empty());
    assert_eq!(session.on_token_due(BEGIN_MS + 9_000, &mut out), [room("secret")]);
    assert!(!session.may_read(&room("secret")) && session.token_due_at().is_none());

    // Left, it is forgotten; of a room that is granted besides, its end is none.
    with_token(&mut session, &mut out, "secret", says("ann", &["secret"], Some(BEGIN_MS + 9_000)));
    assert!(matches!(session.on_text(r#"{"unsub":"secret"}"#, 0, &mut out), Todo::Unsubscribe { .. }));
    assert!(!session.may_read(&room("secret")) && session.token_due_at().is_none());
    with_token(&mut session, &mut out, "secret", says("ann", &["secret"], Some(BEGIN_MS + 9_000)));
    refresh(&mut session, &mut out);
    session.vouched(Ok(says("ann", &["secret"], None)), BEGIN_MS, &mut out);
    assert!(session.on_token_due(BEGIN_MS + 9_000, &mut out).is_empty());
}

#[test]
fn a_revoked_token_of_a_room_closes_that_room_beside_a_later_token() {
    let issued =
        |at: u32, rooms: &[&str]| Identity { issued_at_s: NonZero::new(at), ..says("ann", rooms, None) };
    let (mut session, mut out) = open(&["lobby"], None);
    for (name, at) in [("old", 10), ("new", 11), ("lobby2", 10)] {
        with_token(&mut session, &mut out, name, issued(at, &[name]));
    }
    // One that does not say when may be of any time.
    with_token(&mut session, &mut out, "undated", says("ann", &["undated"], None));
    refresh(&mut session, &mut out);
    session.vouched(Ok(issued(20, &["lobby*"])), BEGIN_MS, &mut out);
    assert_eq!(session.revoke_room_tokens(9), [room("undated")]);
    assert_eq!(session.revoke_room_tokens(10), [room("old")], "the other is granted besides");
    let may = ["old", "new", "lobby2", "undated"].map(|name| session.may_read(&room(name)));
    assert_eq!(may, [false, true, true, false]);
    assert!(session.revoke_room_tokens(10).is_empty());
}

#[test]
fn a_token_of_a_room_that_does_not_fit_opens_nothing() {
    let (mut session, mut out) = open(&["lobby"], None);
    for (verdict, why) in
        [(says("bob", &["*"], None), "another user"), (says("ann", &["other"], None), "does not grant room")]
    {
        assert!(matches!(with_token(&mut session, &mut out, "secret", verdict), Todo::Nothing));
        assert!(out.last().contains(why) && out.last().contains(r#""code":"forbidden""#), "{}", out.last());
        assert!(!session.may_read(&room("secret")) && session.wants_frames());
    }
    // What the connection's own token grants needs no question.
    let granted = session.on_text(r#"{"sub":"lobby","token":"t"}"#, 0, &mut out);
    assert!(matches!(granted, Todo::Subscribe { .. }), "{granted:?}");
    for n in 0..ROOMS_PER_CONNECTION_MAX {
        let name = format!("r{n}");
        with_token(&mut session, &mut out, &name, says("ann", &["r*"], None));
    }
    assert!(matches!(with_token(&mut session, &mut out, "rest", says("ann", &["r*"], None)), Todo::Nothing));
    assert!(out.last().contains("may subscribe to 1000 rooms"), "{}", out.last());
}
