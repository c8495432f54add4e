//! What a service is configured by: where the servers are, how they let it in, free ports, and the settings asked for. It
//! starts nothing.

use super::state::{ClusterShared, ClusterState};
use crate::access::Credentials;
use crate::certs;
use crate::options::env_name;
use crate::service::Service;

type Value = (&'static str, String);

/// Names and values of the environment.
pub(super) fn of(shared: &ClusterShared, service: Service, index: usize) -> Vec<(String, String)> {
    // The settings of now: a process that is replaced is started with what was set since.
    let state = shared.state();
    let mut values = vec![("admin.listen", "127.0.0.1:0".to_owned())];
    if matches!(service, Service::Gateway | Service::Logic) {
        values.push(("grpc.listen", "127.0.0.1:0".to_owned()));
    }
    if matches!(service, Service::Logic | Service::Task) {
        values.push(("nats.replicas", shared.options.engines.replicas().to_string()));
    }
    if service == Service::Logic {
        values.push(("token_secret", shared.token_secret.clone()));
        values.push(("api.listen", "127.0.0.1:0".to_owned()));
        values.push(("api.keys_file", shared.api_keys().display().to_string()));
    }
    for store in stores_of(service) {
        values.push((url_key(*store), state.url(*store, Some(service))));
        values.extend(credentials(shared, &state, *store, service));
    }
    if shared.options.secure {
        let files = certs::files(&shared.certs(), service);
        for (key, file) in [("tls.ca", files.ca), ("tls.cert", files.cert), ("tls.key", files.key)] {
            values.push((key, file.display().to_string()));
        }
    }
    let mut environment: Vec<(String, String)> =
        values.into_iter().map(|(key, value)| (env_name(key), value)).collect();
    // Last, so that what was asked for wins over what is needed.
    for setting in state.settings.iter().filter(|setting| setting.applies(service, index)) {
        let (name, value) = setting.env();
        environment.push((name, value.to_owned()));
    }
    environment
}

const fn stores_of(service: Service) -> &'static [Service] {
    match service {
        Service::Logic => &[Service::Etcd, Service::Nats, Service::Redis, Service::Postgres],
        Service::Task => &[Service::Etcd, Service::Nats, Service::Redis],
        Service::Gateway => &[Service::Etcd],
        Service::Nats
        | Service::Etcd
        | Service::Redis
        | Service::Sentinel
        | Service::Postgres
        | Service::Haproxy => &[],
    }
}

const fn url_key(store: Service) -> &'static str {
    match store {
        Service::Nats => "nats.url",
        Service::Redis | Service::Sentinel => "redis.url",
        Service::Postgres | Service::Haproxy => "postgres.url",
        Service::Etcd | Service::Gateway | Service::Logic | Service::Task => "etcd.endpoints",
    }
}

/// What opens a server to this service, in a secure cluster.
fn credentials(shared: &ClusterShared, state: &ClusterState, store: Service, service: Service) -> Vec<Value> {
    let Some(access) = &shared.access else { return Vec::new() };
    let Credentials { user, password_file, tls, .. } = access.credentials(store, Some(service));
    let [ca, cert, key] = [tls.ca, tls.cert, tls.key].map(|file| file.display().to_string());
    let password = password_file.display().to_string();
    match store {
        // Its files of TLS are in its URL.
        Service::Postgres => vec![("postgres.password_file", password)],
        Service::Etcd => vec![
            ("etcd.user", user.unwrap_or_default().to_owned()),
            ("etcd.password_file", password),
            ("etcd.ca_file", ca),
            ("etcd.cert_file", cert),
            ("etcd.key_file", key),
        ],
        Service::Nats => vec![
            ("nats.password_file", password),
            ("nats.ca_file", ca),
            ("nats.cert_file", cert),
            ("nats.key_file", key),
        ],
        Service::Redis => {
            let mut values = vec![
                ("redis.password_file", password),
                ("redis.ca_file", ca),
                ("redis.cert_file", cert),
                ("redis.key_file", key),
            ];
            if !state.members(Service::Sentinel).is_empty() {
                let sentinel = access.credentials(Service::Sentinel, Some(service)).password_file;
                values.push(("redis.sentinel_password_file", sentinel.display().to_string()));
            }
            values
        }
        Service::Sentinel | Service::Haproxy | Service::Gateway | Service::Logic | Service::Task => {
            Vec::new()
        }
    }
}
