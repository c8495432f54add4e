//! Which member of a group leads it now. Asks the servers themselves, and keeps nothing.

use std::sync::Arc;

use serde_json::Value;

use crate::service::Service;
use crate::store::Store;

/// The stream that carries notices, by the usual prefix.
const STREAM: &str = "sluice_FANOUT";

/// The index of the member that leads; `None` while nobody says so. One that is alone leads itself.
pub(crate) async fn leader(
    service: Service,
    members: &[Arc<Store>],
    sentinels: &[Arc<Store>],
) -> Option<usize> {
    if members.len() < 2 {
        return (!members.is_empty()).then_some(0);
    }
    match service {
        Service::Etcd => of_etcd(members).await,
        Service::Nats => of_stream(members).await,
        Service::Redis => of_redis(members, sentinels).await,
        Service::Postgres => of_patroni(members).await,
        Service::Sentinel | Service::Haproxy | Service::Gateway | Service::Logic | Service::Task => None,
    }
}

/// A member knows whether it is the one; those that are down say nothing.
async fn of_etcd(members: &[Arc<Store>]) -> Option<usize> {
    for (index, member) in members.iter().enumerate() {
        let Ok(status) = member.etcd_status().await else { continue };
        let text = |at: &str| status.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        if !text("/leader").is_empty() && text("/leader") == text("/header/member_id") {
            return Some(index);
        }
    }
    None
}

/// Of the stream, not of all streams together: that is whom services wait for.
async fn of_stream(members: &[Arc<Store>]) -> Option<usize> {
    let ask = format!("SUB leader 1\r\nPUB $JS.API.STREAM.INFO.{STREAM} leader 0\r\n\r\n");
    let whole = |said: &[u8]| answer(said).is_some();
    for member in members {
        let Ok(said) = member.ask_nats(&ask, whole).await else { continue };
        let leader = answer(&said)
            .and_then(|answer| answer.pointer("/cluster/leader").and_then(Value::as_str).map(str::to_owned));
        if let Some(leader) = leader {
            return (0..members.len()).find(|index| Service::Nats.name(*index) == leader);
        }
    }
    None
}

/// The JSON of the one message that came.
fn answer(said: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(said).ok()?;
    // Over TLS it is the first that comes; else the server has introduced itself before.
    let message = text.strip_prefix("MSG leader ").or_else(|| Some(text.split_once("\r\nMSG leader ")?.1))?;
    serde_json::from_str(message.split_once("\r\n")?.1.trim_end()).ok()
}

/// As its own Patroni has it, while that holds the leader's key.
async fn of_patroni(members: &[Arc<Store>]) -> Option<usize> {
    for (index, member) in members.iter().enumerate() {
        if member.is_primary().await {
            return Some(index);
        }
    }
    None
}

/// Of a Redis Cluster the one with the first slot, as the others have it; else as sentinels have it: a server that was
/// the primary may not know yet that it is none.
async fn of_redis(members: &[Arc<Store>], sentinels: &[Arc<Store>]) -> Option<usize> {
    let at = |port| members.iter().position(|member| member.client_port() == port);
    for member in members.iter().filter(|member| member.is_node()) {
        let Some(port) = member.first_primary().await else { continue };
        return at(port);
    }
    for sentinel in sentinels {
        let Some(port) = sentinel.primary().await else { continue };
        return at(port);
    }
    None
}
