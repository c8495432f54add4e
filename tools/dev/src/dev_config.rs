//! What the services of `sluice dev` are told: small, near, and open to everybody on this machine.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use sluice_logic::config::ApiSettings;
use sluice_service::config::Address;
use sluice_service::config::sections::{Admin, Grpc};

/// Clients are few and close: none has to wait for long before it comes back.
const RECONNECT_MS_MAX: u64 = 1_000;
/// Two threads of its own are enough for a gateway here, and show what more than one brings.
const SHARDS: usize = 2;
/// What the usual limit of open files (20,000 or less) has room for, several gateways in one process.
const CONNECTIONS_MAX: usize = 2_000;

/// A gateway that lets pages of these origins in.
pub(crate) fn gateway(
    clients: SocketAddr,
    admin: SocketAddr,
    origins: &[String],
) -> sluice_gateway::config::Config {
    let mut config = sluice_gateway::config::Config {
        listen: address(clients),
        origins: origins.to_vec(),
        hosts: hosts(clients),
        shards: SHARDS,
        connections_max: CONNECTIONS_MAX,
        grpc: grpc(admin),
        admin: admin_at(admin),
        ..Default::default()
    };
    config.drain.reconnect_ms_max = RECONNECT_MS_MAX;
    config
}

/// A logic that lets everybody in, with its HTTP API and the file of its keys.
pub(crate) fn logic(
    api: SocketAddr,
    keys: &Path,
    admin: SocketAddr,
    token_secret: &str,
) -> sluice_logic::config::Config {
    sluice_logic::config::Config {
        api: ApiSettings {
            listen: api.to_string(),
            keys_file: keys.display().to_string(),
            ..ApiSettings::default()
        },
        token_secret: token_secret.into(),
        anonymous: true,
        grpc: grpc(admin),
        admin: admin_at(admin),
        ..Default::default()
    }
}

pub(crate) fn task(admin: SocketAddr) -> sluice_task::config::Config {
    sluice_task::config::Config { admin: admin_at(admin), ..Default::default() }
}

pub(crate) fn admin_at(admin: SocketAddr) -> Admin {
    Admin { listen: address(admin), ..Admin::default() }
}

/// Where the other services of this process find it; another one in each life.
pub(crate) fn grpc(beside: SocketAddr) -> Grpc {
    Grpc { listen: address(SocketAddr::new(beside.ip(), 0)), ..Grpc::default() }
}

/// What this machine is called by itself: everybody is let in, so no page of another name may be, wherever that leads.
fn hosts(listen: SocketAddr) -> Vec<String> {
    let listen = match listen.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let mut hosts = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec();
    if !hosts.contains(&listen) {
        hosts.push(listen);
    }
    hosts
}

pub(crate) fn address(address: SocketAddr) -> Address {
    // A socket address is an address.
    address.to_string().parse().unwrap_or_default()
}
