//! What each service counts in its life: the same in `/status` and in the last line of its log, and nothing is left out.

use serde_json::{Value, json};
use sluice_launcher::{Node, Service};
use sqlx::Connection as _;

use super::super::operators::page;
use super::super::{Real, term};
use crate::kit::{Ground, SOON, json_with, socket_of, until};

/// Accepted, completed, rejected, cancelled.
type Sums = [u64; 4];

fn sums(of: &Value) -> Sums {
    ["accepted", "completed", "rejected", "cancelled"].map(|name| of[name].as_u64().unwrap())
}

/// What its status page says when nothing is under way and `holds`.
async fn at_rest(node: &Node, holds: impl Fn(Sums) -> bool) -> Value {
    let mut status = Value::Null;
    until(&format!("{} has counted", node.name()), SOON, async || {
        status = page(node, "/status").await;
        status["in_flight"] == 0 && holds(sums(&status))
    })
    .await;
    assert_eq!(sums(&status), sums(&status["counts"]), "{status}");
    status
}

/// Stops it; what its last line says, which must be as much as its page said and of background tasks no less.
async fn last_line(node: &Node, status: &Value) -> Sums {
    term(node).await;
    let log = std::fs::read_to_string(node.log()).unwrap();
    let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(last["message"], "Stopped", "{last}");
    let counts = &last["counts"];
    let [accepted, completed, rejected, cancelled] = sums(counts);
    assert_eq!(accepted, completed + rejected + cancelled, "nothing is left out: {last}");
    assert_eq!(last["processed_count"], completed + rejected, "{last}");
    for name in ["tasks_completed", "tasks_cancelled"] {
        let (then, now) = (status["counts"][name].as_u64(), counts[name].as_u64());
        assert!(now.unwrap_or_default() >= then.unwrap_or_default(), "{name}: {last}");
    }
    assert!(counts["tasks_completed"].as_u64().unwrap() > 0, "{last}");
    [accepted, completed, rejected, cancelled]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_totals_of_each_service_are_the_same_on_its_page_and_in_its_last_line() {
    let cluster = Real::start(1, 1, 1).await;
    let [gateway, logic, task] = Service::SERVICES.map(|service| cluster.node(service, 0).unwrap());
    let mut ann = socket_of(&cluster, "ann", 0).await;
    let publish = |key: &str, data: u64| json!({ "pub": "news", "data": data, "key": key }).to_string();
    for key in ["a", "b", "c"] {
        ann.send(publish(key, 1)).await.unwrap();
        json_with(&mut ann, "ok").await;
    }
    ann.send(publish("a", 2)).await.unwrap();
    assert_eq!(json_with(&mut ann, "error").await["error"]["code"], "conflict");
    for node in [&gateway, &logic] {
        at_rest(node, |sums| sums == [4, 3, 1, 0]).await;
    }

    // One that can have no outcome: the gateway gives it up, logic is told by the store that it is not stored.
    let mut store = cluster.look().await;
    let mut hold = store.begin().await.unwrap();
    sqlx::query("lock table messages in access exclusive mode").execute(&mut *hold).await.unwrap();
    ann.send(publish("d", 1)).await.unwrap();
    let mut status = Value::Null;
    until("it is under way", SOON, async || {
        status = page(&gateway, "/status").await;
        status["in_flight"] == 1
    })
    .await;
    assert_eq!(last_line(&gateway, &status).await, [5, 3, 1, 1]);
    let status = at_rest(&logic, |[.., cancelled]| cancelled > 0).await;
    let last = last_line(&logic, &status).await;
    assert_eq!((last, last[1], last[2]), (sums(&status), 3, 1));
    hold.rollback().await.unwrap();

    let status = at_rest(&task, |[_, completed, ..]| completed > 0).await;
    let last = last_line(&task, &status).await;
    assert_eq!((last, last[2], last[3]), (sums(&status), 0, 0));
    cluster.stop().await;
}
