//! The commit groups under faults: what is together, what is isolated, and what is honest.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_proto::grpc::Outcome::{Conflict, Duplicate, NotStored, Refused, Stored, Unknown};
use sluice_proto::grpc::PublishRequest;

use super::fake::{Fault, POISON};
use super::rig::{NOW_MS, call, faked, item, outcomes, publish, publishing, sent, within};

#[tokio::test]
async fn stored_duplicate_conflict_and_refused_are_told_apart() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    let reply = publish(
        &caller,
        call(vec![
            item("news", "ann", "k1", "1"),
            item("news", "ann", "k1", "1"),
            item("ne\0ws", "ann", "k2", "1"),
            item("news", "ann", "k1", "2"),
            item("news", "bob", "k1", "2"),
        ]),
    )
    .await;
    assert_eq!(outcomes(&reply), [Stored, Duplicate, Refused, Conflict, Stored]);
    assert_eq!(reply.epoch, 42);
    let seqs: Vec<u64> = reply.results.iter().map(|result| result.seq).collect();
    assert_eq!(seqs, [1, 1, 0, 0, 2], "a conflict does not say where the other message is");
    assert_eq!(reply.results[0].at_ms, NOW_MS);
    assert_eq!(reply.results[2].code, "bad_request");
    let notices = sent(&faked.queue, 1).await;
    let run = &notices[0].runs[0];
    assert_eq!((run.room.as_str(), run.first, run.last, run.messages.len()), ("news", 1, 2, 2));
    let (_, status) = super::rig::get(faked.rig.admin, "/status").await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let names = ["accepted", "completed", "rejected", "cancelled", "processed_count", "in_flight"];
    assert_eq!(names.map(|name| status[name].as_u64().unwrap()), [5, 3, 2, 0, 5, 0], "{status}");
    assert_eq!((&status["accepting"], &status["is_processing"]), (&true.into(), &false.into()));
    let report = faked.rig.stop().await;
    assert!(report.is_clean() && report.work.processed() == 5, "{report:?}");
}

/// A caller that is no gateway of ours, or one that has gone mad, says what it likes.
#[tokio::test]
async fn what_would_forge_a_frame_is_refused_whoever_hands_it_over() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    let forged = [
        // Each would be read out of the frame of a message, or end the reader.
        r#"1,"bye":{"code":1000,"reason":"go away"}"#,
        r#"1}{"bye":{"code":1000}"#,
        r#""a","seq":9"#,
        r#""\ud800""#,
        "1e999",
        &deep,
        "\"\u{1}\"",
    ];
    let items: Vec<_> = forged.iter().map(|data| item("news", "ann", "k", data)).collect();
    let reply = publish(&caller, call(items)).await;
    assert_eq!(outcomes(&reply), [Refused; 7]);
    assert!(reply.results.iter().all(|result| result.code == "bad_request"), "{reply:?}");
    let named = [item("new*", "ann", "k", "1"), item("news", "", "k", "1"), item("news", "ann", "k\n", "1")];
    assert_eq!(outcomes(&publish(&caller, call(named.into())).await), [Refused; 3]);
    assert!(faked.store.groups().is_empty(), "nothing of it came near the store");
    assert!(faked.rig.stop().await.is_clean());
}

#[tokio::test]
async fn a_call_is_never_split_over_two_groups() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    let many = |name: &str, items: usize| {
        call((0..items).map(|n| item("news", name, &format!("{name}{n}"), "1")).collect())
    };
    faked.store.hold();
    let first = publishing(&caller, many("a", 1));
    faked.store.arrived(1).await;
    // While the first group commits, three calls of 100 gather: two fit into the next group, whole.
    let mut rest = Vec::new();
    for name in ["b", "c", "d"] {
        rest.push(publishing(&caller, many(name, 100)));
    }
    let waiting = async || {
        let (_, status) = super::rig::get(faked.rig.admin, "/status").await;
        serde_json::from_str::<serde_json::Value>(&status).unwrap()["calls_waiting"].as_u64().unwrap()
    };
    while waiting().await < 3 {
        tokio::task::yield_now().await;
    }
    faked.store.release();
    assert_eq!(outcomes(&first.await.unwrap()), [Stored]);
    for reply in rest {
        assert_eq!(outcomes(&reply.await.unwrap()), [Stored; 100]);
    }
    let groups = faked.store.groups();
    assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [1, 200, 100]);
    for group in &groups[1..] {
        for hundred in group.chunks(100) {
            assert!(hundred.iter().all(|key| key[..1] == hundred[0][..1]), "one call after the other");
        }
    }
}

#[tokio::test]
async fn a_call_above_the_bounds_of_a_group_is_refused_as_a_whole() {
    let faked = faked().await;
    let mut caller = faked.rig.caller().await;
    let items = (0..257).map(|n| item("news", "ann", &n.to_string(), "1")).collect();
    let error = caller.publish(call(items)).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    let timeless = PublishRequest { items: vec![item("news", "ann", "k", "1")], ..PublishRequest::default() };
    assert_eq!(caller.publish(timeless).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    assert!(faked.store.groups().is_empty());
}

#[tokio::test]
async fn poison_is_refused_and_nobody_else_suffers() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    let reply = publish(
        &caller,
        call(vec![
            item("news", "ann", "k1", "1"),
            item("news", "eve", "k2", POISON),
            item("news", "ann", "k3", "3"),
        ]),
    )
    .await;
    assert_eq!(outcomes(&reply), [Stored, Refused, Stored]);
    assert_eq!(faked.store.keys("news"), ["k1", "k3"]);
}

/// The room `locked` and others of its lane.
fn one_lane() -> [String; 3] {
    let lane = |room: &str| sluice_proto::ids::RoomId::parse(room).unwrap().lane();
    let mut beside = (0..).map(|n| format!("room-{n}")).filter(|room| lane(room) == lane("locked"));
    ["locked".to_owned(), beside.next().unwrap(), beside.next().unwrap()]
}

#[tokio::test]
async fn a_locked_room_holds_up_no_other_and_nobody_overtakes_itself() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    let [locked, b, c] = &one_lane();
    faked.store.lock(locked);
    let items =
        [(b, "ann", "k1"), (locked, "ann", "k2"), (c, "ann", "k3"), (b, "bob", "k4"), (c, "bob", "k5")];
    let items = || items.iter().map(|(room, sender, key)| item(room, sender, key, "1")).collect();
    let reply = publish(&caller, call(items())).await;
    assert_eq!(outcomes(&reply), [Stored, NotStored, NotStored, Stored, Stored]);
    let codes: Vec<_> = reply.results.iter().map(|result| result.code.as_str()).collect();
    assert_eq!(codes, ["", sluice_proto::ROOM_LOCKED, "", "", ""], "what waits behind is not locked itself");
    // The only room of its group: nothing to go on with.
    let reply = publish(&caller, call(vec![item(locked, "bob", "k6", "1")])).await;
    assert_eq!(outcomes(&reply), [NotStored]);
    assert_eq!(faked.store.groups().len(), 3);
}

#[tokio::test]
async fn isolation_stops_at_the_first_failure_that_is_not_poison() {
    for (fault, outcome) in [
        (Fault::Unknown { stored: true }, Unknown),
        (Fault::Unknown { stored: false }, Unknown),
        (Fault::Unreachable, NotStored),
    ] {
        let faked = faked().await;
        let caller = faked.rig.caller().await;
        // The group, k1, the poison, then the fault for k3: k4 of the same sender must not overtake it.
        faked.store.script([Fault::Pass, Fault::Pass, Fault::Pass, fault]);
        let reply = publish(
            &caller,
            call(vec![
                item("news", "ann", "k1", "1"),
                item("news", "eve", "k2", POISON),
                item("news", "ann", "k3", "3"),
                item("news", "ann", "k4", "4"),
            ]),
        )
        .await;
        assert_eq!(outcomes(&reply), [Stored, Refused, outcome, NotStored], "{fault:?}");
        assert!(!faked.store.keys("news").contains(&"k4".to_owned()));
        let groups = faked.store.groups();
        assert_eq!(groups.last().unwrap(), &["k3"], "nothing came after the failure: {groups:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_an_absent_store_is_not_stored() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    faked.store.script([Fault::Unknown { stored: true }, Fault::Unreachable]);
    let request = || call(vec![item("news", "ann", "k1", "1"), item("news", "ann", "k2", "2")]);
    let lost = publish(&caller, request()).await;
    assert_eq!((outcomes(&lost), lost.epoch), (vec![Unknown, Unknown], 0));
    assert_eq!(outcomes(&publish(&caller, request()).await), [NotStored, NotStored]);
    assert_eq!(outcomes(&publish(&caller, request()).await), [Duplicate, Duplicate]);
}

#[tokio::test]
async fn what_waits_past_its_deadline_is_never_executed() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    faked.store.hold();
    let first = publishing(&caller, call(vec![item("news", "ann", "k1", "1")]));
    faked.store.arrived(1).await;
    let late = within(Duration::from_millis(100), call(vec![item("news", "ann", "k2", "2")]));
    assert!(caller.clone().publish(late).await.is_err(), "its caller has gone");
    // Logic counts the deadline from when the call reached it, which was before its caller gave up.
    tokio::time::sleep(Duration::from_millis(101)).await;
    let after = publishing(&caller, call(vec![item("news", "ann", "k3", "3")]));
    faked.store.release();
    assert_eq!(outcomes(&first.await.unwrap()), [Stored]);
    assert_eq!(outcomes(&after.await.unwrap()), [Stored]);
    assert_eq!(faked.store.keys("news"), ["k1", "k3"]);
}

#[tokio::test]
async fn past_not_after_nothing_is_stored() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    let until = |not_after_ms, key: &str| PublishRequest {
        items: vec![item("news", key, key, "1")],
        not_after_ms,
        ..PublishRequest::default()
    };
    // By logic's own clock: not even asked.
    faked.clock.set_ms(NOW_MS + 500);
    assert_eq!(outcomes(&publish(&caller, until(NOW_MS + 499, "k1")).await), [NotStored]);
    assert!(faked.store.groups().is_empty());
    // By the store's clock, in a group with others: each call by its own time.
    faked.store.hold();
    let first = publishing(&caller, until(NOW_MS + 9_000, "k2"));
    faked.store.arrived(1).await;
    let calls = [(NOW_MS + 9_000, "k3"), (NOW_MS + 600, "k4"), (NOW_MS + 9_000, "k5")];
    let gathered = calls.map(|(not_after, key)| publishing(&caller, until(not_after, key)));
    while !super::rig::get(faked.rig.admin, "/status").await.1.contains("\"calls_waiting\":3") {
        tokio::task::yield_now().await;
    }
    faked.store.now_ms.store(NOW_MS + 700, Ordering::SeqCst);
    faked.store.release();
    assert_eq!(outcomes(&first.await.unwrap()), [Stored]);
    let mut all = Vec::new();
    for reply in gathered {
        all.extend(outcomes(&reply.await.unwrap()));
    }
    assert_eq!(all, [Stored, NotStored, Stored]);
}

#[tokio::test]
async fn an_answer_speaks_of_one_epoch() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    // The store is exchanged while the items of a poisoned call run singly.
    faked.store.script([Fault::Pass, Fault::Epoch(7), Fault::Epoch(8)]);
    let reply = publish(
        &caller,
        call(vec![
            item("news", "ann", "k1", "1"),
            item("news", "ann", "k2", "2"),
            item("news", "eve", "k3", POISON),
        ]),
    )
    .await;
    assert_eq!(reply.epoch, 7);
    assert_eq!(outcomes(&reply), [Stored, Unknown, NotStored]);
}

#[tokio::test]
async fn a_queue_that_is_away_delays_no_publish() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    faked.queue.set_away(true);
    for n in 0..200 {
        let reply = publish(&caller, call(vec![item("news", "ann", &n.to_string(), "1")])).await;
        assert_eq!(outcomes(&reply), [Stored]);
    }
    faked.queue.set_away(false);
    publish(&caller, call(vec![item("news", "ann", "last", "1")])).await;
    assert_eq!(sent(&faked.queue, 1).await[0].runs[0].first, 201, "what was dropped is the sweep's");
}
