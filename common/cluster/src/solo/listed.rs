//! The list that all members share: who is there and who owns what, and what each change of it means to them.
//! No I/O, nothing waits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sluice_proto::ids::InstanceId;
use tokio::time::Instant;

use super::SoloMember;
use crate::known::{DutyStep, Known};
use crate::{Command, Commanded, Duty, Instance, InstanceState};

/// Most times that everybody is asked for its next steps after one change; a few are needed.
const ROUNDS_MAX: usize = 100;

#[derive(Default)]
pub(super) struct Listed {
    members: Vec<Arc<SoloMember>>,
    instances: HashMap<InstanceId, Instance>,
    owners: BTreeMap<Duty, InstanceId>,
    /// How many commands were carried.
    commands: i64,
}

impl Listed {
    pub(super) fn join(&mut self, member: Arc<SoloMember>, instance: Instance) {
        // The list first, then its own entry: like a watch that begins after a list.
        let (instances, owners) = (self.instances.clone(), self.owners.clone());
        member.shown.learn(|known, now| known.list(instances, owners, now));
        self.members.push(member);
        self.put(instance);
    }

    pub(super) fn leave(&mut self, member: &Arc<SoloMember>) {
        self.members.retain(|other| !Arc::ptr_eq(other, member));
        self.remove(&member.shown.id());
    }

    /// Off the list, and on it again as somebody else.
    pub(super) fn rename(&mut self, member: &SoloMember) {
        if let Some(instance) = self.remove(&member.shown.id()) {
            let id = member.registrant.fresh_id();
            member.shown.learn(|known, _| known.rename(id.clone()));
            self.put(member.registrant.instance(id, instance.state));
        }
    }

    /// What it says of itself has changed.
    pub(super) fn put_again(&mut self, member: &SoloMember) {
        if let Some(instance) = self.instances.get(&member.shown.id()) {
            self.put(member.registrant.instance(instance.id.clone(), instance.state));
        }
    }

    pub(super) fn set_state(&mut self, member: &SoloMember, state: InstanceState) {
        let id = member.shown.id();
        if self.instances.contains_key(&id) {
            self.put(member.registrant.instance(id, state));
        }
    }

    /// Lets time pass for a member.
    pub(super) fn beat(&self, member: &SoloMember) {
        if self.instances.contains_key(&member.shown.id()) {
            member.shown.learn(|known, now| known.renewed(now));
        }
    }

    /// Duties change hands until nobody has anything to change.
    pub(super) fn settle(&mut self) {
        // A bound instead of a proof that the steps come to rest.
        for _ in 0..ROUNDS_MAX {
            let mut settled = true;
            for member in self.members.clone() {
                for step in member.shown.look(|known| known.steps(Instant::now())) {
                    settled = false;
                    self.take(&member.shown.id(), step);
                }
            }
            if settled {
                return;
            }
        }
    }

    /// Takes a step if it still may be taken.
    fn take(&mut self, me: &InstanceId, step: DutyStep) {
        match step {
            // The comparison that etcd's transaction makes.
            DutyStep::Claim { duty, from } if self.owners.get(&duty) == from.as_ref() => {
                self.owners.insert(duty, me.clone());
                self.tell(|known, now| known.put_owner(duty, me.clone(), now));
            }
            DutyStep::Release(duty) if self.owners.get(&duty) == Some(me) => {
                self.owners.remove(&duty);
                self.tell(|known, now| {
                    if known.me() == me {
                        known.gives(duty);
                    }
                    known.remove_owner(duty, now);
                });
            }
            DutyStep::Claim { .. } | DutyStep::Release(_) => {}
        }
    }

    /// Takes a duty from its owner.
    pub(super) fn release(&mut self, duty: Duty) -> Option<InstanceId> {
        let owner = self.owners.remove(&duty)?;
        self.tell(|known, now| known.remove_owner(duty, now));
        Some(owner)
    }

    /// Every duty that has an owner.
    pub(super) fn owned(&self) -> Vec<Duty> {
        self.owners.keys().copied().collect()
    }

    /// All who are there.
    pub(super) fn ids(&self) -> Vec<InstanceId> {
        self.instances.keys().cloned().collect()
    }

    /// Carries a command to a member; false: it is not there.
    pub(super) fn command(&mut self, to: &InstanceId, command: Command, by: InstanceId) -> bool {
        let Some(member) = self.members.iter().find(|member| member.shown.id() == *to) else { return false };
        self.commands += 1;
        member.shown.hear(Commanded { command, by, revision: self.commands });
        true
    }

    fn put(&mut self, instance: Instance) {
        self.instances.insert(instance.id.clone(), instance.clone());
        self.tell(|known, _| known.put(instance.clone()));
    }

    /// With its duties, as they are under its lease.
    fn remove(&mut self, id: &InstanceId) -> Option<Instance> {
        let removed = self.instances.remove(id)?;
        let its: Vec<Duty> =
            self.owners.extract_if(.., |_, owner| owner == id).map(|(duty, _)| duty).collect();
        self.tell(|known, now| {
            its.iter().for_each(|duty| known.remove_owner(*duty, now));
            known.remove(id, now);
        });
        Some(removed)
    }

    fn tell(&self, change: impl Fn(&mut Known, Instant)) {
        for member in &self.members {
            member.shown.learn(|known, now| {
                known.renewed(now);
                change(known, now);
            });
        }
    }
}
