//! The tables: interest by room, connections by room and by user, and for each instance what it has in them.
//! Pure; the same rules as the Lua calls. Who watches rooms, and which leaves are due, is in [`watched`].

mod tickets;
mod watched;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};

use sluice_proto::ids::{InstanceId, RoomId, UserId};

use self::tickets::Tickets;
use self::watched::Watched;
use crate::users::{CONNECTIONS_OF_USER_MAX, Gathering, INSTANCES_MAX, by_user};
use crate::{Change, Present, RoomEvent, Roster};

/// Instances kept in mind after their goodbye: in one process a write is late by one call at most.
const GONE_MAX: usize = 64;

/// Connections of a user or in a room, by their names.
type ConnectionFields = HashMap<String, Field>;

#[derive(Default)]
pub(super) struct Tables {
    /// Lost with the rest.
    marker: Option<u64>,
    interest: HashMap<RoomId, HashSet<InstanceId>>,
    in_room: HashMap<RoomId, ConnectionFields>,
    of_user: HashMap<UserId, ConnectionFields>,
    instances: HashMap<InstanceId, Holdings>,
    /// The last that have said goodbye: late writes of them are dropped.
    gone: VecDeque<InstanceId>,
    /// What tokens say of users with connections.
    info: HashMap<UserId, String>,
    watched: Watched,
    pub(super) tickets: Tickets,
    /// When the present call was made, milliseconds since 1970.
    pub(super) now_ms: i64,
}

struct Field {
    instance: InstanceId,
    user: UserId,
    since_ms: i64,
}

/// What an instance has in the tables, and the generation that named it last.
#[derive(Default)]
struct Holdings {
    generation: u64,
    named: HashMap<Holding, u64>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Holding {
    Interest(RoomId),
    User(UserId, String),
    Room(RoomId, String),
}

impl Tables {
    pub(super) fn with_grace(grace_ms: i64) -> Self {
        Self { watched: Watched::with_grace(grace_ms), ..Self::default() }
    }

    /// Forgets everything but how it is to behave.
    pub(super) fn wipe(&mut self, quiet_until: i64) {
        *self = Self { watched: self.watched.wiped(quiet_until), ..Self::default() };
    }

    pub(super) fn interested(&self, room: &RoomId) -> Vec<InstanceId> {
        self.interest.get(room).into_iter().flatten().cloned().collect()
    }

    pub(super) fn room(&self, room: &RoomId, after: Option<&UserId>, limit: usize) -> Roster {
        let mut gathering = Gathering::new(after, limit);
        let connections = self.in_room.get(room);
        for (name, field) in connections.into_iter().flatten() {
            if gathering.is_full() {
                break;
            }
            gathering.add(name, field.user.clone(), field.since_ms);
        }
        let mut roster = gathering.roster(connections.map_or(0, HashMap::len));
        roster.users.iter_mut().for_each(|present| self.add_info(present));
        roster
    }

    pub(super) fn subscribers(&self, room: &RoomId) -> u64 {
        self.in_room.get(room).map_or(0, HashMap::len) as u64
    }

    pub(super) fn user(&self, user: &UserId) -> Option<Present> {
        let some = self.of_user.get(user).into_iter().flat_map(HashMap::values).take(CONNECTIONS_OF_USER_MAX);
        let mut present = by_user(some.map(|field| (field.user.clone(), field.since_ms))).remove(user);
        present.iter_mut().for_each(|present| self.add_info(present));
        present
    }

    fn add_info(&self, present: &mut Present) {
        present.info = self.info.get(&present.user).cloned().unwrap_or_default();
    }

    pub(super) fn instances(&self) -> Vec<InstanceId> {
        self.instances.keys().take(INSTANCES_MAX).cloned().collect()
    }

    pub(super) fn marker(&mut self) -> u64 {
        *self.marker.get_or_insert_with(|| rand::random_range(1..=u64::MAX))
    }

    pub(super) fn apply(&mut self, me: &InstanceId, changes: &[Change]) -> Vec<RoomEvent> {
        if changes.is_empty() || self.gone.contains(me) {
            return Vec::new();
        }
        let generation = self.instances.entry(me.clone()).or_default().generation;
        changes.iter().filter_map(|change| self.change(me, generation, change)).collect()
    }

    pub(super) fn full_set(&mut self, me: &InstanceId, generation: u64, changes: &[Change], last: bool) {
        if self.gone.contains(me) {
            return;
        }
        let holdings = self.instances.entry(me.clone()).or_default();
        // A part of an older full set that was delayed: its last part would remove what the newer
        // one named.
        if generation < holdings.generation {
            return;
        }
        holdings.generation = generation;
        for change in changes {
            // What is told again is no news.
            let _joined = self.change(me, generation, change);
        }
        if last {
            // What an older copy brought back had left before: its leave was told then.
            self.watched.silent = self.watched.is_quiet(self.now_ms);
            self.remove(me, |named| named < generation);
            self.watched.silent = false;
        }
    }

    pub(super) fn reap(&mut self, instance: &InstanceId) -> u64 {
        let removed = self.remove(instance, |_| true);
        self.instances.remove(instance);
        removed
    }

    pub(super) fn goodbye(&mut self, instance: &InstanceId) {
        self.reap(instance);
        if self.gone.len() >= GONE_MAX {
            self.gone.pop_front();
        }
        self.gone.push_back(instance.clone());
    }

    fn change(&mut self, me: &InstanceId, generation: u64, change: &Change) -> Option<RoomEvent> {
        let mut joined = None;
        let (holding, adds) = match change.clone() {
            Change::InterestAdded(room) => {
                self.interest.entry(room.clone()).or_default().insert(me.clone());
                (Holding::Interest(room), true)
            }
            Change::Connected { connection, user, since_ms, info } => {
                let field = Field { instance: me.clone(), user: user.clone(), since_ms };
                self.of_user.entry(user.clone()).or_default().insert(connection.clone(), field);
                if !info.is_empty() {
                    self.info.insert(user.clone(), info);
                }
                (Holding::User(user, connection), true)
            }
            Change::Joined { connection, user, room, since_ms, watches } => {
                let field = Field { instance: me.clone(), user, since_ms };
                joined = self.join(&room, &connection, field, watches);
                (Holding::Room(room, connection), true)
            }
            Change::InterestRemoved(room) => (Holding::Interest(room), false),
            Change::Disconnected { connection, user } => (Holding::User(user, connection), false),
            Change::Left { connection, room, .. } => (Holding::Room(room, connection), false),
        };
        if !adds {
            // Only while it is still ours: the connection may have come back through another gateway.
            self.take(me, &holding, matches!(change, Change::Left { goodbye: true, .. }));
        }
        let named = &mut self.instances.entry(me.clone()).or_default().named;
        if adds {
            named.insert(holding, generation);
        } else {
            named.remove(&holding);
        }
        joined
    }

    /// Removes what of this instance was last named by such generations, and says how much of that there was.
    fn remove(&mut self, instance: &InstanceId, old: impl Fn(u64) -> bool) -> u64 {
        let Some(holdings) = self.instances.get_mut(instance) else { return 0 };
        let olds: Vec<Holding> =
            holdings.named.extract_if(|_, named| old(*named)).map(|(holding, _)| holding).collect();
        olds.iter().map(|holding| u64::from(self.take(instance, holding, false))).sum()
    }

    /// Removes a field if it is still this instance's.
    fn take(&mut self, instance: &InstanceId, holding: &Holding, goodbye: bool) -> bool {
        match holding {
            Holding::Interest(room) => {
                let Entry::Occupied(mut interested) = self.interest.entry(room.clone()) else { return false };
                let removed = interested.get_mut().remove(instance);
                // Empty sets are removed, or every room ever wanted would stay.
                if interested.get().is_empty() {
                    interested.remove();
                }
                removed
            }
            Holding::User(user, connection) => {
                let taken = take_field(self.of_user.entry(user.clone()), instance, connection);
                if !self.of_user.contains_key(user) {
                    self.info.remove(user);
                }
                taken.is_some()
            }
            Holding::Room(room, connection) => {
                let taken = take_field(self.in_room.entry(room.clone()), instance, connection);
                taken.map(|field| self.leave(room, connection, field, goodbye)).is_some()
            }
        }
    }
}

fn take_field<K>(
    connections: Entry<'_, K, ConnectionFields>,
    instance: &InstanceId,
    name: &str,
) -> Option<Field> {
    let Entry::Occupied(mut connections) = connections else { return None };
    let is_mine = connections.get().get(name).is_some_and(|field| field.instance == *instance);
    let taken = if is_mine { connections.get_mut().remove(name) } else { None };
    if connections.get().is_empty() {
        connections.remove();
    }
    taken
}
