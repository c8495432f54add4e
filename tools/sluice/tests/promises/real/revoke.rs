//! A user is disconnected and the tokens are revoked: on every gateway within a second, whatever is replaced meanwhile, and
//! for as long as the store remembers.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_client::raw::{Frame, Handshake, Socket};
use sluice_launcher::{Options, Service, probe, token};
use sluice_proto::wire::close;
use tokio::time::{Instant, timeout};

use super::Real;
use crate::kit::{Ground, SOON, close_of, json, json_with, socket_of, until};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// Five times what is promised: a second on a machine that has time.
const BOUND: Duration = Duration::from_secs(5);

/// Services that take commands from who has the token in a file of this folder.
async fn cluster(folder: &Path, options: Options) -> Real {
    let file = folder.join("admin.token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    Real::with(options.set(&format!("all.admin.token_file={}", file.display())).unwrap()).await
}

/// `sluice disconnect …`, asked of the first logic.
fn disconnect(arguments: &[&str], cluster: &Real, folder: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.arg("disconnect").args(arguments).args(["--admin", cluster.logic(0).admin()]);
    command.arg("--token-file").arg(folder.join("admin.token"));
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// The same by HTTP, asked of any logic that answers: which second it revoked, once all gateways were told.
async fn disconnected(cluster: &Real, user: &str) -> u64 {
    let (mut at, mut until_s) = (0, None);
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < SOON, "all are told in time");
        at += 1;
        let logics = cluster.nodes(Service::Logic);
        let url = format!("{}/admin/disconnect", logics[at % logics.len()].admin());
        // As whoever did not hear the answer, or heard that somebody was not told: the same once more.
        let body = json!({"user": user, "issued_until": until_s}).to_string();
        let shown = format!("Bearer {TOKEN}");
        let answer = probe::post_with(&url, ("Authorization", &shown), &body, SOON).await;
        let Ok(answer) = answer else { continue };
        let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        until_s = until_s.or(said["revoked_until"].as_u64());
        if answer.status == 200 {
            return said["revoked_until"].as_u64().unwrap();
        }
        assert_eq!(answer.status, 503, "{said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a gateway says to this token: a user, or why not. Nothing while it is being replaced.
async fn let_in(cluster: &Real, at: usize, token: &str) -> Option<Result<String, String>> {
    let handshake = Handshake::new(cluster.ws(at)).token(token);
    let mut socket = timeout(SOON, Socket::connect(&handshake)).await.unwrap().ok()?;
    match timeout(SOON, socket.json()).await.unwrap() {
        Ok(said) if said["welcome"].is_object() => {
            Some(Ok(said["welcome"]["user"].as_str().unwrap().to_owned()))
        }
        Ok(said) if said["error"]["code"] == "unauthorized" => {
            Some(Err(said["error"]["message"].as_str().unwrap().to_owned()))
        }
        // It stops, or nobody could say.
        Ok(_) | Err(_) => None,
    }
}

/// Every gateway refuses this token, and says why.
async fn refused_everywhere(cluster: &Real, token: &str) {
    for at in 0..cluster.entrances().len() {
        let mut said = None;
        until("the gateway judges", SOON, async || {
            said = let_in(cluster, at, token).await;
            said.is_some()
        })
        .await;
        let Some(Err(why)) = said else { panic!("gateway {at}: {said:?}") };
        assert!(why.contains("revoked"), "gateway {at}: {why}");
    }
}

/// With certificates: a logic's is good for this call, and only for this.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_gone_from_every_gateway_and_only_a_later_token_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { gateways: 2, logics: 2, tasks: 1, secure: true, ..Options::default() };
    let cluster = cluster(folder.path(), options).await;
    let old = cluster.token("ann");
    let mut ann = vec![];
    for at in [0, 0, 1] {
        ann.push(socket_of(&cluster, "ann", at).await);
    }
    let mut bob = socket_of(&cluster, "bob", 0).await;
    let began = Instant::now();
    let (code, said) = disconnect(&["ann"], &cluster, folder.path());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("3 connections ended, 2 gateways told"), "{said}");
    for socket in &mut ann {
        assert_eq!(json_with(socket, "bye").await["bye"]["reconnect"], false);
        assert_eq!(close_of(socket).await.0, close::REVOKED);
    }
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    refused_everywhere(&cluster, &old).await;
    // Redis knows nothing of it.
    cluster.flush_redis().await.unwrap();
    refused_everywhere(&cluster, &old).await;
    for index in 0..2 {
        cluster.roll(Service::Logic, index).await;
    }
    refused_everywhere(&cluster, &old).await;
    // The second of the revocation is over by now, and the clock of these tests is that of the store.
    let new = cluster.token("ann");
    for at in 0..2 {
        assert_eq!(let_in(&cluster, at, &new).await, Some(Ok("ann".to_owned())), "gateway {at}");
    }
    bob.send(r#"{"ping":1}"#).await.unwrap();
    assert_eq!(json_with(&mut bob, "ok").await["ok"], "ping", "others hear nothing of it");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_the_token_may_come_back_and_one_room_ends_alone() {
    let folder = tempfile::tempdir().unwrap();
    let cluster =
        cluster(folder.path(), Options { gateways: 2, logics: 1, tasks: 1, ..Options::default() }).await;
    let mut ann = vec![socket_of(&cluster, "ann", 0).await, socket_of(&cluster, "ann", 1).await];
    for (socket, room) in [(0, "news"), (0, "chat"), (1, "news")] {
        ann[socket].send(format!(r#"{{"sub":"{room}"}}"#)).await.unwrap();
        assert_eq!(json_with(&mut ann[socket], "ok").await["room"], room);
    }
    let (code, said) = disconnect(&["ann", "--room", "news"], &cluster, folder.path());
    assert_eq!((code, said.trim()), (Some(0), "2 subscriptions ended, 2 gateways told"));
    for socket in &mut ann {
        assert_eq!(json_with(socket, "unsubscribed").await["unsubscribed"], "news");
    }
    // The other one goes on, on the same connection, and this one is silent.
    let mut bob = socket_of(&cluster, "bob", 1).await;
    for room in ["news", "chat"] {
        bob.send(format!(r#"{{"pub":"{room}","data":1}}"#)).await.unwrap();
        json_with(&mut bob, "ok").await;
    }
    assert_eq!(json(&mut ann[0]).await["msg"], "chat");
    let (code, said) = disconnect(&["ann", "--keep-tokens"], &cluster, folder.path());
    assert_eq!((code, said.trim()), (Some(0), "2 connections ended, 2 gateways told"));
    for socket in &mut ann {
        assert_eq!(json_with(socket, "bye").await["bye"]["reconnect"], true);
        assert_eq!(close_of(socket).await.0, close::DISCONNECTED);
    }
    assert_eq!(let_in(&cluster, 0, &cluster.token("ann")).await, Some(Ok("ann".to_owned())));
    cluster.stop().await;
}

/// Users are disconnected one after the other while every gateway and every logic is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_roll_keeps_nobody_who_was_disconnected() {
    let folder = tempfile::tempdir().unwrap();
    let cluster =
        cluster(folder.path(), Options { gateways: 3, logics: 2, tasks: 1, ..Options::default() }).await;
    let over = std::sync::atomic::AtomicBool::new(false);
    let rolled = async {
        for (service, index) in [
            (Service::Gateway, 0),
            (Service::Logic, 0),
            (Service::Gateway, 1),
            (Service::Logic, 1),
            (Service::Gateway, 2),
        ] {
            cluster.roll(service, index).await;
        }
        over.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    let revoked = async {
        let mut users = Vec::new();
        while !over.load(std::sync::atomic::Ordering::SeqCst) {
            let user = format!("user-{}", users.len());
            let old = cluster.token(&user);
            let mut sockets = Vec::new();
            for at in 0..3 {
                let handshake = Handshake::new(cluster.ws(at)).token(&old);
                // One that is being replaced lets nobody in.
                let Ok(Ok(mut socket)) = timeout(SOON, Socket::connect(&handshake)).await else { continue };
                if matches!(timeout(SOON, socket.json()).await, Ok(Ok(said)) if said["welcome"].is_object()) {
                    sockets.push(socket);
                }
            }
            let began = Instant::now();
            disconnected(&cluster, &user).await;
            let told = Instant::now();
            for socket in &mut sockets {
                // Also by the end of its gateway; a gateway that stops may have told it to come back before that.
                while !matches!(
                    timeout(SOON, socket.next()).await.unwrap(),
                    Frame::Close { .. } | Frame::End(_)
                ) {}
            }
            assert!(told.elapsed() < BOUND, "{user}: {:?} after {:?}", told.elapsed(), began.elapsed());
            refused_everywhere(&cluster, &old).await;
            users.push((user, old));
        }
        users
    };
    let ((), users) = tokio::join!(rolled, revoked);
    assert!(!users.is_empty());
    // After everything was replaced: nobody has forgotten any of them.
    for (_, old) in &users {
        refused_everywhere(&cluster, old).await;
    }
    cluster.stop().await;
}

/// A gateway that hangs is named. A logic that is killed in the middle of a call has revoked, or it has not: the call is
/// made again, of another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_hangs_is_named_and_a_call_whose_logic_dies_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { gateways: 2, logics: 2, tasks: 1, ..Options::default() };
    // It stays registered for longer than this takes.
    let cluster = cluster(folder.path(), options.set("all.etcd.lease_ttl_s=20").unwrap()).await;
    let old = cluster.token("ann");
    let (mut ann, mut bob) = (socket_of(&cluster, "ann", 0).await, socket_of(&cluster, "bob", 0).await);
    let hung = cluster.gateway(1);
    assert!(hung.freeze());
    let (code, said) = disconnect(&["ann"], &cluster, folder.path());
    assert!(code == Some(1) && said.contains("not told: gateway-"), "{said}");
    assert_eq!(close_of(&mut ann).await.0, close::REVOKED, "the other one did it");
    let url = format!("{}/admin/disconnect", cluster.logic(0).admin());
    let call = tokio::spawn(async move {
        let shown = format!("Bearer {TOKEN}");
        probe::post_with(&url, ("Authorization", &shown), r#"{"user":"bob"}"#, SOON).await
    });
    assert_eq!(close_of(&mut bob).await.0, close::REVOKED, "it is in the middle of it");
    assert!(cluster.node(Service::Logic, 0).unwrap().kill());
    assert!(call.await.unwrap().is_err(), "no answer");
    assert!(hung.thaw());
    cluster.start_at(Service::Logic, 0).await.unwrap();
    disconnected(&cluster, "bob").await;
    refused_everywhere(&cluster, &old).await;
    cluster.stop().await;
}

/// Tokens of the command line say when they were issued.
#[tokio::test]
async fn a_minted_token_can_be_revoked_alone() {
    let minted = token::mint("0123456789abcdef", "ann", token::Grants::default(), SOON).unwrap();
    let claims = token::check("0123456789abcdef", &minted).unwrap();
    assert!(claims.iat.is_some_and(|iat| iat + SOON.as_secs() == claims.exp), "{claims:?}");
}
