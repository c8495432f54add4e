//! Positions and epochs: what a client is told when its position cannot be kept.

use serde_json::Value;
use sluice_client::Position;
use sluice_launcher::Service;

use crate::kit::{Ground, SOON, client_of, json, json_with, socket_of, until};
use crate::record::Observer;

/// Publishes these numbers.
pub async fn fill(ground: &impl Ground, room: &str, from: u64, to: u64) {
    let mut socket = socket_of(ground, "filler", 0).await;
    for n in from..=to {
        socket
            .send(format!(r#"{{"pub":"{room}","data":{n},"key":"f{n}-{}"}}"#, rand::random::<u32>()))
            .await
            .unwrap();
    }
    for _ in from..=to {
        assert_eq!(json(&mut socket).await["ok"], "pub");
    }
}

/// The answer to a subscription.
pub async fn sub(ground: &impl Ground, frame: &str) -> Value {
    let mut socket = socket_of(ground, "reader", 0).await;
    socket.send(frame).await.unwrap();
    json_with(&mut socket, "ok").await
}

pub async fn positions_are_honest<G: Ground>() {
    let ground = G::start(1, 1, 1).await;
    fill(&ground, "news", 1, 20).await;
    let ok = sub(&ground, r#"{"sub":"news","after":20}"#).await;
    assert_eq!((&ok["after"], &ok["head"], &ok["recovered"]), (&20.into(), &20.into(), &true.into()), "{ok}");
    // Beyond the head is never legal: heads come from the primary only.
    let ok = sub(&ground, r#"{"sub":"news","after":99}"#).await;
    assert_eq!((&ok["after"], &ok["recovered"]), (&20.into(), &false.into()), "{ok}");
    // 0 is a position like any other.
    let ok = sub(&ground, r#"{"sub":"news","after":0}"#).await;
    assert_eq!((&ok["after"], &ok["recovered"]), (&0.into(), &true.into()), "{ok}");
    let ok = sub(&ground, r#"{"sub":"news","after":5,"epoch":"0123456789abcdef"}"#).await;
    assert_eq!((&ok["after"], &ok["recovered"]), (&20.into(), &false.into()), "another epoch: {ok}");
    let ok = sub(&ground, r#"{"sub":"empty"}"#).await;
    assert_eq!((&ok["after"], &ok["head"], &ok["recovered"]), (&0.into(), &0.into(), &true.into()), "{ok}");
    // What retention removed is told in the stream.
    assert_eq!(ground.sql("delete from messages where room = 'news' and seq <= 12").await, 12);
    ground.roll(Service::Gateway, 0).await;
    let mut socket = socket_of(&ground, "reader", 0).await;
    socket.send(r#"{"sub":"news","after":5}"#).await.unwrap();
    assert_eq!(json(&mut socket).await["ok"], "sub");
    let skipped = json(&mut socket).await;
    assert_eq!(
        (&skipped["skipped"], &skipped["from"], &skipped["to"]),
        (&"news".into(), &6.into(), &12.into())
    );
    for seq in 13..=20 {
        assert_eq!(json(&mut socket).await["seq"], seq);
    }
    // An emptied room goes on counting.
    assert_eq!(ground.sql("delete from messages where room = 'news'").await, 8);
    fill(&ground, "news", 1, 1).await;
    assert_eq!(json_with(&mut socket, "msg").await["seq"], 21);
    ground.stop().await;
}

/// An older copy of the store is put back and `sluice store new-epoch` is run.
pub async fn a_restored_store_is_told_to_everybody<G: Ground>() {
    let ground = G::start(2, 1, 1).await;
    fill(&ground, "news", 1, 30).await;
    let ann = Observer::start(client_of(&ground, "ann", 1), "news", Position::After(0)).await;
    ann.reaches(30, SOON).await;
    let ok = sub(&ground, r#"{"sub":"news","after":30}"#).await;
    let old_epoch = ok["epoch"].as_str().unwrap();
    // A copy of position 10: what a restored backup looks like.
    ground.put_back(&["delete from messages where seq > 10", "update rooms set head = 10"]).await;
    until("who is connected is told", SOON, async || ann.look(|seen| !seen.unrecovered.is_empty())).await;
    assert_eq!(ann.look(|seen| seen.unrecovered.clone()), [10], "from where it goes on");
    fill(&ground, "news", 11, 40).await;
    until("all of it comes", SOON, async || ann.look(|seen| seen.messages.len()) == 60).await;
    let seqs: Vec<u64> = ann.look(|seen| seen.messages.iter().map(|(seq, ..)| *seq).collect());
    assert_eq!(seqs, (1..=30).chain(11..=40).collect::<Vec<_>>());
    // Grown beyond the cursor: only the epoch can tell.
    let ok = sub(&ground, &format!(r#"{{"sub":"news","after":30,"epoch":"{old_epoch}"}}"#)).await;
    assert_eq!(ok["recovered"], false, "{ok}");
    let new_epoch = ok["epoch"].as_str().unwrap();
    assert_ne!(new_epoch, old_epoch);
    let ok = sub(&ground, &format!(r#"{{"sub":"news","after":30,"epoch":"{new_epoch}"}}"#)).await;
    assert_eq!(ok["recovered"], true, "{ok}");
    ground.stop().await;
}
