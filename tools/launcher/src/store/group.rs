//! Members of a group: how they find each other, and what is written down for them. It starts none.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use super::patroni::{self, HAPROXY_CONF, PATRONI_CONF};
use super::secured::SECURED;
use super::{PRIMARY, Store};
use crate::access::Access;
use crate::certs;
use crate::doors::Doors;
use crate::engines::{Engines, PRIMARIES, RedisKind};
use crate::error::Error;
use crate::folder::Folder;
use crate::port::Port;
use crate::service::Service;

/// File beside the data with the ports of a member that others have written down.
const PORTS: &str = "ports";
/// What a server of Redis and a sentinel read, and write their roles to.
const CONF: &str = "redis.conf";
/// What a node of a Redis Cluster knows of all, beside its data.
const NODES: &str = "nodes.conf";
/// What a wipe leaves: it is no data.
pub(super) const KEPT: [&str; 6] = [PORTS, CONF, NODES, SECURED, PATRONI_CONF, HAPROXY_CONF];
/// Slots of every Redis Cluster.
const SLOTS: usize = 16_384;
/// A sentinel, or a node of a cluster, takes a server for dead after this long without an answer, milliseconds.
const DOWN_AFTER_MS: u32 = 1_000;
/// A failover that does not come about is begun again after twice this, milliseconds.
const FAILOVER_MS: u32 = 3_000;

/// What a member knows of the others; of one that is alone, nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    /// Where members listen for each other, in order.
    peers: Vec<String>,
    /// Whether they are nodes of a Redis Cluster.
    is_cluster: bool,
}

impl Group {
    pub(super) fn is_alone(&self) -> bool {
        self.peers.is_empty()
    }

    pub(super) fn is_redis_cluster(&self) -> bool {
        self.is_cluster
    }

    /// `nats://a`, `nats://b`; `user` as it stands before a host.
    pub(super) fn routes(&self, user: &str) -> Vec<String> {
        self.peers.iter().map(|peer| format!("nats://{user}{peer}")).collect()
    }

    /// `etcd=http://a,etcd-2=http://b`
    pub(super) fn initial_cluster(&self, scheme: &str) -> String {
        let members = self.peers.iter().enumerate();
        let members = members.map(|(index, peer)| format!("{}={scheme}://{peer}", Service::Etcd.name(index)));
        members.collect::<Vec<_>>().join(",")
    }
}

/// Those that are there already, by kind and place.
pub(crate) type Stores = BTreeMap<(Service, usize), Arc<Store>>;

/// All of a kind, of which there may be one. `before`: those that it may have to know of.
pub(crate) fn prepare(
    service: Service,
    folder: &Folder,
    engines: Engines,
    before: &Stores,
    access: Option<&Arc<Access>>,
    doors: Option<&Arc<dyn Doors>>,
) -> Result<Vec<Store>, Error> {
    let count = engines.count(service);
    let stores = (0..count).map(|index| Store::prepare(service, index, folder, count > 1, access, doors));
    let mut stores = stores.collect::<Result<Vec<_>, _>>()?;
    if count > 1 {
        let is_cluster = service == Service::Redis && engines.redis == RedisKind::Cluster;
        let group = Group { peers: stores.iter().map(Store::peer_address).collect(), is_cluster };
        stores.iter_mut().for_each(|store| store.group = group.clone());
    }
    // Whom sentinels look after first.
    let primary =
        before.get(&(Service::Redis, 0)).map(AsRef::as_ref).filter(|_| service == Service::Sentinel);
    let primary = primary.or(stores.first()).map_or(0, Store::client_port);
    let of =
        |service| before.values().map(AsRef::as_ref).filter(move |store: &&Store| store.service == service);
    for store in &stores {
        if store.has_patroni() {
            patroni::write_member(store, &of(Service::Etcd).map(Store::address).collect::<Vec<_>>())?;
        } else if service == Service::Haproxy {
            patroni::write_balancer(store, &of(Service::Postgres).collect::<Vec<_>>())?;
        } else {
            write_conf(store, primary)?;
        }
        if store.group.is_cluster {
            let file = store.data.join(NODES);
            std::fs::write(&file, nodes(&stores, store)).map_err(Error::file("cannot write", &file))?;
        }
    }
    Ok(stores)
}

/// Ports for clients and peers; those of before, if others have them written down in their data.
pub(super) fn ports(data: &Path, kept: bool) -> Result<(Port, Port), Error> {
    if !kept {
        return Ok((Port::claim()?, Port::claim()?));
    }
    let file = data.join(PORTS);
    let Ok(text) = std::fs::read_to_string(&file) else {
        // The first start; from now on others have these in their data.
        let (client, peer) = (Port::claim()?, Port::claim()?);
        let text = format!("{} {}\n", client.number(), peer.number());
        std::fs::write(&file, text).map_err(Error::file("cannot write", &file))?;
        return Ok((client, peer));
    };
    let mut numbers = text.split_whitespace().map_while(|number| number.parse::<u16>().ok());
    let mut next = || numbers.next().map(Port::at).transpose().map(Option::flatten);
    match (next()?, next()?) {
        (Some(client), Some(peer)) => Ok((client, peer)),
        (None, _) | (_, None) => Err(Error::NoPort(format!(
            "the members of etcd know each other by the ports in {}, and they are taken: end who has them, or give \
             another folder",
            file.display()
        ))),
    }
}

/// Whether it reads a file; a Redis that is alone and lets everybody in needs none.
pub(super) fn has_conf(store: &Store) -> bool {
    match store.service {
        Service::Sentinel => true,
        Service::Redis => store.is_secured() || !store.group.is_alone(),
        Service::Nats
        | Service::Etcd
        | Service::Postgres
        | Service::Haproxy
        | Service::Gateway
        | Service::Logic
        | Service::Task => false,
    }
}

/// Anew for each cluster: nothing that Redis holds outlives one.
fn write_conf(store: &Store, primary: u16) -> Result<(), Error> {
    if let (Service::Nats, Some(secured)) = (store.service, &store.secured) {
        return certs::write(&secured.nats_conf(), &secured.nats(store), 0o600);
    }
    if !has_conf(store) {
        return Ok(());
    }
    let (service, port) = (store.service, store.port.number());
    let listens = match &store.secured {
        Some(secured) => secured.redis(service, port),
        None => format!("port {port}\n"),
    };
    let common = format!("bind 127.0.0.1\n{listens}dir \"{}\"\n", store.data.display());
    let own = if service == Service::Sentinel {
        let password = store.secured.as_ref().map(|secured| secured.access.password(Service::Redis));
        let password = password.map(|password| format!("sentinel auth-pass {PRIMARY} {password}\n"));
        format!(
            "sentinel monitor {PRIMARY} 127.0.0.1 {primary} 2\n{}\
             sentinel down-after-milliseconds {PRIMARY} {DOWN_AFTER_MS}\n\
             sentinel failover-timeout {PRIMARY} {FAILOVER_MS}\n",
            password.unwrap_or_default()
        )
    } else if store.group.is_cluster {
        // What one primary has is away with it, and nothing else; replicas are there at once.
        let door = match store.doors {
            Some((client, peer)) => format!(
                "cluster-announce-ip 127.0.0.1\ncluster-announce-port {client}\ncluster-announce-bus-port {peer}\n"
            ),
            None => String::new(),
        };
        format!(
            "save \"\"\nappendonly no\nrepl-diskless-sync-delay 0\ncluster-enabled yes\ncluster-config-file {NODES}\n\
             cluster-port {}\ncluster-node-timeout {DOWN_AFTER_MS}\ncluster-require-full-coverage no\n{door}",
            store.peer.number()
        )
    } else {
        let role = if store.client_port() == primary {
            String::new()
        } else {
            format!("replicaof 127.0.0.1 {primary}\n")
        };
        // Replicas are there at once: a failover may be wanted in the next second.
        let door = match store.doors {
            Some((client, _)) => format!("replica-announce-ip 127.0.0.1\nreplica-announce-port {client}\n"),
            None => String::new(),
        };
        format!("save \"\"\nappendonly no\nrepl-diskless-sync-delay 0\n{door}{role}")
    };
    if store.is_secured() {
        // They write it anew, for everybody to read.
        let only_mine = std::fs::set_permissions(&store.data, Permissions::from_mode(0o700));
        only_mine.map_err(Error::file("cannot close", &store.data))?;
    }
    certs::write(&conf(store), &(common + &own), 0o600)
}

/// Who is who in a Redis Cluster, as this node would have written it: none of them has to be introduced to the others.
fn nodes(all: &[Store], own: &Store) -> String {
    let id = |index: usize| format!("{:040x}", index + 1);
    let share = |index: usize| index * SLOTS / PRIMARIES;
    let lines = all.iter().map(|node| {
        let myself = if node.index == own.index { "myself," } else { "" };
        let place = format!("{} {}@{} {myself}", id(node.index), node.address(), node.peer_port());
        match node.index.checked_sub(PRIMARIES) {
            Some(of) => format!("{place}slave {} 0 0 {} connected\n", id(of), of + 1),
            None => {
                let (first, last) = (share(node.index), share(node.index + 1) - 1);
                format!("{place}master - 0 0 {} connected {first}-{last}\n", node.index + 1)
            }
        }
    });
    let lines: String = lines.collect();
    format!("{lines}vars currentEpoch {PRIMARIES} lastVoteEpoch 0\n")
}

pub(super) fn conf(store: &Store) -> std::path::PathBuf {
    store.data.join(CONF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_etcd_keep_the_ports_that_others_know_them_by() {
        let folder = tempfile::tempdir().unwrap();
        let numbers = |(client, peer): &(Port, Port)| (client.number(), peer.number());
        let first = ports(folder.path(), true).unwrap();
        let before = numbers(&first);
        assert!(ports(folder.path(), true).unwrap_err().to_string().contains("another folder"), "in use");
        drop(first);
        assert_eq!(numbers(&ports(folder.path(), true).unwrap()), before);
    }
}
