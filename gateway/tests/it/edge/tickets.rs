//! Tickets, by which a page opens a stream where it can set no header.

use serde_json::Value;

use super::disconnect::{ann, ended};
use super::event_reader::{Reader, answer};
use super::logic::{ISSUED_AT_S, Scripted};
use super::rig::{Client, Rig};

/// What a request for a ticket with this token is answered.
async fn ask(rig: &Rig, lines: &[&str]) -> String {
    answer(rig, "POST /ticket", &[lines, &["Content-Length: 0"]].concat()).await
}

/// Where a stream of `news` opens with a new ticket.
async fn target(rig: &Rig, user: &str) -> String {
    let given = ask(rig, &[&format!("Authorization: Bearer {user}")]).await;
    let (head, body) = given.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("Cache-Control: no-store"), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["expires_in_s"], 60);
    format!("/sse?room=news&ticket={}", body["ticket"].as_str().unwrap())
}

#[tokio::test]
async fn a_ticket_opens_one_stream_of_its_user() {
    let rig = Rig::start(1, false).await;
    let target = target(&rig, "ann").await;
    let mut reader = Reader::ask(&rig, &target, &[]).await;
    assert_eq!(reader.hears("welcome").await["welcome"]["user"], "ann");
    reader.hears("ok").await;
    let again = answer(&rig, &format!("GET {target}"), &[]).await;
    assert!(again.starts_with("HTTP/1.1 401 ") && again.contains("this ticket was used"), "{again}");
    rig.stop().await;
}

#[tokio::test]
async fn a_ticket_that_has_expired_or_never_was_opens_nothing() {
    let rig = Rig::start(1, false).await;
    let late = target(&rig, "ann").await;
    rig.logic.expire_tickets();
    for target in [&late, "/sse?room=news&ticket=", "/sse?room=news&ticket=made-up"] {
        let refused = answer(&rig, &format!("GET {target}"), &["Accept: text/event-stream"]).await;
        assert!(refused.starts_with("HTTP/1.1 401 "), "for good, also for a browser: {refused}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_ticket_is_for_a_token_that_is_good() {
    let rig = Rig::start(1, false).await;
    let cases = [(vec![], "Authorization: Bearer"), (vec!["Authorization: Bearer bad"], "the token is bad")];
    for (lines, why) in cases {
        let refused = ask(&rig, &lines).await;
        assert!(refused.starts_with("HTTP/1.1 401 ") && refused.contains(why), "{refused}");
    }
    let body = answer(&rig, "POST /ticket", &["Authorization: Bearer ann", "Content-Length: 2"]).await;
    assert!(body.starts_with("HTTP/1.1 400 ") && body.contains("no body"), "{body}");
    let wrong = answer(&rig, "GET /ticket", &[]).await;
    assert!(wrong.starts_with("HTTP/1.1 405 ") && wrong.contains("Allow: POST"), "{wrong}");
    rig.stop().await;
}

/// The ticket may still be there: who comes again within its time is let in.
#[tokio::test]
async fn while_redis_is_away_tickets_wait() {
    let rig = Rig::start(1, false).await;
    let target = target(&rig, "ann").await;
    rig.logic.tickets_away(true);
    let refused = ask(&rig, &["Authorization: Bearer ann"]).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("Redis is away"), "{refused}");
    assert!(refused.contains("Retry-After: "), "{refused}");
    let refused = answer(&rig, &format!("GET {target}"), &[]).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    let mut browser = Reader::ask(&rig, &target, &["Accept: text/event-stream"]).await;
    let bye = browser.hear().await;
    assert_eq!((&bye.data["bye"]["code"], bye.retry_ms.is_some()), (&1013.into(), true));
    browser.end().await;
    rig.logic.tickets_away(false);
    let mut reader = Reader::ask(&rig, &target, &[]).await;
    assert_eq!(reader.hears("welcome").await["welcome"]["user"], "ann");
    rig.stop().await;
}

/// It is welcome as its user.
async fn opens(rig: &Rig, target: &str, user: &str) {
    let mut reader = Reader::ask(rig, target, &[]).await;
    assert!(reader.head.starts_with("HTTP/1.1 200 OK"), "{}", reader.head);
    assert_eq!(reader.hears("welcome").await["welcome"]["user"], user);
}

/// Refused, and told to come again: a program by the status, a browser by an event.
async fn is_to_come_again(rig: &Rig, target: &str) {
    let (line, lines) = (format!("GET {target}"), ["Accept: text/event-stream"]);
    let (refused, mut browser) = tokio::join!(answer(rig, &line, &[]), Reader::ask(rig, target, &lines));
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("Retry-After: "), "{refused}");
    let bye = browser.hear().await;
    assert_eq!((&bye.data["bye"]["code"], bye.retry_ms.is_some()), (&1013.into(), true), "{bye:?}");
    browser.end().await;
}

/// What it says of the token is of before a revocation that this gateway has not heard of either.
#[tokio::test]
async fn a_ticket_that_a_logic_took_which_is_behind_opens_nothing() {
    let logic = Scripted::default();
    logic.revoke("ann", ISSUED_AT_S);
    logic.is_behind(true);
    let rig = Rig::on(logic).await;
    let first = target(&rig, "ann").await;
    let refused = answer(&rig, &format!("GET {first}"), &[]).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("Retry-After: "), "{refused}");
    rig.logic.is_behind(false);
    let again = answer(&rig, &format!("GET {first}"), &[]).await;
    assert!(again.starts_with("HTTP/1.1 401 ") && again.contains("this ticket was used"), "{again}");
    // This logic would have refused it, had it looked at the second.
    opens(&rig, &target(&rig, "ann").await, "ann").await;
    rig.stop().await;
}

/// This gateway was told, and logic has not read of it yet.
#[tokio::test]
async fn a_ticket_for_a_token_that_was_revoked_opens_nothing_whatever_logic_says() {
    let rig = Rig::start(2, false).await;
    let target = target(&rig, "ann").await;
    assert_eq!(ended(&rig, ann("", Some(ISSUED_AT_S))).await, 0);
    let refused = answer(&rig, &format!("GET {target}"), &[]).await;
    assert!(refused.starts_with("HTTP/1.1 401 ") && refused.contains("was revoked"), "{refused}");
    rig.stop().await;
}

/// On a gateway that was there before as on a new one, which knows neither the epoch nor where revocations begin.
#[tokio::test]
async fn while_logic_starts_tickets_wait() {
    let old = Rig::start(1, false).await;
    let target = target(&old, "ann").await;
    old.logic.starts(true);
    let new = Rig::on(old.logic.clone()).await;
    let asks = async |rig: &Rig| {
        let (refused, ()) =
            tokio::join!(ask(rig, &["Authorization: Bearer ann"]), is_to_come_again(rig, &target));
        assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("Retry-After: "), "{refused}");
    };
    tokio::join!(asks(&old), asks(&new));
    old.logic.starts(false);
    // Who is welcome shows that the new one knows both by now.
    drop(Client::named(&new, "bob").await);
    opens(&new, &target, "ann").await;
    old.stop().await;
    new.stop().await;
}

/// Logic could say whose it is, but without an epoch nobody is welcome: it would be taken for nothing.
#[tokio::test]
async fn a_gateway_that_knows_no_epoch_takes_no_ticket() {
    let old = Rig::start(1, false).await;
    let target = target(&old, "ann").await;
    old.logic.store_away(true);
    let new = Rig::on(old.logic.clone()).await;
    is_to_come_again(&new, &target).await;
    old.logic.store_away(false);
    drop(Client::named(&new, "bob").await);
    opens(&new, &target, "ann").await;
    old.stop().await;
    new.stop().await;
}
