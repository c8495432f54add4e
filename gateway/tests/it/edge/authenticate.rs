//! Many clients come at once: their tokens are checked together, and none is judged by another's.

use serde_json::json;
use sluice_gateway::calls::{Authenticated, Calls};
use sluice_proto::ids::InstanceId;
use sluice_proto::wire::close;
use sluice_service::grpc::channels::{Caller, Channels, Target};
use sluice_service::tls::Role;
use tokio::sync::watch;
use tokio::time::timeout;

use super::logic::Tokens;
use super::rig::{Client, Rig, SOON};

/// Until logic was asked so many times about many.
async fn until_asked(rig: &Rig, calls: usize) {
    let asked = async {
        while rig.logic.asked().0.len() < calls {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, asked).await.expect("the calls");
}

/// A first client whose call is under way, so that others wait for the next one.
async fn held(rig: &Rig) -> Client {
    rig.logic.hold_tokens(true);
    let first = Client::with_token(rig, "first").await;
    until_asked(rig, 1).await;
    first
}

async fn user(client: &mut Client) -> serde_json::Value {
    client.hear().await["welcome"]["user"].clone()
}

#[tokio::test]
async fn a_crowd_is_one_call_and_a_bad_token_is_refused_alone() {
    let rig = Rig::start(1, false).await;
    let mut first = held(&rig).await;
    let mut crowd = Vec::new();
    for n in 0..20 {
        let token = if n == 7 { "bad".to_owned() } else { format!("user-{n}") };
        crowd.push((Client::with_token(&rig, &token).await, token));
    }
    rig.logic.hold_tokens(false);
    assert_eq!(user(&mut first).await, "first");
    for (client, token) in &mut crowd {
        if token != "bad" {
            assert_eq!(user(client).await, json!(token));
            continue;
        }
        let error = client.hear().await["error"].clone();
        assert_eq!((&error["code"], &error["retry"]), (&json!("unauthorized"), &json!(false)), "{error}");
        assert_eq!(client.hear().await["bye"]["code"], close::UNAUTHORIZED);
    }
    let tokens: Vec<String> = crowd.into_iter().map(|(_, token)| token).collect();
    assert_eq!(rig.logic.asked(), (vec![vec!["first".to_owned()], tokens], Vec::new()));
    rig.stop().await;
}

#[tokio::test]
async fn who_left_while_it_waited_costs_no_call() {
    let rig = Rig::start(1, false).await;
    let mut first = held(&rig).await;
    drop(Client::with_token(&rig, "left").await);
    // What it said before its end is for others to read.
    let mut spoke = Client::with_token(&rig, "spoke").await;
    spoke.say(json!({"pub": "news", "data": 1})).await;
    drop(spoke);
    let mut last = Client::with_token(&rig, "last").await;
    rig.logic.hold_tokens(false);
    assert_eq!((user(&mut first).await, user(&mut last).await), (json!("first"), json!("last")));
    let asked = rig.logic.asked().0;
    assert_eq!(asked, [vec!["first"], vec!["spoke", "last"]]);
    rig.logic.until_called().await;
    rig.stop().await;
}

/// During a roll: the logic that is asked may be the one of before.
#[tokio::test]
async fn a_logic_that_takes_one_at_a_time_is_asked_so() {
    let rig = Rig::start(1, false).await;
    rig.logic.take_tokens(Tokens::Singly);
    let mut first = held(&rig).await;
    let mut good = Client::with_token(&rig, "good").await;
    let mut bad = Client::with_token(&rig, "bad").await;
    rig.logic.hold_tokens(false);
    assert_eq!((user(&mut first).await, user(&mut good).await), (json!("first"), json!("good")));
    assert_eq!(bad.hear().await["error"]["code"], "unauthorized");
    let (together, mut singly) = rig.logic.asked();
    singly.sort();
    assert_eq!((together.len(), singly), (2, tokens(&["bad", "first", "good"])));
    rig.stop().await;
}

/// The way to a rig's logic, without the gateway.
fn calls(rig: &Rig) -> Calls {
    let me = InstanceId::fresh("gateway", "here");
    let target =
        Target { id: InstanceId::fresh("logic", "here"), address: rig.logic_at.clone(), draining: false };
    let targets = watch::Sender::new(std::sync::Arc::new(vec![target])).subscribe();
    let channels = Channels::new(targets, Role::Logic, Caller::fixed(me.clone()));
    Calls::new(channels, watch::Sender::new(me).subscribe())
}

fn tokens(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Asks once: the verdict on each token, or that there is none.
async fn verdicts(calls: &Calls, names: &[&str]) -> Vec<String> {
    let mut verdicts = vec!["open".to_owned(); names.len()];
    let told = |told: Vec<(usize, Authenticated)>| {
        for (place, verdict) in told {
            verdicts[place] = match verdict {
                Authenticated::Known(reply) => reply.user,
                Authenticated::Invalid(_) => "invalid".to_owned(),
                Authenticated::Unavailable => "unavailable".to_owned(),
            };
        }
    };
    calls.authenticate(&tokens(names), told).await;
    verdicts
}

#[tokio::test]
async fn a_call_that_fails_judges_nobody() {
    let rig = Rig::start(1, false).await;
    let calls = calls(&rig);
    rig.logic.take_tokens(Tokens::Failing);
    assert_eq!(verdicts(&calls, &["a", "bad"]).await, ["open", "open"], "nobody is called invalid for it");
    rig.logic.take_tokens(Tokens::Together);
    assert_eq!(verdicts(&calls, &["c", "bad"]).await, ["c", "invalid"]);
    rig.stop().await;
}

#[tokio::test]
async fn who_got_no_verdict_is_asked_about_again() {
    let rig = Rig::start(1, false).await;
    rig.logic.take_tokens(Tokens::Failing);
    let mut client = Client::with_token(&rig, "a").await;
    until_asked(&rig, 2).await;
    rig.logic.take_tokens(Tokens::Together);
    assert_eq!(user(&mut client).await, "a");
    rig.stop().await;
}

#[tokio::test]
async fn what_a_full_reply_left_out_is_asked_again() {
    let rig = Rig::start(1, false).await;
    rig.logic.take_tokens(Tokens::AtMost(2));
    let mut first = held(&rig).await;
    let mut crowd = Vec::new();
    for token in ["a", "bad", "c"] {
        crowd.push(Client::with_token(&rig, token).await);
    }
    rig.logic.hold_tokens(false);
    assert_eq!((user(&mut first).await, user(&mut crowd[0]).await), (json!("first"), json!("a")));
    assert_eq!(crowd[1].hear().await["error"]["code"], "unauthorized");
    assert_eq!(user(&mut crowd[2]).await, "c");
    assert_eq!(rig.logic.asked().0, [tokens(&["first"]), tokens(&["a", "bad", "c"]), tokens(&["c"])]);
    rig.stop().await;
}

/// The others of its batch have their verdicts at once, and who comes meanwhile waits for one try and not for its end.
#[tokio::test]
async fn nobody_waits_for_a_token_that_gets_no_answer() {
    let rig = Rig::start(1, false).await;
    rig.logic.take_tokens(Tokens::Singly);
    rig.logic.hold_slow(true);
    let mut first = held(&rig).await;
    let mut slow = Client::with_token(&rig, "slow").await;
    let mut quick = Client::with_token(&rig, "quick").await;
    rig.logic.hold_tokens(false);
    assert_eq!((user(&mut first).await, user(&mut quick).await), (json!("first"), json!("quick")));
    let mut later = Client::with_token(&rig, "later").await;
    assert_eq!(user(&mut later).await, "later");
    rig.logic.hold_slow(false);
    assert_eq!(user(&mut slow).await, "slow");
    rig.stop().await;
}
