//! One room, two gateways, many publishes: order, once each, and the answers are true.

use std::time::Duration;

use futures::FutureExt;
use sluice_client::{Client, Position};
use tokio::sync::Notify;

use crate::kit::{Ground, SOON, client_of, json, json_with, socket_of};
use crate::record::{Observer, judge, publish, sender};

pub async fn two_clients_on_two_gateways_see_one_order<G: Ground>() {
    let ground = G::start(2, 2, 2).await;
    let mut observers = Vec::new();
    for (n, user) in ["ann", "bob"].into_iter().enumerate() {
        observers.push(Observer::start(client_of(&ground, user, n), "news", Position::After(0)).await);
    }
    let (ann, bob) = (&observers[0].client, &observers[1].client);
    let (ann, bob) = tokio::join!(
        publish(ann.clone(), "ann".into(), "news".into(), 1_000, 0),
        publish(bob.clone(), "bob".into(), "news".into(), 1_000, 0),
    );
    ann.all_ok();
    bob.all_ok();
    for observer in &observers {
        observer.reaches(2_000, SOON).await;
    }
    let rows = judge(&ground, "news", &[ann, bob], &[&observers[0], &observers[1]]).await;
    assert_eq!(rows.len(), 2_000);
    ground.stop().await;
}

pub async fn a_client_that_is_cut_every_200_messages_resumes_elsewhere<G: Ground>() {
    let ground = G::start(2, 1, 1).await;
    let steady = Observer::start(client_of(&ground, "watch", 0), "news", Position::After(0)).await;
    let sending = sender(client_of(&ground, "ann", 0), "ann", "news", 1_000, 500).await;
    let (mut last, mut at) = (0, 0);
    while last < 1_000 {
        at = 1 - at;
        let mut socket = socket_of(&ground, "bob", at).await;
        socket.send(format!(r#"{{"sub":"news","after":{last},"id":1}}"#)).await.unwrap();
        let ok = json(&mut socket).await;
        assert_eq!(
            (&ok["ok"], &ok["after"], &ok["recovered"]),
            (&"sub".into(), &last.into(), &true.into()),
            "{ok}"
        );
        for _ in 0..200 {
            let message = json_with(&mut socket, "msg").await;
            last += 1;
            assert_eq!(message["seq"], last, "{message}");
            if last == 1_000 {
                break;
            }
        }
        drop(socket);
    }
    let sent = sending.await.unwrap();
    sent.all_ok();
    steady.reaches(1_000, SOON).await;
    judge(&ground, "news", &[sent], &[&steady]).await;
    ground.stop().await;
}

pub async fn every_publish_sent_twice_is_stored_once_and_a_reused_key_is_a_conflict<G: Ground>() {
    let ground = G::start(2, 2, 1).await;
    let mut one = socket_of(&ground, "ann", 0).await;
    let mut two = socket_of(&ground, "ann", 1).await;
    for n in 0..300 {
        let frame = format!(r#"{{"pub":"news","data":{n},"key":"k{n}","id":{n}}}"#);
        one.send(frame.clone()).await.unwrap();
        two.send(frame).await.unwrap();
    }
    for n in 0..300 {
        let (first, second) = (json(&mut one).await, json(&mut two).await);
        assert_eq!((&first["ok"], &first["id"]), (&"pub".into(), &n.into()), "{first}");
        assert_eq!(first, second, "the same seq for the same key");
    }
    one.send(r#"{"pub":"news","data":"other","key":"k7","id":"again"}"#).await.unwrap();
    let error = json(&mut one).await;
    assert_eq!(
        (&error["error"]["code"], &error["error"]["retry"]),
        (&"conflict".into(), &false.into()),
        "{error}"
    );
    let seq7 = ground.table("news").await.iter().position(|row| row.key == "k7").unwrap() + 1;
    assert!(
        !error.to_string().contains(&format!("\"seq\":{seq7}")),
        "a conflict does not tell the seq: {error}"
    );
    assert_eq!(ground.table("news").await.len(), 300);
    ground.stop().await;
}

pub async fn publishes_without_key_are_stored_once_while_a_logic_goes<G: Ground>() {
    let ground = G::start(1, 2, 1).await;
    let mut socket = socket_of(&ground, "ann", 0).await;
    let (goes, gone) = (Notify::new(), Notify::new());
    let loss = async {
        goes.notified().await;
        ground.lose_a_logic().await;
        gone.notify_one();
    };
    let publishing = async {
        let (mut oks, mut round, mut is_gone) = (Vec::new(), 0, false);
        // Some before, some while it goes, some after.
        while round < 10 || !is_gone {
            let ids = round * 50..(round + 1) * 50;
            for n in ids.clone() {
                socket.send(format!(r#"{{"pub":"news","data":{n},"id":{n}}}"#)).await.unwrap();
            }
            if round == 4 {
                goes.notify_one();
            }
            for _ in ids {
                let ok = json(&mut socket).await;
                assert_eq!(ok["ok"], "pub", "{ok}");
                oks.push((ok["id"].as_u64().unwrap(), ok["seq"].as_u64().unwrap()));
            }
            is_gone = is_gone || gone.notified().now_or_never().is_some();
            round += 1;
        }
        oks
    };
    let ((), oks) = tokio::join!(loss, publishing);
    let rows = ground.table("news").await;
    assert_eq!(rows.len(), oks.len(), "each once");
    for (id, seq) in oks {
        assert_eq!(rows[usize::try_from(seq).unwrap() - 1].data, id.to_string());
    }
    let order: Vec<String> = (0..rows.len()).map(|n| n.to_string()).collect();
    assert_eq!(rows.iter().map(|row| row.data.clone()).collect::<Vec<_>>(), order, "in the order sent");
    ground.stop().await;
}

/// Two anonymous clients never share a dedupe space; one that comes back with its token keeps its own.
pub async fn anonymous_users_differ_and_keep_their_identity_by_token<G: Ground>() {
    let ground = G::start(2, 1, 1).await;
    let url = ground.ws(0);
    let (one, mut first) = Client::connect(sluice_client::Options::new(&url)).await.unwrap();
    let (two, _events) = Client::connect(sluice_client::Options::new(&url)).await.unwrap();
    let a = one.publish_as("lobby", "c1", &"hello from one").await.unwrap();
    let b = two.publish_as("lobby", "c1", &"hello from two").await.unwrap();
    assert_ne!(a.seq, b.seq, "the same key of two people names two messages");
    let Some(sluice_client::Event::Connected(welcome)) = first.next().await else { panic!("no welcome") };
    let token = welcome.token.expect("anonymous users get a token");
    let elsewhere = sluice_client::Options::new(ground.ws(1)).token(token);
    let (again, _events) = Client::connect(elsewhere).await.unwrap();
    let c = again.publish_as("lobby", "c1", &"hello from one").await.unwrap();
    assert_eq!(c.seq, a.seq, "a resend under the same identity is the same message");
    tokio::time::timeout(Duration::from_secs(20), ground.stop()).await.expect("stops in time");
}
