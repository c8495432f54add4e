//! Stops: who is waited for, and who is not.

use std::time::{Duration, Instant};

use sluice_cluster::InstanceState;
use sluice_lifecycle::{Report, Stage, StageOutcome};
use sluice_presence::Presence as _;
use sluice_presence::memory::MemoryPresence;
use sluice_proto::grpc::Outcome::Stored;
use sluice_proto::grpc::{AuthenticateRequest, HeadsRequest, SubscribeRequest};
use sluice_proto::ids::RoomId;
use sluice_service::grpc::{DRAINING_HEADER, INSTANCE_HEADER};
use tokio::net::TcpStream;
use tonic::Request;

use super::rig::{
    AT_ONCE, Caller, SECRET, STAY, TOTAL, call, faked, get, item, outcomes, publish, publishing, sent,
    starting,
};

fn took(report: &Report, stage: Stage) -> Duration {
    report.stages.iter().find(|s| s.stage == stage).unwrap().elapsed
}

/// A gateway says that it is connected, and whether it drains.
pub async fn hello(caller: &Caller, instance: &str, draining: bool) {
    let mut request = Request::new(HeadsRequest { rooms: Vec::new() });
    request.metadata_mut().insert(INSTANCE_HEADER, instance.parse().unwrap());
    if draining {
        request.metadata_mut().insert(DRAINING_HEADER, "1".parse().unwrap());
    }
    caller.clone().heads(request).await.unwrap();
}

#[tokio::test]
async fn an_idle_logic_stops_at_once_also_with_a_silent_tcp_connection() {
    let faked = faked().await;
    let silent = TcpStream::connect(faked.rig.grpc).await.unwrap();
    let caller = faked.rig.caller().await;
    publish(&caller, call(vec![item("news", "ann", "k", "1")])).await;
    assert_eq!(get(faked.rig.admin, "/readyz").await.0, 200);
    let states = faked.neighbours.states();
    let began = Instant::now();
    let report = faked.rig.stop().await;
    assert!(report.is_clean(), "{report:?}");
    assert!(began.elapsed() < AT_ONCE, "{report:?}");
    assert_eq!(states.await.unwrap(), [InstanceState::Serving, InstanceState::Draining]);
    drop(silent);
}

#[tokio::test]
async fn a_serving_gateway_is_no_reason_to_stay() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    hello(&caller, "gateway-a-1", false).await;
    let report = faked.rig.stop().await;
    assert!(took(&report, Stage::NotReady) < AT_ONCE, "{report:?}");
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test]
async fn the_last_logic_answers_draining_gateways_until_they_are_gone() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    hello(&caller, "gateway-a-1", false).await;
    let mut progress = faked.rig.lifecycle.progress();
    let (store, lifecycle) = (faked.store.clone(), faked.rig.lifecycle.clone());
    let report = tokio::spawn(faked.rig.stop());
    progress.wait_for(|progress| progress.stage == Stage::NotReady).await.unwrap();
    // The gateway was signalled a moment later, and says so within the look.
    hello(&caller, "gateway-a-1", true).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(lifecycle.stage(), Stage::NotReady);
    let reply = publish(&caller, call(vec![item("news", "ann", "k", "1")])).await;
    assert_eq!(outcomes(&reply), [Stored]);
    drop(caller);
    let report = report.await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert!(report.elapsed < STAY, "{report:?}");
    assert_eq!(store.keys("news"), ["k"]);
}

#[tokio::test]
async fn a_logic_that_is_not_the_last_does_not_stay() {
    let faked = faked().await;
    faked.neighbours.logic(InstanceState::Serving).await;
    let caller = faked.rig.caller().await;
    hello(&caller, "gateway-a-1", true).await;
    let report = faked.rig.stop().await;
    assert!(took(&report, Stage::NotReady) < AT_ONCE, "{report:?}");
}

#[tokio::test]
async fn the_last_logic_leaves_when_another_one_serves() {
    let faked = faked().await;
    faked.neighbours.logic(InstanceState::Draining).await;
    let caller = faked.rig.caller().await;
    hello(&caller, "gateway-a-1", true).await;
    let (neighbours, mut progress) = (faked.neighbours.clone(), faked.rig.lifecycle.progress());
    let report = tokio::spawn(faked.rig.stop());
    progress.wait_for(|progress| progress.stage == Stage::NotReady).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    neighbours.logic(InstanceState::Serving).await;
    let report = report.await.unwrap();
    assert!(report.elapsed < STAY, "{report:?}");
}

#[tokio::test]
async fn a_draining_task_is_no_reason_to_stay() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    hello(&caller, "task-a-1", true).await;
    let report = faked.rig.stop().await;
    assert!(took(&report, Stage::NotReady) < AT_ONCE, "{report:?}");
}

#[tokio::test]
async fn accepted_calls_are_answered_during_the_stop() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    faked.store.hold();
    let first = publishing(&caller, call(vec![item("news", "ann", "k1", "1")]));
    faked.store.arrived(1).await;
    let second = publishing(&caller, call(vec![item("news", "ann", "k2", "2")]));
    while !get(faked.rig.admin, "/status").await.1.contains("\"calls_waiting\":1") {
        tokio::task::yield_now().await;
    }
    let (store, queue, mut progress) =
        (faked.store.clone(), faked.queue.share(), faked.rig.lifecycle.progress());
    let report = tokio::spawn(faked.rig.stop());
    progress.wait_for(|progress| progress.stage == Stage::Drain).await.unwrap();
    store.release();
    assert_eq!(outcomes(&first.await.unwrap()), [Stored]);
    assert_eq!(outcomes(&second.await.unwrap()), [Stored]);
    let report = report.await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    let rooms = sent(&queue, 1).await.iter().flat_map(|notice| notice.runs.clone()).count();
    assert!(rooms >= 1, "what was committed last is handed over before the end");
}

#[tokio::test]
async fn a_stuck_commit_is_named_and_the_stop_ends_all_the_same() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    faked.store.hold();
    let stuck = publishing(&caller, call(vec![item("news", "ann", "k1", "1")]));
    faked.store.arrived(1).await;
    let report = faked.rig.stop().await;
    let late = |stage| match report.outcome(stage).unwrap() {
        StageOutcome::Late(who) => who.iter().map(|(name, _)| name.clone()).collect(),
        other @ (StageOutcome::Done | StageOutcome::Failed | StageOutcome::Skipped) => {
            vec![format!("{other:?}")]
        }
    };
    assert!(late(Stage::Drain).iter().any(|name| name.starts_with("grpc")), "{report:?}");
    assert!(late(Stage::Flush).contains(&"publish".to_owned()), "{report:?}");
    assert!(report.elapsed < TOTAL, "{report:?}");
    assert_eq!(report.exit_code(), 0);
    assert!(stuck.await.is_err(), "its caller sees a broken call, never an answer");
}

#[tokio::test]
async fn rooms_open_without_redis_and_reports_say_that_they_were_not_stored() {
    let faked = faked().await;
    let mut caller = faked.rig.caller().await;
    publish(&caller, call(vec![item("news", "ann", "k", "1")])).await;
    let request = SubscribeRequest { instance: "gateway-a-1".into(), rooms: vec!["news".into(), "x".into()] };
    let reply = caller.subscribe(request.clone()).await.unwrap().into_inner();
    assert_eq!((reply.heads, reply.interest_stored, reply.epoch, reply.marker), (vec![1, 0], false, 42, 0));
    let status = sluice_proto::grpc::StatusRequest {
        instance: "gateway-a-1".into(),
        changes: vec![sluice_proto::grpc::StatusChange {
            kind: sluice_proto::grpc::ChangeKind::InterestRemoved.into(),
            room: "news".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    assert!(!caller.report_status(status.clone()).await.unwrap().into_inner().stored);

    faked.presence.set_away(false);
    let reply = caller.subscribe(request).await.unwrap().into_inner();
    assert!(reply.interest_stored);
    let interested = async || faked.presence.interested(&[RoomId::parse("news").unwrap()]).await.unwrap();
    assert_eq!(interested().await[0].len(), 1);
    assert!(caller.report_status(status).await.unwrap().into_inner().stored);
    assert_eq!(interested().await[0].len(), 0);
}

#[tokio::test]
async fn tokens_are_judged_over_grpc() {
    let faked = faked().await;
    let mut caller = faked.rig.caller().await;
    let auth = sluice_logic::auth::Auth::new(SECRET, None);
    let claims = sluice_logic::auth::Claims { sub: "ann".into(), ..Default::default() };
    let token = auth.sign(&claims).unwrap();
    let reply = caller.authenticate(AuthenticateRequest { token }).await.unwrap().into_inner();
    assert_eq!((reply.user.as_str(), reply.anonymous, reply.expires_at_ms), ("ann", false, 0));
    assert_eq!(reply.grants.unwrap().sub, ["@ann"]);
    let error = caller.authenticate(AuthenticateRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unauthenticated);
    assert!(error.message().contains("token is needed"), "{error}");
}

#[tokio::test]
async fn what_comes_before_the_store_is_reached_is_refused_at_once() {
    let (rig, neighbours) = starting(MemoryPresence::default()).await;
    let mut caller = rig.caller().await;
    let error = caller.publish(call(vec![item("news", "ann", "k", "1")])).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable);
    let (status, body) = get(rig.admin, "/readyz").await;
    assert_eq!(status, 503, "{body}");
    let states = neighbours.states();
    let report = rig.stop().await;
    assert!(report.is_clean() && report.elapsed < AT_ONCE, "{report:?}");
    assert_eq!(states.await.unwrap(), [InstanceState::Draining], "it never said that it serves");
}
