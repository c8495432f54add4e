//! One try of each server, for `--check --connect`. It takes addresses rather than the configuration,
//! which calls it, and keeps no connection.

use sluice_cluster::Etcd;
use sluice_presence::Redis;
use sluice_queue::Nats;
use sluice_service::process::Probe;
use sluice_store::postgres::PgAccess;

use crate::jwks::source::Source;

/// Connects once to each server, and fetches the JWK set if there is one.
#[must_use]
pub fn all(
    postgres: PgAccess,
    etcd: &Etcd,
    nats: &Nats,
    redis: &Redis,
    prefix: &str,
    jwks: Option<Source>,
) -> Vec<Probe> {
    let jwks = jwks.map(|source| {
        Probe::new("token_keys.jwks_url", async move {
            let set = source.get().await?;
            let left_out = match set.left_out.as_slice() {
                [] => String::new(),
                why => format!("; not used: {}", why.join("; ")),
            };
            Ok::<_, String>(format!("{} keys{left_out}", set.keys.len()))
        })
    });
    let mut probes = vec![
        Probe::new("postgres.url", sluice_store::postgres::probe(postgres)),
        Probe::new("etcd.endpoints", sluice_cluster::etcd::probe(etcd.clone())),
        Probe::new("nats.url", sluice_queue::jetstream::probe(nats.clone())),
        Probe::new("redis.url", sluice_presence::redis::probe(redis.clone(), prefix.to_owned())),
    ];
    probes.extend(jwks);
    probes
}
