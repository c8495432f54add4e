//! Instances and duties as JSON, for admin pages. Shows, decides nothing.

use serde_json::{Value, json};

use crate::{ClusterView, DutyInfo, Instance, InstanceState};

/// `/admin/instances`: who is there, as last known.
#[must_use]
pub fn instances(view: &ClusterView) -> Value {
    let mut all: Vec<_> = view.instances.values().collect();
    all.sort_by(|a, b| (a.service, &a.id).cmp(&(b.service, &b.id)));
    let one = |instance: &&Instance| {
        json!({
            "id": instance.id.as_str(),
            "service": instance.service.as_str(),
            "address": instance.address,
            "url": instance.url,
            "version": instance.version,
            "started_ms": instance.started_ms,
            "state": match instance.state { InstanceState::Serving => "serving", InstanceState::Draining => "draining" },
            "headroom": instance.headroom.map(|headroom| headroom.connections),
            "headroom_handshakes_per_s": instance.headroom.and_then(|headroom| headroom.handshakes_per_s),
            "seed": instance.is_seed(),
        })
    };
    all.iter().map(one).collect()
}

/// `/admin/duties`: who owns what, and whether that owner lives.
#[must_use]
pub fn duties(duties: &[DutyInfo]) -> Value {
    let one = |duty: &DutyInfo| {
        json!({
            "duty": duty.duty.to_string(),
            "owner": duty.owner.as_ref().map(|owner| owner.as_str()),
            "owner_lives": duty.owner_lives,
            "mine": duty.mine,
        })
    };
    duties.iter().map(one).collect()
}
