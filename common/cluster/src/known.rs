//! What one process knows of the registry, and what follows from it: who is there, who is gone, which duties
//! are whose. Pure: time is an argument, nothing waits.

mod hands;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use sluice_proto::ids::InstanceId;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use self::hands::Hands;
pub(crate) use self::hands::{DutyEvent, Former};
use crate::view::{ClusterView, Duty, DutyInfo, Instance, InstanceState, Service};

/// How long a gone instance is remembered.
const REMEMBER_GONE: Duration = Duration::from_secs(3_600);
/// Most instances that are remembered as absent or gone: a roll of a thousand instances each hour.
const ABSENT_MAX: usize = 1_000;

/// What to do in the registry about duties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DutyStep {
    /// Take it, if it still belongs to nobody, or to `from`, who is gone.
    Claim { duty: Duty, from: Option<InstanceId> },
    /// Give it back, if it is still ours.
    Release(Duty),
}

#[derive(Debug)]
pub(crate) struct Known {
    ttl: Duration,
    me: InstanceId,
    candidates: BTreeSet<Duty>,
    seeds: Vec<Instance>,
    releasing: bool,
    /// When the last renewal that was answered was sent.
    contact: Option<Instant>,
    listed: HashMap<InstanceId, Instance>,
    owners: BTreeMap<Duty, InstanceId>,
    hands: Hands,
    /// Not listed any more, since when, counted only while this process saw itself.
    absent: HashMap<InstanceId, Instant>,
    /// Absent for two lease times, since when.
    gone: HashMap<InstanceId, Instant>,
    /// When each duty was last seen with a living owner.
    cared_for: BTreeMap<Duty, Instant>,
}

impl Known {
    pub(crate) fn new(
        ttl: Duration,
        me: InstanceId,
        seeds: Vec<Instance>,
        candidates: BTreeSet<Duty>,
        now: Instant,
    ) -> Self {
        Self {
            ttl,
            me,
            cared_for: candidates.iter().map(|duty| (*duty, now)).collect(),
            candidates,
            seeds,
            releasing: false,
            contact: None,
            listed: HashMap::new(),
            owners: BTreeMap::new(),
            hands: Hands::default(),
            absent: HashMap::new(),
            gone: HashMap::new(),
        }
    }

    pub(crate) fn me(&self) -> &InstanceId {
        &self.me
    }

    #[cfg(feature = "etcd")]
    pub(crate) fn is_releasing(&self) -> bool {
        self.releasing
    }

    /// The lease was lost: a new id, not registered yet.
    pub(crate) fn rename(&mut self, me: InstanceId) {
        for duty in self.mine() {
            self.hands.parted(duty, None, self.releasing);
        }
        self.me = me;
        self.contact = None;
    }

    /// The duties that are this process's in the registry.
    fn mine(&self) -> Vec<Duty> {
        self.owners.iter().filter(|(_, owner)| **owner == self.me).map(|(duty, _)| *duty).collect()
    }

    pub(crate) fn renewed(&mut self, sent: Instant) {
        self.contact = Some(sent);
    }

    pub(crate) fn release(&mut self) {
        self.releasing = true;
    }

    /// The opposite of a release: duties are taken again.
    pub(crate) fn resume(&mut self) {
        self.releasing = false;
    }

    /// This process is about to give one of its duties back.
    pub(crate) fn gives(&mut self, duty: Duty) {
        if self.owners.get(&duty) == Some(&self.me) {
            self.hands.gives(duty);
        }
    }

    /// What became of this process's duties since the last time.
    pub(crate) fn take_events(&mut self) -> Vec<DutyEvent> {
        self.hands.take_events()
    }

    /// Everything there is, as listed.
    pub(crate) fn list(
        &mut self,
        instances: HashMap<InstanceId, Instance>,
        owners: BTreeMap<Duty, InstanceId>,
        now: Instant,
    ) {
        // Who was known and is not in the list begins to be absent now, not when it left.
        let before = std::mem::replace(&mut self.listed, instances);
        for id in before.into_keys().filter(|id| !self.listed.contains_key(id)).collect::<Vec<_>>() {
            self.now_absent(id, now);
        }
        self.absent.retain(|id, _| !self.listed.contains_key(id));
        for duty in self.owners.keys().chain(owners.keys()).copied().collect::<BTreeSet<_>>() {
            self.set_owner(duty, owners.get(&duty).cloned(), now);
        }
    }

    pub(crate) fn put(&mut self, instance: Instance) {
        self.absent.remove(&instance.id);
        self.listed.insert(instance.id.clone(), instance);
    }

    pub(crate) fn remove(&mut self, id: &InstanceId, now: Instant) {
        if self.listed.remove(id).is_some() {
            self.now_absent(id.clone(), now);
        }
    }

    pub(crate) fn put_owner(&mut self, duty: Duty, owner: InstanceId, now: Instant) {
        self.set_owner(duty, Some(owner), now);
    }

    pub(crate) fn remove_owner(&mut self, duty: Duty, now: Instant) {
        self.set_owner(duty, None, now);
    }

    fn set_owner(&mut self, duty: Duty, owner: Option<InstanceId>, now: Instant) {
        let before = match &owner {
            Some(owner) => self.owners.insert(duty, owner.clone()),
            None => self.owners.remove(&duty),
        };
        if before == owner {
            return;
        }
        self.hands.changed(duty, before.clone(), owner.is_some(), now);
        if before.as_ref() == Some(&self.me) {
            self.hands.parted(duty, owner.clone(), self.releasing);
        }
        if owner.as_ref() == Some(&self.me) {
            self.hands.taken(duty, &self.me, |id| self.listed.contains_key(id));
        }
    }

    fn now_absent(&mut self, id: InstanceId, now: Instant) {
        // A forgotten absentee is never called gone: its leftovers stay until the next reaper sees
        // them.
        if self.absent.len() < ABSENT_MAX {
            self.absent.insert(id, now);
        }
    }

    /// Whether the registry has heard of us within the lease time.
    fn in_contact(&self, now: Instant) -> bool {
        self.contact.is_some_and(|sent| now.duration_since(sent) < self.ttl)
    }

    pub(crate) fn sees_me(&self, now: Instant) -> bool {
        self.is_listed() && self.in_contact(now)
    }

    pub(crate) fn is_listed(&self) -> bool {
        self.listed.contains_key(&self.me)
    }

    /// Lets time pass: to be called at every change and a few times in a lease time.
    pub(crate) fn tick(&mut self, now: Instant) {
        if !self.sees_me(now) {
            // Who cannot see itself may be cut off: absence is not counted (C3).
            self.absent.values_mut().for_each(|since| *since = now);
        }
        // Only the time until the last renewal is known to have passed in the registry's eyes.
        let (long, seen_until) = (2 * self.ttl, self.contact.unwrap_or(now));
        for (id, since) in self.absent.extract_if(|_, since| seen_until.duration_since(*since) >= long) {
            // Bounded in memory, as names come from outside.
            if self.gone.len() < ABSENT_MAX {
                self.gone.insert(id, since);
            }
        }
        self.gone.retain(|_, since| now.duration_since(*since) < REMEMBER_GONE);
        // Out of contact an owner may be dead for long: that it is still listed here says nothing.
        if self.in_contact(now) {
            for (duty, owner) in &self.owners {
                if self.listed.contains_key(owner) {
                    self.cared_for.insert(*duty, now);
                }
            }
        }
    }

    pub(crate) fn gone(&self) -> Vec<InstanceId> {
        self.gone.keys().cloned().collect()
    }

    pub(crate) fn view(&self, now: Instant) -> ClusterView {
        let mut instances = self.listed.clone();
        for seed in &self.seeds {
            let same = |it: &Instance| it.service == seed.service && it.address == seed.address;
            // A seed stands for its address until a registration does.
            if !self.listed.values().any(same) {
                instances.insert(seed.id.clone(), seed.clone());
            }
        }
        ClusterView { instances, sees_me: self.sees_me(now) }
    }

    /// What this process is to do: what it owns while its lease is sure, and what nobody does.
    pub(crate) fn owned(&self, now: Instant) -> BTreeSet<Duty> {
        self.candidates.iter().copied().filter(|duty| self.is_mine(*duty, now)).collect()
    }

    fn is_mine(&self, duty: Duty, now: Instant) -> bool {
        // An owner that lost contact must stop before the registry gives its duty to another.
        let own = self.in_contact(now) && self.owners.get(&duty) == Some(&self.me);
        // Nobody cared for it for two lease times, so doing it twice is better than not at all.
        let neglected =
            self.cared_for.get(&duty).is_some_and(|seen| now.duration_since(*seen) >= 2 * self.ttl);
        !self.releasing && (own || neglected)
    }

    pub(crate) fn duties(&self, now: Instant) -> Vec<DutyInfo> {
        let all: BTreeSet<Duty> = self.candidates.iter().chain(self.owners.keys()).copied().collect();
        let info = |duty| {
            let owner = self.owners.get(&duty).cloned();
            let owner_lives = owner.as_ref().is_some_and(|owner| self.listed.contains_key(owner));
            let mine = self.candidates.contains(&duty) && self.is_mine(duty, now);
            DutyInfo { duty, owner, owner_lives, held_for: self.hands.held_for(duty, now), mine }
        };
        all.into_iter().map(info).collect()
    }

    /// What to change now. Every task computes the same from the same list, so that they rarely collide;
    /// the registry's comparisons settle the rest.
    pub(crate) fn steps(&self, now: Instant) -> Vec<DutyStep> {
        if self.releasing {
            return self.mine().into_iter().map(DutyStep::Release).collect();
        }
        // Claims of somebody who is not listed would be taken over at once.
        if !self.sees_me(now) {
            return Vec::new();
        }
        let serving = |it: &&Instance| it.service == Service::Task && it.state == InstanceState::Serving;
        let mut load: BTreeMap<&InstanceId, usize> =
            self.listed.values().filter(serving).map(|it| (&it.id, 0)).collect();
        for owner in self.owners.values() {
            load.entry(owner).and_modify(|count| *count += 1);
        }
        let mut steps = Vec::new();
        for duty in &self.candidates {
            let from = self.owners.get(duty);
            // Taken over only from the gone: an owner that is merely absent may come back.
            if from.is_some_and(|owner| !self.gone.contains_key(owner)) {
                continue;
            }
            // Nobody serves: the duty waits, and is neglected in time.
            let Some(chosen) = self.heir(&load, *duty, now) else { return Vec::new() };
            load.entry(chosen).and_modify(|count| *count += 1);
            if *chosen == self.me {
                steps.push(DutyStep::Claim { duty: *duty, from: from.cloned() });
            }
        }
        // One at a time and only when nothing is claimed, so that duties do not swing between
        // tasks.
        if steps.is_empty() && self.is_overloaded(&load) {
            steps.extend(self.spared().map(DutyStep::Release));
        }
        steps
    }

    /// Who is to take a duty of nobody: the least loaded, but not who gave it back a moment ago. It was told to, or
    /// had too many, and another one is there.
    fn heir<'a>(
        &self,
        load: &BTreeMap<&'a InstanceId, usize>,
        duty: Duty,
        now: Instant,
    ) -> Option<&'a InstanceId> {
        let former = self.hands.given_back_by(duty, self.moment(), now);
        let but = |except: Option<&InstanceId>| {
            least_loaded(load.iter().filter(|(id, _)| Some(**id) != except), duty)
        };
        but(former).or_else(|| but(None))
    }

    /// Which duty to give back of too many: the one that has not changed hands for the longest time, so that a release
    /// by hand lasts.
    fn spared(&self) -> Option<Duty> {
        self.mine().into_iter().rev().min_by_key(|duty| self.hands.changed_at(*duty))
    }

    /// How long a duty that was given back is not for who had it: whoever sees all that happens claims at once.
    fn moment(&self) -> Duration {
        self.ttl / 2
    }

    /// Whether this process has two duties more than some other, and nobody has more than it.
    fn is_overloaded(&self, load: &BTreeMap<&InstanceId, usize>) -> bool {
        let least = load.values().min().copied().unwrap_or(0);
        let most = load.iter().max_by_key(|(id, count)| (**count, **id));
        most.is_some_and(|(id, count)| **id == self.me && *count >= least + 2)
    }
}

fn least_loaded<'a: 'l, 'l>(
    load: impl Iterator<Item = (&'l &'a InstanceId, &'l usize)>,
    duty: Duty,
) -> Option<&'a InstanceId> {
    load
        // The hash breaks ties the same way in every process.
        .min_by_key(|(id, count)| (**count, xxh3_64(format!("{duty} {id}").as_bytes())))
        .map(|(id, _)| *id)
}

#[cfg(test)]
mod tests;
