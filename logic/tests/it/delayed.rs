//! What is to be published later: judged and answered like a publish, item by item.

use sluice_proto::grpc::Outcome::{self, Cancelled, NotStored, Refused, Scheduled, Stored, Unknown};
use sluice_proto::grpc::delayed_item::When;
use sluice_proto::grpc::{DelayedItem, FireDueRequest, PublishReply, PublishRequest, PublishResult};

use super::fake::{Fault, POISON};
use super::rig::{NOW_MS, call, faked, item, outcomes, publish};

fn later(key: &str, data: &str, when: When) -> DelayedItem {
    DelayedItem { item: Some(item("news", "ann", key, data)), when: Some(when) }
}

fn delayed(items: Vec<DelayedItem>) -> PublishRequest {
    PublishRequest { delayed: items, ..call(Vec::new()) }
}

fn told(reply: &PublishReply) -> Vec<Outcome> {
    reply.delayed.iter().map(PublishResult::outcome).collect()
}

#[tokio::test]
async fn what_is_for_later_is_answered_beside_what_is_for_now() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    let request = PublishRequest {
        items: vec![item("news", "ann", "now", "1")],
        ..delayed(vec![
            later("in", "1", When::DelayMs(500)),
            later("bad", "1}", When::DelayMs(1)),
            later("at", "1", When::DueMs(7)),
            later("in", "", When::Cancel(true)),
        ])
    };
    let reply = publish(&caller, request).await;
    assert_eq!(outcomes(&reply), [Stored]);
    assert_eq!(told(&reply), [Scheduled, Refused, Scheduled, Cancelled]);
    let due: Vec<i64> = reply.delayed.iter().map(|result| result.due_ms).collect();
    assert_eq!(due, [1_500, 0, 7, 0], "by the clock of the store");
    assert_eq!(reply.delayed[1].code, "bad_request");
    assert_eq!(faked.store.keys("news"), ["now"], "nothing of it is published");
    let work = faked.rig.stop().await.work;
    assert_eq!((work.accepted, work.completed, work.rejected), (5, 4, 1), "each is work, and counted once");
}

#[tokio::test]
async fn a_failure_says_whether_anything_was_kept() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    let items = || vec![later("a", "1", When::DelayMs(1)), later("b", "1", When::DelayMs(1))];
    faked.store.script([Fault::Unreachable]);
    assert_eq!(told(&publish(&caller, delayed(items())).await), [NotStored; 2]);
    faked.store.script([Fault::Unknown { stored: true }]);
    assert_eq!(told(&publish(&caller, delayed(items())).await), [Unknown; 2]);
    // One that no store can hold harms no other.
    let mut poisoned = items();
    poisoned.insert(1, later("p", POISON, When::DelayMs(1)));
    assert_eq!(told(&publish(&caller, delayed(poisoned)).await), [Scheduled, Refused, Scheduled]);
    let late = PublishRequest { not_after_ms: NOW_MS - 1, ..delayed(items()) };
    assert_eq!(told(&publish(&caller, late).await), [NotStored; 2]);
    let work = faked.rig.stop().await.work;
    assert_eq!((work.completed, work.rejected, work.cancelled, work.in_flight), (2, 1, 6, 0));
}

#[tokio::test]
async fn one_more_than_may_wait_is_refused_with_a_code_of_its_own() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    let items = ["a", "b"].map(|key| later(key, "1", When::DelayMs(1))).to_vec();
    let request = PublishRequest { scheduled_max: 1, ..delayed(items.clone()) };
    let reply = publish(&caller, request).await;
    assert_eq!(told(&reply), [Scheduled, Refused]);
    assert_eq!(reply.delayed[1].code, "too_many_scheduled");
    // A gateway of the version before says nothing of a limit.
    assert_eq!(told(&publish(&caller, delayed(items)).await), [Scheduled; 2]);
    let work = faked.rig.stop().await.work;
    assert_eq!((work.completed, work.rejected), (3, 1));
}

#[tokio::test]
async fn only_the_eight_parts_are_fired() {
    let faked = faked().await;
    let mut caller = faked.rig.caller().await;
    let reply = caller.fire_due(FireDueRequest { part: 7 }).await.unwrap().into_inner();
    assert_eq!((reply.fired, reply.next_in_ms), (0, None));
    for part in [8, 256] {
        let error = caller.fire_due(FireDueRequest { part }).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
    }
    faked.rig.stop().await;
}
