//! What is left when everything is at rest: looked for until it is gone or the patience is over. It removes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use sluice_judge::record::Leftovers;
use sluice_launcher::{Cluster, probe};
use tokio::time::{Instant, sleep, timeout};

use super::store_reader::StoreReader;
use crate::place::{Place, Role};
use crate::redis_link;
use crate::target::Target;

/// What gone instances and connections left is removed within this: twice the lease, a round of the reaper, the sweep.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest question.
const ASK: Duration = Duration::from_secs(3);
/// Longest look at everything in Redis.
const SCAN: Duration = Duration::from_secs(60);
/// Where all names begin.
const PREFIX: &str = "sluice";
/// Strays that are named; more say nothing more.
const NAMED_MAX: usize = 50;

/// Looks until nothing is left, and says what still is when patience is over.
///
/// # Errors
/// When the store cannot be asked; what else cannot be asked is left open.
pub async fn look(target: &Target, store: &mut StoreReader) -> anyhow::Result<Leftovers> {
    let until = Instant::now() + PATIENCE;
    loop {
        // Asked anew in each turn: a service that came back has another name than before.
        let living = instances(target).await;
        let leftovers = Leftovers {
            outbox_rows: Some(store.outbox_rows().await?),
            idle_in_transaction: store.idle_in_transaction().await?,
            stray_etcd_keys: match target.cluster() {
                Some(cluster) => Some(etcd_strays(cluster, &living).await?),
                None => None,
            },
            stray_redis_fields: match target.cluster() {
                // A Redis that stands still would hold the run's end for ever: the client has no limit of its own.
                Some(cluster) => Some(
                    timeout(SCAN, redis_strays(cluster, &living))
                        .await
                        .context("Redis does not answer")??,
                ),
                None => None,
            },
            ..Leftovers::default()
        };
        let none = |strays: &Option<Vec<String>>| strays.as_ref().is_none_or(Vec::is_empty);
        let clean = leftovers.outbox_rows == Some(0)
            && leftovers.idle_in_transaction.unwrap_or_default() == 0
            && none(&leftovers.stray_etcd_keys)
            && none(&leftovers.stray_redis_fields);
        // What a lease or an expiry takes away is no leftover until its time has passed.
        if clean || Instant::now() >= until {
            return Ok(leftovers);
        }
        sleep(PAUSE).await;
    }
}

/// Instance ids of the processes that run, as they say themselves.
async fn instances(target: &Target) -> BTreeSet<String> {
    let mut living = BTreeSet::new();
    for url in target.admins().values() {
        let status = status(url).await;
        living.extend(status.get("instance").and_then(Value::as_str).map(str::to_owned));
    }
    living
}

/// What a process says of itself; null when it does not answer.
pub(super) async fn status(admin: &str) -> Value {
    let answer = probe::get(&format!("{}/status", admin.trim_end_matches('/')), ASK).await;
    answer.ok().and_then(|answer| serde_json::from_str(&answer.body).ok()).unwrap_or_default()
}

async fn etcd_strays(cluster: &Cluster, living: &BTreeSet<String>) -> anyhow::Result<Vec<String>> {
    let (from, to) = (format!("/{PREFIX}/"), format!("/{PREFIX}0"));
    let range = json!({ "key": BASE64_STANDARD.encode(from), "range_end": BASE64_STANDARD.encode(to) });
    let answer = cluster.ask_etcd("/v3/kv/range", &range).await?;
    let text = |value: &Value, name: &str| {
        let bytes =
            value.get(name).and_then(Value::as_str).and_then(|text| BASE64_STANDARD.decode(text).ok());
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    };
    let keys = answer.get("kvs").and_then(Value::as_array).cloned().unwrap_or_default();
    let entries = keys.iter().map(|entry| (text(entry, "key"), text(entry, "value")));
    Ok(entries.filter_map(|(key, value)| stray_key(&key, &value, living)).take(NAMED_MAX).collect())
}

/// A registration names its instance in the key, a duty in the value.
fn stray_key(key: &str, value: &str, living: &BTreeSet<String>) -> Option<String> {
    let owner = if key.contains("/instances/") { key.rsplit('/').next().unwrap_or_default() } else { value };
    (!living.iter().any(|instance| owner.contains(instance.as_str()))).then(|| format!("{key} = {value}"))
}

/// Nobody is connected any more, so every presence field is a stray; interest may stay with who lives.
async fn redis_strays(cluster: &Cluster, living: &BTreeSet<String>) -> anyhow::Result<Vec<String>> {
    let mut strays = Vec::new();
    for mut connection in redis_link::dial_all(cluster).await? {
        let mut cursor = 0;
        loop {
            let (next, keys) = page_of_keys(&mut connection, cursor).await?;
            for key in keys {
                strays.extend(strays_of(&mut connection, &key, living).await?);
            }
            cursor = next;
            // Enough are named: a Redis full of them would fill the report with one and the same fault.
            if cursor == 0 || strays.len() >= NAMED_MAX {
                break;
            }
        }
    }
    strays.sort_unstable();
    strays.dedup(); // a scan may show a key twice
    strays.truncate(NAMED_MAX);
    Ok(strays)
}

async fn page_of_keys(redis: &mut MultiplexedConnection, from: u64) -> anyhow::Result<(u64, Vec<String>)> {
    let mut scan = redis::cmd("SCAN");
    scan.arg(from).arg("MATCH").arg(format!("{PREFIX}:*")).arg("COUNT").arg(500);
    Ok(scan.query_async(redis).await?)
}

async fn strays_of(
    redis: &mut MultiplexedConnection,
    key: &str,
    living: &BTreeSet<String>,
) -> anyhow::Result<Vec<String>> {
    let name = name_of(key);
    // All clients have left by now, so any field of presence is one that nobody took away.
    if name.starts_with("presence:") || name.starts_with("users:") {
        let fields: BTreeMap<String, String> = redis::cmd("HGETALL").arg(key).query_async(redis).await?;
        return Ok(fields.iter().map(|(field, value)| format!("{key} {field} = {value}")).collect());
    }
    if name.starts_with("interest:") || name == "instances" {
        let members: Vec<String> = redis::cmd("SMEMBERS").arg(key).query_async(redis).await?;
        let gone = members.iter().filter(|member| !living.contains(*member));
        return Ok(gone.map(|member| format!("{key} {member}")).collect());
    }
    let gone = name.strip_prefix("instance:").is_some_and(|instance| !living.contains(instance));
    Ok(if gone { vec![key.to_owned()] } else { Vec::new() })
}

/// Without what all begin with, and without the tag of a part in a Redis Cluster.
fn name_of(key: &str) -> &str {
    let name = key.trim_start_matches(PREFIX).trim_start_matches(':');
    let part = name.strip_prefix('{').and_then(|rest| rest.split_once("}:"));
    part.map_or(name, |(_, name)| name)
}

/// Open files of each service process, without the sockets of its clients.
pub async fn files(target: &Target) -> BTreeMap<Place, u64> {
    let admins = target.admins();
    let mut files = BTreeMap::new();
    for (place, pid) in target.pids() {
        let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let open = entries.flatten().count() as u64;
        let clients = match admins.get(&place) {
            Some(admin) if place.role == Role::Gateway => connections(admin).await.unwrap_or_default(),
            _ => 0,
        };
        // A client's socket is no leak; how many there are changes from one look to the next.
        files.insert(place, open.saturating_sub(clients));
    }
    files
}

/// Open client connections of a gateway, as it says.
pub(super) async fn connections(admin: &str) -> Option<u64> {
    status(admin).await.get("connections")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_part_has_the_name_of_any_other() {
        for (key, name) in [
            ("sluice:presence:r:a", "presence:r:a"),
            ("sluice:{40}:presence:r:a", "presence:r:a"),
            ("sluice:{40}:instances", "instances"),
            ("sluice:interest:{x}:y", "interest:{x}:y"),
        ] {
            assert_eq!(name_of(key), name);
        }
    }

    #[test]
    fn keys_of_who_does_not_run_are_strays() {
        let living = BTreeSet::from(["gateway-host-1".to_owned(), "task-host-2".to_owned()]);
        assert_eq!(stray_key("/sluice/instances/gateway/gateway-host-1", "{}", &living), None);
        assert_eq!(stray_key("/sluice/duties/sweep", "task-host-2", &living), None);
        assert!(stray_key("/sluice/instances/gateway/gateway-host-9", "{}", &living).is_some());
        assert_eq!(
            stray_key("/sluice/duties/reap", "task-host-9", &living).unwrap(),
            "/sluice/duties/reap = task-host-9"
        );
    }
}
