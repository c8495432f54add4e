//! Tickets, by which a page opens a stream where it can set no header.

use serde_json::Value;

use super::event_reader::{Reader, answer};
use super::rig::Rig;

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
