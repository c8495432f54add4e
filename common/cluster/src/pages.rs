//! Instances and duties as JSON, for admin pages. Shows, decides nothing.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_proto::ids::InstanceId;

use crate::{ClusterView, DutyInfo, Instance, InstanceState, LeaseLeft};

/// `/admin/instances`: who is there, as last known, and what is left of its lease, as far as the registry said it.
/// `now_ms` is the wall clock.
#[must_use]
pub fn instances(view: &ClusterView, leases: &HashMap<InstanceId, LeaseLeft>, now_ms: i64) -> Value {
    let mut all: Vec<_> = view.instances.values().collect();
    all.sort_by(|a, b| (a.service, &a.id).cmp(&(b.service, &b.id)));
    let one = |instance: &&Instance| {
        let lease = leases.get(&instance.id);
        let heard = lease.map(|lease| lease.granted.saturating_sub(lease.left));
        json!({
            "id": instance.id.as_str(),
            "service": instance.service.as_str(),
            "address": instance.address,
            "url": instance.url,
            "version": instance.version,
            "started_ms": instance.started_ms,
            "state": match instance.state { InstanceState::Serving => "serving", InstanceState::Draining => "draining" },
            "ttl_s": lease.map(|lease| lease.left.as_secs()),
            "last_seen_ms": heard.map(|ago| before(now_ms, ago)),
            "headroom": instance.headroom.map(|headroom| headroom.connections),
            "headroom_handshakes_per_s": instance.headroom.and_then(|headroom| headroom.handshakes_per_s),
            "seed": instance.is_seed(),
        })
    };
    let listed: Vec<Value> = all.iter().map(one).collect();
    json!({ "count": view.instances.values().filter(|one| !one.is_seed()).count(), "instances": listed })
}

/// `/admin/duties`: who owns what, since when as far as this process saw, and whether that owner lives.
#[must_use]
pub fn duties(duties: &[DutyInfo], now_ms: i64) -> Value {
    let one = |duty: &DutyInfo| {
        json!({
            "duty": duty.duty.to_string(),
            "owner": duty.owner.as_ref().map(|owner| owner.as_str()),
            "owner_lives": duty.owner_lives,
            "since_ms": duty.held_for.map(|held| before(now_ms, held)),
            "mine": duty.mine,
        })
    };
    duties.iter().map(one).collect()
}

fn before(now_ms: i64, ago: Duration) -> i64 {
    now_ms.saturating_sub_unsigned(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Duty, Headroom, Service};

    #[test]
    fn a_page_has_all_that_an_operator_asks_of_an_instance() {
        let id = InstanceId::parse("gateway-a-1").expect("a name");
        let gateway = Instance {
            id: id.clone(),
            service: Service::Gateway,
            address: "a:7080".into(),
            url: Some("ws://a:8080/ws".into()),
            version: "0.1.0".into(),
            started_ms: 5,
            state: InstanceState::Draining,
            headroom: Some(Headroom { connections: 7, handshakes_per_s: None }),
        };
        let seed = InstanceId::parse("seed-l:1").expect("a name");
        let silent = Instance {
            id: seed.clone(),
            service: Service::Logic,
            url: None,
            started_ms: 0,
            headroom: None,
            ..gateway.clone()
        };
        let view = ClusterView { instances: [(id.clone(), gateway), (seed, silent)].into(), sees_me: true };
        let lease = LeaseLeft { granted: Duration::from_secs(10), left: Duration::from_secs(8) };
        let page = instances(&view, &[(id, lease)].into(), 100_000);
        assert_eq!(page["count"], 1, "a seed is nobody");
        let [first, second] = page["instances"].as_array().expect("a list").as_slice() else {
            panic!("{page}")
        };
        assert_eq!(
            *first,
            json!({
                "id": "gateway-a-1", "service": "gateway", "address": "a:7080", "url": "ws://a:8080/ws",
                "version": "0.1.0", "started_ms": 5, "state": "draining", "ttl_s": 8, "last_seen_ms": 98_000,
                "headroom": 7, "headroom_handshakes_per_s": null, "seed": false,
            })
        );
        assert_eq!(
            (&second["seed"], &second["ttl_s"], &second["last_seen_ms"]),
            (&json!(true), &json!(null), &json!(null))
        );
    }

    #[test]
    fn a_page_says_who_owns_a_duty_since_when_and_whether_it_lives() {
        let held = DutyInfo {
            duty: Duty::Due(3),
            owner: InstanceId::parse("task-a-1").ok(),
            owner_lives: true,
            held_for: Some(Duration::from_secs(2)),
            mine: false,
        };
        let free = DutyInfo { duty: Duty::Reap, owner: None, owner_lives: false, held_for: None, mine: true };
        assert_eq!(
            duties(&[held, free], 10_000),
            json!([
                { "duty": "due/3", "owner": "task-a-1", "owner_lives": true, "since_ms": 8_000, "mine": false },
                { "duty": "reap", "owner": null, "owner_lives": false, "since_ms": null, "mine": true },
            ])
        );
    }
}
