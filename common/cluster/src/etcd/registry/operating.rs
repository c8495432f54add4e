//! What operators ask of etcd: leases, commands to instances, duties taken from their owners.

use std::collections::HashMap;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, DeleteOptions, Error, GetOptions, KeyValue, PutOptions, Txn, TxnOp};
use futures::future::join_all;
use sluice_proto::ids::InstanceId;
use tokio::time::{Instant, timeout_at};

use super::{EtcdRegistry, KeyChange, Order, RegistryKey, Result};
use crate::{Command, Duty, Instance, LeaseLeft};

/// How long a command waits for its instance: several times what a watch is believed.
const COMMAND_TTL_S: i64 = 60;
/// For all leases together, as a page waits for them.
const LEASES_WITHIN: Duration = Duration::from_secs(1);
/// Leases that are asked about at once.
const LEASES_AT_ONCE: usize = 16;

impl EtcdRegistry {
    /// Puts a command where its instance finds it. A lease of its own removes it: nobody has to.
    pub(in crate::etcd) async fn command(
        &self,
        to: &InstanceId,
        command: Command,
        by: &InstanceId,
    ) -> Result<()> {
        let order = Order { command, by: by.to_string() };
        let value = serde_json::to_vec(&order).map_err(|error| Error::Internal(error.to_string()))?;
        let mut client = self.client().await?;
        let lease = self.answer(client.lease_grant(COMMAND_TTL_S, None)).await?.id();
        let key = format!("{}commands/{to}", self.prefix);
        self.answer(client.put(key, value, Some(PutOptions::new().with_lease(lease)))).await.map(drop)
    }

    /// Takes a duty from whoever has it.
    pub(in crate::etcd) async fn take_from_owner(&self, duty: Duty) -> Result<Option<InstanceId>> {
        let options = DeleteOptions::new().with_prev_key();
        let mut client = self.client().await?;
        let deleted = self.answer(client.delete(self.duty_key(duty), Some(options))).await?;
        Ok(deleted.prev_kvs().iter().find_map(|pair| InstanceId::parse(pair.value_str().ok()?).ok()))
    }

    /// Takes every duty from whoever has it, also one that this version does not know.
    pub(in crate::etcd) async fn take_all_duties(&self) -> Result<Vec<(Duty, InstanceId)>> {
        let options = DeleteOptions::new().with_prefix().with_prev_key();
        let mut client = self.client().await?;
        let deleted = self.answer(client.delete(format!("{}duties/", self.prefix), Some(options))).await?;
        let owned = |pair: &KeyValue| match self.read_put(pair)? {
            KeyChange::Owner(duty, owner) => Some((duty, owner)),
            KeyChange::Put(_) | KeyChange::Removed(_) | KeyChange::NoOwner(_) | KeyChange::Command(..) => {
                None
            }
        };
        Ok(deleted.prev_kvs().iter().filter_map(owned).collect())
    }

    /// Removes registrations that no lease will end, and those of whom a younger one is in their place.
    pub(in crate::etcd) async fn remove_gone(&self) -> Result<Vec<InstanceId>> {
        let all = self.registrations().await?;
        let instances: Vec<Option<Instance>> = all.iter().map(|pair| self.instance(pair)).collect();
        let mut removed = Vec::new();
        for (pair, instance) in all.iter().zip(&instances) {
            let Some(instance) = instance else { continue };
            let replaced = instances.iter().flatten().any(|other| instance.is_replaced_by(other));
            if pair.lease() == 0 || replaced {
                // Only as it was read: whoever wrote it anew meanwhile is there.
                let unchanged = Compare::mod_revision(pair.key(), CompareOp::Equal, pair.mod_revision());
                let delete = Txn::new().when([unchanged]).and_then([TxnOp::delete(pair.key(), None)]);
                let mut client = self.client().await?;
                if self.answer(client.txn(delete)).await?.succeeded() {
                    removed.push(instance.id.clone());
                }
            }
        }
        Ok(removed)
    }

    /// What is left of each instance's lease, as far as etcd says it within [`LEASES_WITHIN`].
    pub(in crate::etcd) async fn leases(&self) -> HashMap<InstanceId, LeaseLeft> {
        let by = Instant::now() + LEASES_WITHIN;
        let mut leases = HashMap::new();
        let Ok(Ok(all)) = timeout_at(by, self.registrations()).await else { return leases };
        let asked = all.iter().filter_map(|pair| match self.read_key(pair.key())? {
            RegistryKey::Instance(_, id) => Some((id, pair.lease())),
            RegistryKey::Duty(_) | RegistryKey::Command(_) => None,
        });
        let asked: Vec<(InstanceId, i64)> = asked.collect();
        for some in asked.chunks(LEASES_AT_ONCE) {
            let answers = join_all(some.iter().map(|(_, lease)| self.left(*lease)));
            let Ok(answers) = timeout_at(by, answers).await else { break };
            let answered = some.iter().zip(answers);
            leases.extend(answered.filter_map(|((id, _), left)| Some((id.clone(), left?))));
        }
        leases
    }

    async fn left(&self, lease: i64) -> Option<LeaseLeft> {
        let mut client = self.client().await.ok()?;
        let left = self.answer(client.lease_time_to_live(lease, None)).await.ok()?;
        // Negative: it has ended, and its keys are about to.
        let seconds = |ttl: i64| Duration::from_secs(u64::try_from(ttl).unwrap_or(0));
        Some(LeaseLeft { granted: seconds(left.granted_ttl()), left: seconds(left.ttl()) })
    }

    async fn registrations(&self) -> Result<Vec<KeyValue>> {
        let mut client = self.client().await?;
        let (key, options) = (format!("{}instances/", self.prefix), GetOptions::new().with_prefix());
        Ok(self.answer(client.get(key, Some(options))).await?.take_kvs())
    }

    fn instance(&self, pair: &KeyValue) -> Option<Instance> {
        match self.read_put(pair)? {
            KeyChange::Put(instance) => Some(instance),
            KeyChange::Removed(_) | KeyChange::Owner(..) | KeyChange::NoOwner(_) | KeyChange::Command(..) => {
                None
            }
        }
    }
}
