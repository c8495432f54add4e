//! Who comes into watched rooms and leaves them, as it is handed over to be told.

use std::time::Duration;

use sluice_proto::grpc::{
    ChangeKind, HeadsRequest, Notice, PresenceEvent, PresenceRequest, RoomRun, StatusChange, StatusRequest,
    TellLeavesRequest, presence_request,
};
use sluice_testing::eventually;
use tokio::time::timeout;

use crate::rig::{Caller, Faked, faked, sent};

fn change(kind: ChangeKind, connection: &str, user: &str) -> StatusChange {
    let of_room = matches!(kind, ChangeKind::Joined | ChangeKind::Left);
    StatusChange {
        kind: kind.into(),
        connection: connection.into(),
        user: user.into(),
        room: if of_room { "news".into() } else { String::new() },
        since_ms: 5,
        ..StatusChange::default()
    }
}

async fn report(caller: &Caller, changes: Vec<StatusChange>) {
    let report = StatusRequest { instance: "gateway-a-1".into(), changes, ..StatusRequest::default() };
    assert!(caller.clone().report_status(report).await.unwrap().into_inner().stored);
}

/// A logic that has seen the epoch, and somebody who watches `news`.
async fn watched() -> (Faked, Caller) {
    let faked = faked().await;
    faked.presence.set_away(false);
    let caller = faked.rig.caller().await;
    let epoch = async || caller.clone().heads(HeadsRequest::default()).await.unwrap().into_inner().epoch;
    eventually("the epoch is known", Duration::from_secs(5), async || epoch().await != 0).await;
    let watches = StatusChange { watches: true, ..change(ChangeKind::Joined, "w", "watcher") };
    report(&caller, vec![change(ChangeKind::Connected, "w", "watcher"), watches]).await;
    (faked, caller)
}

fn events(notice: &Notice) -> Vec<PresenceEvent> {
    assert!(notice.epoch != 0, "under an epoch of its own it would close the rooms of every gateway");
    let [RoomRun { room, first: 0, last: 0, messages, presence, .. }] = &notice.runs[..] else {
        panic!("{notice:?}")
    };
    assert_eq!((room.as_str(), messages.len()), ("news", 0));
    presence.clone()
}

#[tokio::test]
async fn joins_and_leaves_of_a_watched_room_are_handed_over_once() {
    let (faked, caller) = watched().await;
    let says = StatusChange { info: "{\"n\":1}".into(), ..change(ChangeKind::Connected, "1", "ann") };
    let comes = vec![says, change(ChangeKind::Joined, "1", "ann")];
    report(&caller, comes.clone()).await;
    let joined = timeout(Duration::from_secs(5), sent(&faked.queue, 1)).await.expect("a notice");
    let [event] = &events(&joined[0])[..] else { panic!("{joined:?}") };
    assert_eq!((event.user.as_str(), event.left, event.info.as_str()), ("ann", false, "{\"n\":1}"));

    let of = Some(presence_request::Of::Room("news".into()));
    let page = caller.clone().presence(PresenceRequest { of, ..PresenceRequest::default() }).await;
    let users = page.unwrap().into_inner().users;
    assert_eq!((users[0].user.as_str(), users[0].info.as_str()), ("ann", "{\"n\":1}"));

    let left = StatusChange { goodbye: true, ..change(ChangeKind::Left, "1", "ann") };
    report(&caller, vec![left, change(ChangeKind::Disconnected, "1", "ann")]).await;
    let tell = async || caller.clone().tell_leaves(TellLeavesRequest {}).await.unwrap().into_inner().told;
    assert_eq!(tell().await, 0, "not at once");
    eventually("the leave is told", Duration::from_secs(5), async || tell().await == 1).await;
    let left = timeout(Duration::from_secs(5), sent(&faked.queue, 1)).await.expect("a notice");
    let [event] = &events(&left[0])[..] else { panic!("{left:?}") };
    assert_eq!((event.user.as_str(), event.left), ("ann", true));
    assert_eq!(tell().await, 0, "once");
}

#[tokio::test]
async fn what_nobody_watches_is_not_handed_over() {
    let (faked, caller) = watched().await;
    let elsewhere = StatusChange { room: "other".into(), ..change(ChangeKind::Joined, "1", "ann") };
    report(&caller, vec![change(ChangeKind::Connected, "1", "ann"), elsewhere]).await;
    report(&caller, vec![change(ChangeKind::Joined, "1", "ann")]).await;
    let notices = timeout(Duration::from_secs(5), sent(&faked.queue, 1)).await.expect("a notice");
    assert_eq!(events(&notices[0]).len(), 1, "the first notice is the watched room's");
}
