//! What is asked of etcd, typed. Every call ends within a second; nothing here tries twice.

mod operating;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, Error, EventType, GetOptions, KeyValue, PutOptions, Txn, TxnOp, WatchOptions,
    WatchStream,
};
use serde::{Deserialize, Serialize};
use sluice_proto::ids::InstanceId;

use super::connection::Connection;
use super::error::Result;
use crate::{Command, Commanded, Duty, Etcd, Headroom, Instance, InstanceState, Service};

pub(super) struct EtcdRegistry {
    connection: Connection,
    prefix: String,
}

/// All that is registered.
pub(super) struct Listing {
    pub(super) instances: HashMap<InstanceId, Instance>,
    pub(super) owners: BTreeMap<Duty, InstanceId>,
    pub(super) commands: Vec<(InstanceId, Commanded)>,
    pub(super) revision: i64,
}

/// One change of what is registered.
pub(super) enum KeyChange {
    Put(Instance),
    Removed(InstanceId),
    Owner(Duty, InstanceId),
    NoOwner(Duty),
    Command(InstanceId, Commanded),
}

/// The value of an instance's key; id and service are in the key.
#[derive(Serialize, Deserialize)]
struct Record {
    address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    version: String,
    started_ms: i64,
    state: InstanceState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headroom: Option<u32>,
    /// Of `headroom`: a field beside it, as services of an earlier version read that one as a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headroom_handshakes_per_s: Option<u32>,
}

/// The value of a command's key; whom it is for is in the key.
#[derive(Serialize, Deserialize)]
struct Order {
    command: Command,
    by: String,
}

/// What a key is about.
enum RegistryKey {
    Instance(Service, InstanceId),
    Duty(Duty),
    /// For an instance.
    Command(InstanceId),
}

impl EtcdRegistry {
    /// Connects with the first call.
    pub(super) async fn open(etcd: &Etcd, prefix: &str) -> Result<Self> {
        let connection = Connection::open(etcd).await?;
        Ok(Self { connection, prefix: format!("/{}/", prefix.trim_matches('/')) })
    }

    async fn client(&self) -> Result<Client> {
        self.connection.client().await
    }

    async fn answer<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T> {
        self.connection.answer(call).await
    }

    /// Asks etcd for a new lease.
    pub(super) async fn grant(&self, ttl: Duration) -> Result<i64> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let mut client = self.client().await?;
        Ok(self.answer(client.lease_grant(seconds, None)).await?.id())
    }

    /// One renewal on a stream of its own: its answer is the only evidence that it happened.
    pub(super) async fn renew(&self, lease: i64) -> Result<()> {
        let mut client = self.client().await?;
        self.answer(client.lease_keep_alive(lease)).await.map(drop)
    }

    pub(super) fn has_several_endpoints(&self) -> bool {
        self.connection.has_several_endpoints()
    }

    pub(super) async fn revoke(&self, lease: i64) -> Result<()> {
        let mut client = self.client().await?;
        self.answer(client.lease_revoke(lease)).await.map(drop)
    }

    pub(super) async fn put(&self, instance: &Instance, lease: i64) -> Result<()> {
        let record = Record {
            address: instance.address.clone(),
            url: instance.url.clone(),
            version: instance.version.clone(),
            started_ms: instance.started_ms,
            state: instance.state,
            headroom: instance.headroom.map(|headroom| headroom.connections),
            headroom_handshakes_per_s: instance.headroom.and_then(|headroom| headroom.handshakes_per_s),
        };
        let value = serde_json::to_vec(&record).map_err(|error| Error::Internal(error.to_string()))?;
        let mut client = self.client().await?;
        let options = PutOptions::new().with_lease(lease);
        self.answer(client.put(self.instance_key(instance), value, Some(options))).await.map(drop)
    }

    /// Takes a duty that belongs to nobody, or to `from`. False: it belongs to somebody else.
    pub(super) async fn claim(
        &self,
        duty: Duty,
        from: Option<&InstanceId>,
        me: &InstanceId,
        lease: i64,
    ) -> Result<bool> {
        let key = self.duty_key(duty);
        // Decided by etcd in one transaction: of several that try at once one succeeds.
        let condition = match from {
            None => Compare::create_revision(key.clone(), CompareOp::Equal, 0),
            Some(owner) => Compare::value(key.clone(), CompareOp::Equal, owner.as_str()),
        };
        let put = TxnOp::put(key, me.as_str(), Some(PutOptions::new().with_lease(lease)));
        let mut client = self.client().await?;
        Ok(self.answer(client.txn(Txn::new().when([condition]).and_then([put]))).await?.succeeded())
    }

    /// Gives a duty back if it is still ours.
    pub(super) async fn release(&self, duty: Duty, me: &InstanceId) -> Result<()> {
        let key = self.duty_key(duty);
        let ours = Compare::value(key.clone(), CompareOp::Equal, me.as_str());
        let mut client = self.client().await?;
        self.answer(client.txn(Txn::new().when([ours]).and_then([TxnOp::delete(key, None)]))).await.map(drop)
    }

    pub(super) async fn list(&self) -> Result<Listing> {
        let mut client = self.client().await?;
        let all =
            self.answer(client.get(self.prefix.as_str(), Some(GetOptions::new().with_prefix()))).await?;
        let revision = all.header().map_or(0, etcd_client::ResponseHeader::revision);
        let (instances, owners, commands) = (HashMap::new(), BTreeMap::new(), Vec::new());
        let mut listing = Listing { instances, owners, commands, revision };
        for change in all.kvs().iter().filter_map(|pair| self.read_put(pair)) {
            match change {
                KeyChange::Put(instance) => drop(listing.instances.insert(instance.id.clone(), instance)),
                KeyChange::Owner(duty, owner) => drop(listing.owners.insert(duty, owner)),
                KeyChange::Command(to, command) => listing.commands.push((to, command)),
                KeyChange::Removed(_) | KeyChange::NoOwner(_) => {}
            }
        }
        Ok(listing)
    }

    /// Follows all changes after a revision.
    pub(super) async fn watch(&self, after: i64) -> Result<WatchStream> {
        // From the revision of the list on: nothing between list and watch is missed.
        let options = WatchOptions::new().with_prefix().with_start_revision(after + 1);
        let mut client = self.client().await?;
        self.answer(client.watch(self.prefix.as_str(), Some(options))).await
    }

    /// The changes of a watch's event, if it is about anything of ours.
    pub(super) fn read(&self, event: &etcd_client::Event) -> Option<KeyChange> {
        let pair = event.kv()?;
        match event.event_type() {
            EventType::Put => self.read_put(pair),
            EventType::Delete => match self.read_key(pair.key())? {
                RegistryKey::Instance(_, id) => Some(KeyChange::Removed(id)),
                RegistryKey::Duty(duty) => Some(KeyChange::NoOwner(duty)),
                // Its time was over: it was heard, or nobody is there.
                RegistryKey::Command(_) => None,
            },
        }
    }

    fn read_put(&self, pair: &KeyValue) -> Option<KeyChange> {
        match self.read_key(pair.key())? {
            RegistryKey::Duty(duty) => {
                Some(KeyChange::Owner(duty, InstanceId::parse(pair.value_str().ok()?).ok()?))
            }
            RegistryKey::Command(to) => {
                let Order { command, by } = serde_json::from_slice(pair.value()).ok()?;
                let command =
                    Commanded { command, by: InstanceId::parse(&by).ok()?, revision: pair.mod_revision() };
                Some(KeyChange::Command(to, command))
            }
            RegistryKey::Instance(service, id) => {
                // What a later version wrote is skipped, not fatal: the others stay known.
                let record: Record = serde_json::from_slice(pair.value())
                    .inspect_err(
                        |error| tracing::warn!(registered = %id, %error, "A registration is unreadable."),
                    )
                    .ok()?;
                let Record {
                    address,
                    url,
                    version,
                    started_ms,
                    state,
                    headroom,
                    headroom_handshakes_per_s: handshakes_per_s,
                } = record;
                let headroom = headroom.map(|connections| Headroom { connections, handshakes_per_s });
                Some(KeyChange::Put(Instance {
                    id,
                    service,
                    address,
                    url,
                    version,
                    started_ms,
                    state,
                    headroom,
                }))
            }
        }
    }

    fn read_key(&self, key: &[u8]) -> Option<RegistryKey> {
        let (kind, name) = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?.split_once('/')?;
        match kind {
            "duties" => Some(RegistryKey::Duty(name.parse().ok()?)),
            "commands" => Some(RegistryKey::Command(InstanceId::parse(name).ok()?)),
            "instances" => {
                let (service, id) = name.split_once('/')?;
                Some(RegistryKey::Instance(service.parse().ok()?, InstanceId::parse(id).ok()?))
            }
            _ => None,
        }
    }

    fn instance_key(&self, instance: &Instance) -> String {
        format!("{}instances/{}/{}", self.prefix, instance.service, instance.id)
    }

    fn duty_key(&self, duty: Duty) -> String {
        format!("{}duties/{duty}", self.prefix)
    }
}
