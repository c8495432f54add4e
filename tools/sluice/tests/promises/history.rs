//! One room, two gateways, many publishes: order, once each, and the answers are true.

use std::time::Duration;

use sluice_client::{Client, Position};
use sluice_launcher::Service;

use crate::kit::{SOON, client_of, cluster, json, json_with, socket_of};
use crate::record::{Observer, judge, publish, sender, table};

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_on_two_gateways_see_one_order() {
    let cluster = cluster(2, 2, 2).await;
    let mut observers = Vec::new();
    for (n, user) in ["ann", "bob"].into_iter().enumerate() {
        observers.push(Observer::start(client_of(&cluster, user, n), "news", Position::After(0)).await);
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
    let rows = judge(&cluster, "news", &[ann, bob], &[&observers[0], &observers[1]]).await;
    assert_eq!(rows.len(), 2_000);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_cut_every_200_messages_resumes_elsewhere() {
    let cluster = cluster(2, 1, 1).await;
    let steady = Observer::start(client_of(&cluster, "watch", 0), "news", Position::After(0)).await;
    let sending = sender(client_of(&cluster, "ann", 0), "ann", "news", 1_000, 500).await;
    let (mut last, mut at) = (0, 0);
    while last < 1_000 {
        at = 1 - at;
        let mut socket = socket_of(&cluster, "bob", at).await;
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
    judge(&cluster, "news", &[sent], &[&steady]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_publish_sent_twice_is_stored_once_and_a_reused_key_is_a_conflict() {
    let cluster = cluster(2, 2, 1).await;
    let mut one = socket_of(&cluster, "ann", 0).await;
    let mut two = socket_of(&cluster, "ann", 1).await;
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
    let seq7 = table(&cluster, "news").await.iter().position(|row| row.key == "k7").unwrap() + 1;
    assert!(
        !error.to_string().contains(&format!("\"seq\":{seq7}")),
        "a conflict does not tell the seq: {error}"
    );
    assert_eq!(table(&cluster, "news").await.len(), 300);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_without_key_are_stored_once_while_logic_is_killed() {
    let cluster = cluster(1, 2, 1).await;
    let mut socket = socket_of(&cluster, "ann", 0).await;
    let victim = cluster.logic(0);
    let mut oks = Vec::new();
    for round in 0..10 {
        for n in 0..50 {
            let n = round * 50 + n;
            socket.send(format!(r#"{{"pub":"news","data":{n},"id":{n}}}"#)).await.unwrap();
        }
        if round == 4 {
            assert!(victim.kill());
        }
        for _ in 0..50 {
            let ok = json(&mut socket).await;
            assert_eq!(ok["ok"], "pub", "{ok}");
            oks.push((ok["id"].as_u64().unwrap(), ok["seq"].as_u64().unwrap()));
        }
    }
    let rows = table(&cluster, "news").await;
    assert_eq!(rows.len(), 500, "each once");
    for (id, seq) in oks {
        assert_eq!(rows[usize::try_from(seq).unwrap() - 1].data, id.to_string());
    }
    let order: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    assert_eq!(rows.iter().map(|row| row.data.clone()).collect::<Vec<_>>(), order, "in the order sent");
    cluster.stop().await;
}

/// Two anonymous clients never share a dedupe space; one that comes back with its token keeps its own.
#[tokio::test(flavor = "multi_thread")]
async fn anonymous_users_differ_and_keep_their_identity_by_token() {
    let cluster = cluster(2, 1, 1).await;
    let url = cluster.gateway(0).ws().to_owned();
    let (one, mut first) = Client::connect(sluice_client::Options::new(&url)).await.unwrap();
    let (two, _events) = Client::connect(sluice_client::Options::new(&url)).await.unwrap();
    let a = one.publish_as("lobby", "c1", &"hello from one").await.unwrap();
    let b = two.publish_as("lobby", "c1", &"hello from two").await.unwrap();
    assert_ne!(a.seq, b.seq, "the same key of two people names two messages");
    let Some(sluice_client::Event::Connected(welcome)) = first.next().await else { panic!("no welcome") };
    let token = welcome.token.expect("anonymous users get a token");
    let elsewhere = sluice_client::Options::new(cluster.gateway(1).ws()).token(token);
    let (again, _events) = Client::connect(elsewhere).await.unwrap();
    let c = again.publish_as("lobby", "c1", &"hello from one").await.unwrap();
    assert_eq!(c.seq, a.seq, "a resend under the same identity is the same message");
    assert_eq!(cluster.nodes(Service::Gateway).len(), 2);
    tokio::time::timeout(Duration::from_secs(20), cluster.stop()).await.expect("stops in time");
}
