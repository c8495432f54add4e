//! The HTTP API of the real process, on real servers.

mod grpc;
mod hostile;
mod kit;
mod malformed;
mod stop;
mod users;

use std::time::Duration;

use serde_json::{Value, json};
use sluice_access::ApiKeyEntry;
use sluice_presence::{Change, Presence as _};
use sluice_proto::ids::{InstanceId, RoomId, UserId};

use self::kit::{Served, all};
use super::super::rig::get;
use super::super::stores::{eventually, presence, stores};

#[tokio::test]
async fn what_is_published_is_stored_once_and_read_back() {
    let cluster = stores().await;
    let served = Served::start(&cluster, &[]).await;
    let api = &served.api;
    let body = json!({"room": "news", "data": {"t": "hi"}, "key": "k1", "from": "ann"});
    let first = api.post("publish", &body).await.ok();
    assert_eq!(
        (&first["room"], &first["seq"], &first["duplicate"]),
        (&json!("news"), &json!(1), &json!(false))
    );
    let again = api.post("publish", &body).await.ok();
    assert_eq!(
        (&again["seq"], &again["duplicate"], &again["epoch"]),
        (&json!(1), &json!(true), &first["epoch"])
    );
    // The header is the key, too, quoted or not.
    let keyless = json!({"room": "news", "data": {"t": "hi"}, "from": "ann"});
    for header in ["k1", "\"k1\""] {
        let reply =
            api.send("POST", "/v1/publish", &[("idempotency-key", header)], keyless.to_string()).await;
        assert_eq!(reply.ok()["seq"], 1);
    }
    let other = json!({"room": "news", "data": 2, "key": "k1", "from": "ann"});
    let conflict = api.post("publish", &other).await;
    assert_eq!(
        (conflict.status, &conflict.problem()["code"], &conflict.problem()["retry"]),
        (409, &json!("conflict"), &json!(false))
    );
    let unnamed = api.post("publish", &json!({"room": "news", "data": [1, 2]})).await.ok();
    assert_eq!((&unnamed["seq"], unnamed.get("key")), (&json!(2), None));

    let history = api.get("history?room=news").await.ok();
    assert_eq!(history["messages"][0]["data"], json!({"t": "hi"}));
    assert_eq!(
        (&history["messages"][0]["from"], &history["messages"][0]["key"]),
        (&json!("ann"), &json!("k1"))
    );
    assert_eq!((&history["messages"][1]["from"], history["messages"][1].get("key")), (&json!("test"), None));
    assert_eq!(
        (&history["head"], &history["oldest"], &history["more"]),
        (&json!(2), &json!(1), &json!(false))
    );
    assert_eq!(history["epoch"], first["epoch"]);

    let info = api.get("info").await.ok();
    assert_eq!((&info["key"]["name"], &info["epoch"]), (&json!("test"), &first["epoch"]));
    let me = info["instance"].as_str().unwrap().to_owned();
    eventually("it lists itself", async || api.get("info").await.ok()["instances"].to_string().contains(&me))
        .await;
    let metrics = get(served.logic.admin(), "/metrics").await.1;
    assert!(
        metrics.contains(
            "sluice_logic_api_calls_total{key=\"test\",method=\"publish\",outcome=\"completed\"} 6\n"
        ),
        "{metrics}"
    );
    let status: Value = serde_json::from_str(&get(served.logic.admin(), "/status").await.1).unwrap();
    assert_eq!((&status["api"]["cancelled"], &status["api"]["in_flight"]), (&json!(0), &json!(0)));
    served.end().await;
    cluster.stop().await;
}

#[tokio::test]
async fn pages_of_a_room_hold_everything_once_in_both_directions() {
    let cluster = stores().await;
    let served = Served::start(&cluster, &[]).await;
    let api = &served.api;
    for part in 0..3 {
        let message = |n: u32| json!({"room": "long", "data": n, "key": format!("k{n}")});
        let messages: Vec<Value> = (part * 250..part * 250 + 250).map(message).collect();
        let results = api.post("batch", &json!({"messages": messages})).await.ok();
        let seqs: Vec<u64> =
            results["results"].as_array().unwrap().iter().map(|it| it["seq"].as_u64().unwrap()).collect();
        assert_eq!(
            seqs,
            (u64::from(part) * 250 + 1..=u64::from(part) * 250 + 250).collect::<Vec<_>>(),
            "in order"
        );
    }
    for limit in [1_000, 300, 256, 7 * 41] {
        let (mut after, mut forward) = (0, Vec::new());
        loop {
            let page = api.get(&format!("history?room=long&after={after}&limit={limit}")).await.ok();
            let seqs = kit::seqs(&page);
            assert!(seqs.len() <= limit && (seqs.len() == limit || page["more"] == false), "{}", seqs.len());
            forward.extend(seqs);
            if page["more"] == false {
                break;
            }
            after = page["after"].as_u64().unwrap();
        }
        assert_eq!(forward, (1..=750).collect::<Vec<_>>(), "{limit}");
        let (mut before, mut backward) = (None, Vec::new());
        loop {
            let from = before.map(|before: u64| format!("&before={before}")).unwrap_or_default();
            let page = api.get(&format!("history?room=long&limit={limit}{from}")).await.ok();
            backward.splice(0..0, kit::seqs(&page));
            if page["more"] == false {
                break;
            }
            before = page["before"].as_u64();
        }
        assert_eq!(backward, (1..=750).collect::<Vec<_>>(), "{limit}");
    }
    let none = api.get("history?room=nobody&after=3").await.ok();
    assert_eq!((&none["head"], &none["oldest"], &none["more"]), (&json!(0), &json!(1), &json!(false)));
    let lines = api.get("export?room=long&after=700").await.lines();
    assert_eq!(lines.len(), 51);
    assert_eq!((&lines[0]["seq"], &lines[49]["data"]), (&json!(701), &json!(749)));
    let end = &lines[50]["end"];
    assert_eq!(
        (&end["reason"], &end["after"], &end["more"]),
        (&json!("complete"), &json!(750), &json!(false))
    );
    let empty = api.get("export?room=nobody").await.lines();
    assert_eq!((empty.len(), &empty[0]["end"]["reason"]), (1, &json!("complete")));
    served.end().await;
    cluster.stop().await;
}

#[tokio::test]
async fn many_rooms_are_each_answered_and_listed() {
    let cluster = stores().await;
    let served = Served::start(&cluster, &[]).await;
    let api = &served.api;
    let body = json!({"rooms": ["r.1", "r.2", "r.3", "a*", "@ann"], "data": "hi", "key": "k"});
    for duplicate in [false, true] {
        let results = api.post("broadcast", &body).await.ok()["results"].clone();
        for at in [0, 1, 2, 4] {
            assert_eq!(
                (&results[at]["seq"], &results[at]["duplicate"]),
                (&json!(1), &json!(duplicate)),
                "{results}"
            );
        }
        assert_eq!(
            (&results[3]["room"], &results[3]["error"]["code"]),
            (&json!("a*"), &json!("bad_request"))
        );
    }
    // Somebody is in one of the rooms.
    let redis = presence(&cluster);
    let join = |connection: &str, user: &str| Change::Joined {
        connection: connection.into(),
        user: UserId::parse(user).unwrap(),
        room: RoomId::parse("r.2").unwrap(),
        since_ms: 7,
        watches: false,
    };
    let gateway = InstanceId::parse("gateway-x").unwrap();
    redis.apply(&gateway, &[join("1", "ann"), join("2", "ann"), join("3", "bob")]).await.complete().unwrap();
    let rooms = api.get("rooms?prefix=r.&limit=2").await.ok();
    let shown = |rooms: &Value| -> Vec<(String, u64)> {
        let one = |it: &Value| (it["room"].as_str().unwrap().into(), it["subscribers"].as_u64().unwrap());
        rooms["rooms"].as_array().unwrap().iter().map(one).collect()
    };
    assert_eq!(shown(&rooms), [("r.1".into(), 0), ("r.2".into(), 3)]);
    assert_eq!((&rooms["more"], &rooms["after"]), (&json!(true), &json!("r.2")));
    assert!(rooms["rooms"][0]["at"].as_i64().unwrap() > 0 && rooms["rooms"][0]["head"] == 1);
    assert_eq!(shown(&api.get("rooms?prefix=r.&after=r.2").await.ok()), [("r.3".into(), 0)]);
    let present = api.get("presence?room=r.2&limit=1").await.ok();
    assert_eq!(
        (&present["count"], &present["connections"], &present["more"]),
        (&json!(2), &json!(3), &json!(true))
    );
    assert_eq!(present["users"], json!([{"user": "ann", "connections": 2, "since": 7}]));
    let rest = api.get("presence?room=r.2&after=ann").await.ok();
    assert_eq!((&rest["users"][0]["user"], &rest["more"]), (&json!("bob"), &json!(false)));
    let counts = api.get("presence?room=r.2&limit=0").await.ok();
    assert_eq!((&counts["users"], &counts["count"], &counts["more"]), (&json!([]), &json!(2), &json!(true)));
    assert_eq!(api.get("presence?user=cy").await.ok()["count"], 0);
    served.end().await;
    cluster.stop().await;
}

#[tokio::test]
async fn what_is_scheduled_waits_is_listed_and_can_be_taken_back() {
    let cluster = stores().await;
    let served = Served::start(&cluster, &[]).await;
    let api = &served.api;
    let body = |key: &str| json!({"room": "later", "data": {"n": key}, "key": key, "delay_ms": 3_600_000});
    let due = api.post("schedule", &body("k1")).await.ok()["due"].clone();
    assert!(due.as_i64().unwrap() > 3_600_000);
    assert_eq!(api.post("schedule", &body("k1")).await.ok()["due"], due, "once, with the first time");
    api.post("schedule", &body("k2")).await.ok();
    let unnamed =
        api.post("schedule", &json!({"room": "later", "data": 1, "at": 4_000_000_000_000_i64})).await;
    assert_eq!((unnamed.status, unnamed.problem()["code"].as_str()), (400, Some("bad_request")));
    let list = api.get("scheduled?room=later&limit=1").await.ok();
    assert_eq!(list["messages"], json!([{"from": "test", "key": "k1", "due": due, "data": {"n": "k1"}}]));
    assert_eq!(list["more"], true);
    let rest = api.get("scheduled?room=later&after_from=test&after_key=k1").await.ok();
    assert_eq!((&rest["messages"][0]["key"], &rest["more"]), (&json!("k2"), &json!(false)));
    for _ in 0..2 {
        let cancelled = api.post("cancel", &json!({"room": "later", "key": "k1"})).await.ok();
        assert_eq!(cancelled["cancelled"], true, "and asked again");
    }
    assert_eq!(api.post("cancel", &json!({"room": "later", "key": "none"})).await.ok()["cancelled"], false);
    assert_eq!(api.post("schedule", &body("k1")).await.status, 409, "its key stays used");
    let left = api.get("scheduled?room=later").await.ok();
    assert_eq!(left["messages"].as_array().unwrap().len(), 1);
    // In a batch, beside one for now; the header names those that name themselves nothing.
    let batch = json!({"messages": [
        {"room": "later", "data": 1},
        {"room": "later", "data": 2, "delay_ms": 3_600_000},
        {"room": "later", "data": 3, "delay_ms": 1, "at": 1},
    ]});
    let twice = api.post("batch", &batch).await;
    assert!(twice.status == 400 && twice.problem()["detail"].as_str().unwrap().starts_with("messages[2]"));
    let batch = json!({"messages": [batch["messages"][0], batch["messages"][1]]}).to_string();
    for duplicate in [false, true] {
        let reply = api.send("POST", "/v1/batch", &[("idempotency-key", "b7")], batch.clone()).await.ok();
        assert_eq!(
            (&reply["results"][0]["key"], &reply["results"][0]["duplicate"]),
            (&json!("b7/0"), &json!(duplicate))
        );
        assert_eq!(
            (&reply["results"][1]["key"], reply["results"][1]["due"].is_i64()),
            (&json!("b7/1"), true)
        );
    }
    served.end().await;
    cluster.stop().await;
}

#[tokio::test]
async fn no_more_that_a_key_scheduled_wait_than_may() {
    let cluster = stores().await;
    let settings = [("SLUICE_API__SCHEDULED_PER_KEY", "2")];
    let served = Served::start_with(&cluster, &[all("other", "k2")], &settings).await;
    let message = |room: &str, from: &str, key: &str| json!({"room": room, "data": 1, "from": from, "key": key, "delay_ms": 3_600_000});
    for from in ["ann", "bob"] {
        served.api.post("schedule", &message("a", from, "k")).await.ok();
    }
    // Whoever sends it, wherever to; but what waits already is answered as before.
    let refused = served.api.post("schedule", &message("b", "carol", "k")).await;
    let problem = refused.problem();
    assert_eq!(
        (refused.status, &problem["code"], &problem["retry"]),
        (429, &json!("too_many_scheduled"), &json!(false))
    );
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("api.scheduled_per_key") && refused.header("retry-after").is_none(), "{problem}");
    served.api.post("schedule", &message("a", "ann", "k")).await.ok();
    let batch = json!({"messages": [message("c", "dora", "k"), {"room": "c", "data": 1}]});
    let results = served.api.post("batch", &batch).await.ok()["results"].clone();
    assert_eq!(results[0]["error"]["code"], "too_many_scheduled", "{results}");
    assert_eq!(results[1]["seq"], 1, "at once is another matter: {results}");
    // Of another key, and when there is room again.
    served.api.with_key("k2").post("schedule", &message("b", "carol", "k")).await.ok();
    served.api.post("cancel", &json!({"room": "a", "from": "bob", "key": "k"})).await.ok();
    served.api.post("schedule", &message("b", "dora", "k")).await.ok();
    served.end().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say_until_the_file_says_otherwise() {
    let cluster = stores().await;
    let entry = |name: &str, key: &str| ApiKeyEntry {
        sub: vec!["news.*".into()],
        publish: vec!["news.a".into()],
        ..ApiKeyEntry::of(name, key)
    };
    let slow = ApiKeyEntry { calls_per_s: Some(1), ..all("slow", "ks") };
    let served = Served::start(&cluster, &[entry("narrow", "kn"), slow]).await;
    let narrow = served.api.with_key("kn");
    let publish = |room: &str| json!({"room": room, "data": 1});
    assert_eq!(narrow.post("publish", &publish("news.a")).await.status, 200);
    for (refused, what) in [
        (narrow.post("publish", &publish("news.b")).await, "pub"),
        (narrow.post("cancel", &json!({"room": "x", "key": "k"})).await, "pub"),
        (narrow.get("history?room=news").await, "sub"),
        (narrow.get("export?room=news").await, "sub"),
        (narrow.get("presence?user=ann").await, "sub"),
        (narrow.get("rooms").await, "sub"),
        (narrow.get("scheduled?room=news.b").await, "pub"),
    ] {
        let problem = refused.problem();
        assert_eq!((refused.status, &problem["code"]), (403, &json!("forbidden")), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(&format!("{what:?}")), "{problem}");
    }
    assert_eq!(narrow.get("rooms?prefix=news.").await.ok()["rooms"][0]["room"], "news.a");
    // A call is worth its messages.
    let message = json!({"room": "a", "data": 1});
    let batch = json!({"messages": vec![message; 256]});
    let slow = served.api.with_key("ks");
    let mut last = slow.post("batch", &batch).await;
    for _ in 0..5 {
        last = slow.post("batch", &batch).await;
    }
    assert_eq!(
        (last.status, &last.problem()["code"], &last.problem()["retry"]),
        (429, &json!("rate_limited"), &json!(true))
    );
    assert!(last.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().unwrap() > 0));

    // The file changes: what is not there any more is refused, what is new is taken, and a bad one changes nothing.
    let file = served.keys_file();
    served.write_keys(&[all("new", "k2"), all("test", kit::KEY)]);
    let new = served.api.with_key("k2");
    eventually("the new key is good", async || new.get("info").await.status == 200).await;
    let gone = narrow.get("info").await;
    assert_eq!((gone.status, &gone.problem()["code"]), (401, &json!("unauthorized")));
    assert!(gone.header("www-authenticate").is_some());
    std::fs::write(&file, "keys = 7").unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(new.get("info").await.status, 200);
    std::fs::remove_file(&file).unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(new.get("info").await.status, 200);
    served.write_keys(&[all("test", kit::KEY)]);
    eventually("the key is not good any more", async || new.get("info").await.status == 401).await;
    let ended = served.end().await;
    assert_eq!(ended.log.matches("cannot be used").count(), 2, "once for each bad file: {}", ended.log);
    cluster.stop().await;
}
