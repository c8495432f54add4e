//! What a client makes of what it hears, without sockets.

use super::*;

const WELCOME: &str = r#"{"welcome":{"session":"s","instance":"g","user":"u","epoch":"e","ping_s":25}}"#;

/// A client of two rooms that has its welcome, and what it said.
fn welcomed(people: &mut People, key: usize) -> (Connection, String) {
    let mut connection = people.connection(0, "ws://a/ws");
    people.dialled(0, key);
    let said = hears(people, key, &mut connection, WELCOME);
    (connection, said)
}

fn hears(people: &mut People, key: usize, connection: &mut Connection, text: &str) -> String {
    let mut out = Vec::new();
    people.on_text(key, connection, &mut out, text.as_bytes(), &mut |_: usize, _: Event<'_>| {});
    String::from_utf8_lossy(&out).into_owned()
}

fn two_rooms() -> People {
    let mut people = People::new(1);
    people.gateways = 2;
    people.join("u", &["a".to_owned(), "b".to_owned()]);
    people
}

fn subscribed(people: &mut People, key: usize, connection: &mut Connection, after: u64) {
    for (room, id) in [("a", 0), ("b", 1)] {
        let text = format!(
            r#"{{"ok":"sub","room":"{room}","after":{after},"head":{after},"epoch":"e","recovered":true,"id":{id}}}"#
        );
        hears(people, key, connection, &text);
    }
}

#[test]
fn positions_go_with_the_client_and_gaps_are_counted() {
    let mut people = two_rooms();
    let (mut first, said) = welcomed(&mut people, 7);
    assert!(said.contains(r#""sub":"a""#) && !said.contains("after"), "{said}");
    subscribed(&mut people, 7, &mut first, 0);
    assert_eq!(people.live, 1);
    for seq in [1, 2, 4] {
        let text = format!(r#"{{"msg":"a","seq":{seq},"from":"x","at":1,"data":1}}"#);
        hears(&mut people, 7, &mut first, &text);
    }
    assert_eq!(people.gaps, 1, "3 is missing");
    let (_, said) = welcomed(&mut people, 8);
    assert!(said.contains(r#""after":4,"epoch":"e""#) && said.contains(r#""after":0"#), "{said}");
    assert_eq!((people.live, people.clients[0].former), (0, Some(7)));
}

#[test]
fn who_has_all_rooms_on_a_second_connection_leaves_the_first() {
    let mut people = two_rooms();
    let (mut first, _) = welcomed(&mut people, 7);
    subscribed(&mut people, 7, &mut first, 0);
    let (mut second, _) = welcomed(&mut people, 8);
    assert!(people.todo.is_empty(), "not before");
    subscribed(&mut people, 8, &mut second, 0);
    assert!(matches!(people.todo[..], [Todo::Goodbye(7)]));
    assert_eq!(people.live, 1);
}

#[test]
fn the_last_word_about_coming_back_counts() {
    let mut people = two_rooms();
    let (mut connection, _) = welcomed(&mut people, 7);
    let now = Instant::now();
    let due_in = |people: &People| people.clients[0].due.map(|due| due.duration_since(now).as_secs());
    hears(
        &mut people,
        7,
        &mut connection,
        r#"{"drain":{"reason":"restart","within_ms":1,"reconnect_ms":9500}}"#,
    );
    assert_eq!(due_in(&people), Some(9));
    let closed = Gone::Closed(1012, String::new());
    let mut nobody = |_: usize, _: Event<'_>| {};
    hears(
        &mut people,
        7,
        &mut connection,
        r#"{"bye":{"code":1012,"reason":"restart","reconnect":true,"reconnect_ms":3500}}"#,
    );
    people.gone(7, &connection, &closed, &mut nobody);
    assert_eq!(due_in(&people), Some(3));
}
#[test]
fn who_is_refused_by_all_comes_when_the_first_of_them_said() {
    let mut people = two_rooms();
    let gateways = ["a", "b"]
        .map(|url| Gateway { url: url.into(), to: std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into() });
    let now = Instant::now();
    let refused = |people: &mut People, key: usize, after_s: u64| {
        let url = people.next_gateway(0, &gateways).map(|(gateway, _)| gateway.url.clone()).unwrap();
        let connection = people.connection(0, &url);
        people.dialled(0, key);
        let (status, retry_after_s, line) = (503, Some(after_s), String::new());
        let gone = Gone::Refused { status, retry_after_s, line };
        people.gone(key, &connection, &gone, &mut |_: usize, _: Event<'_>| {});
        let due_in = people.clients[0].due.take().unwrap() - now;
        (url, due_in)
    };
    let (url, due_in) = refused(&mut people, 1, 9);
    assert!(url == "a" && due_in < Duration::from_secs(1), "the other one is asked first: {due_in:?}");
    let (url, due_in) = refused(&mut people, 2, 4);
    assert!(url == "b" && due_in >= Duration::from_secs(4) && due_in < Duration::from_secs(7), "{due_in:?}");
    let (url, _) = refused(&mut people, 3, 30);
    assert_eq!(url, "b", "not the one that said nine seconds");
}
