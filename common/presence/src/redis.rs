//! Presence on Redis.
//!
//! | Key | Holds |
//! |---|---|
//! | `<prefix>:interest:{room}` | set of instance ids |
//! | `<prefix>:presence:r:{room}`, `<prefix>:presence:u:{user}` | hash connection → `instance\|since_ms\|user` |
//! | `<prefix>:watch:{room}` | set of connections that are told who comes and goes; none: nothing is told or noted |
//! | `<prefix>:watched:{room}` | for one grace after the last of them left: watchers move too |
//! | `<prefix>:leaves` | sorted set of `room\nuser` by when the leave is due; a field `~user` stands in the room until then |
//! | `<prefix>:info:{user}` | what a token of the user says, until a minute after the grace of the last connection |
//! | `<prefix>:instance:{id}` | hash of everything the instance has in the others → generation that named it last |
//! | `<prefix>:instances` | set of instances with such a hash |
//! | `<prefix>:gone:{id}` | for a minute: the instance has said goodbye, writes of it that come late are dropped |
//! | `<prefix>:ticket:{hash}` | what a ticket stands for, unreadable without it, until it is taken or its minute is over |
//! | `<prefix>:run`, `<prefix>:quiet` | the number that the server gave itself at its start; for a while after a new one nobody is told of joins |
//! | `<prefix>:marker` | random number; lost with the data. An older copy of the data brings it back, so the number that the server gave itself at its start counts as well |
//! | `<prefix>:users:{room}` | only in a cluster: how many connections of each user the room has |
//!
//! A field and its entry in the instance's hash are written in one Lua call, so that whatever an instance
//! has can be found without looking through rooms. All keys of a call are on one server: a single one, or the primary that
//! sentinels name. In a Redis Cluster `<prefix>` is followed by one of sixteen hash tags, chosen by room or by user: each
//! part has an index of each instance, leaves and a marker of its own, as if it were a server. Never sends a command that
//! is not safe to repeat.

mod access;
mod dial;
mod failovers;
mod link;
mod nodes;
mod parts;
mod probing;
mod reading;
mod scripts;
mod sentinels;
mod servers;

use std::collections::HashSet;
use std::time::Duration;

use ::redis::FromRedisValue;
use async_trait::async_trait;
use futures::future::join_all;
use sluice_proto::ids::{InstanceId, RoomId, UserId};

use self::parts::{Part, Parts, in_order};
pub use self::probing::probe;
use self::reading::{event, scan};
use self::scripts::{Generation, Scripts};
use self::servers::Servers;
use crate::users::INSTANCES_MAX;
use crate::{
    Applied, Change, DUE_LEAVES_MAX, DueLeaves, LEAVE_GRACE, Presence, PresenceError, Present, QUIET, Redis,
    Result, RoomEvent, RoomEventKind, Roster,
};

/// Changes of one Lua call: about a millisecond of Redis.
const CHANGES_PER_CALL: usize = 256;

/// Where Redis is and what is ours in it.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// The section of the configuration.
    pub redis: Redis,
    /// Begins all keys, so that two deployments can share a server.
    pub prefix: String,
    /// Longest wait for a call, connecting included.
    pub response_timeout: Duration,
    /// How long a user may be away from a room before a leave is told; the same for all.
    pub leave_grace: Duration,
    /// How long nobody is told of joins after the server has started or lost its data.
    pub quiet: Duration,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            redis: Redis::default(),
            prefix: "sluice".into(),
            response_timeout: Duration::from_millis(500),
            leave_grace: LEAVE_GRACE,
            quiet: QUIET,
        }
    }
}

/// Interest and presence on Redis, each change one Lua call; where it is a cluster, one for each part that is concerned, all
/// at once.
pub struct RedisPresence {
    servers: Servers,
    parts: Parts,
    scripts: Scripts,
}

impl RedisPresence {
    /// Connects with the first call, and again whenever a connection was lost; returns at once.
    ///
    /// # Errors
    /// [`PresenceError::Refused`] for a URL that is none, or a file of the section that cannot be used.
    pub fn connect(config: RedisConfig) -> Result<Self> {
        let (servers, parts) = Servers::new(config.redis, config.response_timeout, &config.prefix)?;
        let scripts = Scripts::new(config.leave_grace, config.quiet);
        Ok(Self { servers, parts, scripts })
    }

    /// Moves to another server as soon as sentinels make it the primary; never ends. Without it they are asked when the
    /// connection breaks.
    pub async fn follow_failovers(&self) {
        self.servers.follow_failovers().await;
    }

    /// The key of this name in its part.
    fn key(&self, part: Part, name: impl std::fmt::Display) -> String {
        format!("{}:{name}", self.parts.root(part))
    }

    /// Does the same in every part, at once. All are done, also when one fails.
    async fn each<'a, T, F: Future<Output = Result<T>>>(
        &'a self,
        does: impl Fn(&'a Self, Part) -> F,
    ) -> Result<Vec<T>> {
        join_all(self.parts.all().map(|part| does(self, part))).await.into_iter().collect()
    }

    async fn write(&self, instance: &InstanceId, generation: Option<u64>, changes: &[Change]) -> Applied {
        // A full set speaks for every part, also for those that it has nothing in.
        let split = self.parts.split(changes, generation.is_some());
        let writes =
            split.into_iter().map(|(part, changes)| self.write_part(part, instance, generation, changes));
        let mut all = Applied::from(Ok(Vec::new()));
        for applied in join_all(writes).await {
            all.joins.extend(applied.joins);
            all.stored = all.stored.and(applied.stored);
        }
        // Not where a part is away: it may be asked again here, and what was stored must be told within the call's time.
        if self.parts.are_several() && all.stored.is_ok() {
            self.add_info_to(&mut all.joins).await;
        }
        all
    }

    async fn write_part(
        &self,
        part: Part,
        instance: &InstanceId,
        generation: Option<u64>,
        changes: Vec<&Change>,
    ) -> Applied {
        let mut applied = Applied::from(Ok(Vec::new()));
        // Lua blocks all of Redis while it runs.
        for chunk in changes.chunks(CHANGES_PER_CALL) {
            match self.write_chunk(part, instance, generation, chunk).await {
                Ok(joins) => applied.joins.extend(joins),
                Err(error) => return Applied { stored: Err(error), ..applied },
            }
        }
        // A call without changes makes the generation known, so that what is written meanwhile belongs to it.
        if changes.is_empty() {
            applied.stored = self.write_chunk(part, instance, generation, &[]).await.map(drop);
        }
        applied
    }

    async fn write_chunk(
        &self,
        part: Part,
        instance: &InstanceId,
        generation: Option<u64>,
        changes: &[&Change],
    ) -> Result<Vec<RoomEvent>> {
        let mut call = self.scripts.write(self.parts.root(part), instance, generation.map(Generation::from));
        for change in changes {
            call.change(change);
        }
        let call = &call;
        let joins: Vec<(String, String, i64, String)> =
            self.servers.run(part, |mut redis| async move { call.invoke(&mut redis).await }).await?;
        let event = |(room, user, at_ms, info): (String, String, i64, String)| {
            event(&room, &user, at_ms, RoomEventKind::Joined { info })
        };
        Ok(joins.into_iter().filter_map(event).collect())
    }

    /// Removes what of this instance was named last before `below`. Bounded steps; may be dropped and
    /// repeated at any time.
    async fn remove(&self, part: Part, instance: &InstanceId, below: &Generation) -> Result<u64> {
        // The instance's own index: no scan over rooms, which may be millions.
        let index = self.key(part, format_args!("instance:{instance}"));
        let (mut cursor, mut removed) = (0, 0);
        loop {
            let step = &scan("HSCAN", &index, cursor);
            let (next, entries): (u64, Vec<(String, String)>) = self
                .servers
                // Entries that stay during the whole scan are seen at least once; those seen twice
                // do no harm.
                .run(part, |mut redis| async move { step.query_async(&mut redis).await })
                .await?;
            let old = entries.into_iter().filter(|(what, named)| !what.is_empty() && *named < below.0);
            let old: Vec<_> = old.map(|(what, _)| what).collect();
            for chunk in old.chunks(CHANGES_PER_CALL) {
                let call = &self.scripts.remove(self.parts.root(part), instance, below, chunk);
                removed += self
                    .servers
                    .run(part, |mut redis| async move { call.invoke::<u64>(&mut redis).await })
                    .await?;
            }
            if next == 0 {
                return Ok(removed);
            }
            cursor = next;
        }
    }

    async fn reap_part(&self, part: Part, instance: &InstanceId) -> Result<u64> {
        let removed = self.remove(part, instance, &Generation::beyond_all()).await?;
        // Asked of the script, which looks again: something may have been written since the scan.
        let call = &self.scripts.forget(self.parts.root(part), instance);
        self.servers.run(part, |mut redis| async move { call.invoke::<()>(&mut redis).await }).await?;
        Ok(removed)
    }

    async fn goodbye_of(&self, part: Part, instance: &InstanceId) -> Result<()> {
        let call = &self.scripts.goodbye(self.parts.root(part), instance);
        let all: bool =
            self.servers.run(part, |mut redis| async move { call.invoke(&mut redis).await }).await?;
        // a large crowd was cut off: in steps, so that Redis serves others in between
        if all { Ok(()) } else { self.reap_part(part, instance).await.map(drop) }
    }

    async fn due_in(&self, part: Part) -> Result<DueLeaves> {
        let call = &self.scripts.due(self.parts.root(part), DUE_LEAVES_MAX / self.parts.count());
        let (at_ms, more, due): (i64, bool, Vec<(String, String)>) =
            self.servers.run(part, |mut redis| async move { call.invoke(&mut redis).await }).await?;
        let events = due.iter().filter_map(|(room, user)| event(room, user, at_ms, RoomEventKind::Left));
        Ok(DueLeaves { events: events.collect(), more })
    }

    async fn marker_of(&self, part: Part) -> Result<u64> {
        let fresh = rand::random_range(1..=u64::MAX);
        let call = &self.scripts.marker(self.parts.root(part), fresh);
        let found = self.servers.run(part, |mut redis| async move { call.invoke(&mut redis).await }).await?;
        let (kept, run, of_cluster): (String, String, bool) = found;
        // Servers alone, named as nodes: each would have another share, differently for each who asks.
        if self.parts.are_several() && !of_cluster {
            return Err(PresenceError::Refused(probing::ALONE.to_owned()));
        }
        marker(&kept, &run)
            .ok_or_else(|| PresenceError::Refused(format!("the marker is {kept:?}, not a number")))
    }

    async fn instances_in(&self, part: Part) -> Result<Vec<String>> {
        // At random: with more instances than one call takes, each comes up in time.
        let mut some = ::redis::cmd("SRANDMEMBER");
        some.arg(self.key(part, "instances")).arg(INSTANCES_MAX);
        let some = &some;
        self.servers.run(part, |mut redis| async move { some.query_async(&mut redis).await }).await
    }

    /// Asks one thing of each room; in their order.
    async fn of_rooms<T: FromRedisValue + Send>(
        &self,
        command: &str,
        key: &str,
        rooms: &[RoomId],
    ) -> Result<Vec<T>> {
        let groups = self.parts.group(rooms, RoomId::as_str);
        let asked = groups.into_iter().map(|(part, rooms)| self.of_rooms_in(part, command, key, rooms));
        in_order(join_all(asked).await)
    }

    async fn of_rooms_in<T: FromRedisValue + Send>(
        &self,
        part: Part,
        command: &str,
        key: &str,
        rooms: Vec<(usize, &RoomId)>,
    ) -> Result<Vec<(usize, T)>> {
        let mut pipeline = ::redis::Pipeline::with_capacity(rooms.len());
        for (_, room) in &rooms {
            pipeline.cmd(command).arg(self.key(part, format_args!("{key}:{room}")));
        }
        let pipeline = &pipeline;
        let answers: Vec<T> =
            self.servers.run(part, |mut redis| async move { pipeline.query_async(&mut redis).await }).await?;
        Ok(rooms.into_iter().map(|(place, _)| place).zip(answers).collect())
    }
}

/// One number of the one that is kept and of the run id of the server, 40 hex digits, of which the first 16 are enough.
fn marker(kept: &str, run: &str) -> Option<u64> {
    // An older copy brings its marker back; the run id is new at every start of the server.
    let run = run.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default();
    kept.parse::<u64>().ok().map(|kept| (kept ^ run).max(1))
}

/// One number of those of all parts: another one where any of them is another one.
fn all_of(markers: Vec<u64>) -> u64 {
    match markers[..] {
        // As versions before have it, which run beside this one during a roll.
        [marker] => marker,
        // Not a plain sum: a server that starts anew changes several of them by the same bits.
        _ => markers.iter().fold(FNV_BASIS, |all, one| (all ^ one).wrapping_mul(FNV_PRIME)).max(1),
    }
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

#[async_trait]
impl Presence for RedisPresence {
    async fn add_interest(&self, instance: &InstanceId, rooms: &[RoomId]) -> Result<()> {
        let changes: Vec<_> = rooms.iter().cloned().map(Change::InterestAdded).collect();
        self.write(instance, None, &changes).await.stored
    }

    async fn remove_interest(&self, instance: &InstanceId, rooms: &[RoomId]) -> Result<()> {
        let changes: Vec<_> = rooms.iter().cloned().map(Change::InterestRemoved).collect();
        self.write(instance, None, &changes).await.stored
    }

    async fn interested(&self, rooms: &[RoomId]) -> Result<Vec<Vec<InstanceId>>> {
        let sets: Vec<Vec<String>> = self.of_rooms("SMEMBERS", "interest", rooms).await?;
        let read = |set: Vec<String>| set.iter().filter_map(|id| InstanceId::parse(id).ok()).collect();
        Ok(sets.into_iter().map(read).collect())
    }

    async fn apply(&self, instance: &InstanceId, changes: &[Change]) -> Applied {
        self.write(instance, None, changes).await
    }

    async fn due_leaves(&self) -> Result<DueLeaves> {
        let (mut all, mut failed) = (None, None);
        for due in join_all(self.parts.all().map(|part| self.due_in(part))).await {
            match due {
                Ok(due) => {
                    let all: &mut DueLeaves = all.get_or_insert_default();
                    all.events.extend(due.events);
                    all.more |= due.more;
                }
                Err(error) => failed = Some(error),
            }
        }
        // What other parts have given is given to nobody else.
        all.ok_or_else(|| failed.unwrap_or(PresenceError::Closed))
    }

    async fn full_set(
        &self,
        instance: &InstanceId,
        generation: u64,
        changes: &[Change],
        last: bool,
    ) -> Result<()> {
        self.write(instance, Some(generation), changes).await.stored?;
        if last {
            let below = &Generation::from(generation);
            self.each(|this, part| this.remove(part, instance, below)).await?;
        }
        Ok(())
    }

    async fn marker(&self) -> Result<u64> {
        self.each(Self::marker_of).await.map(all_of)
    }

    async fn room(&self, room: &RoomId, after: Option<&UserId>, limit: usize) -> Result<Roster> {
        self.roster(room, after, limit).await
    }

    async fn subscribers(&self, rooms: &[RoomId]) -> Result<Vec<u64>> {
        self.of_rooms("HLEN", "presence:r", rooms).await
    }

    async fn user(&self, user: &UserId) -> Result<Option<Present>> {
        self.present(user).await
    }

    async fn instances(&self) -> Result<Vec<InstanceId>> {
        let found = self.each(Self::instances_in).await?;
        // Each has an index in most parts; the order of this set is another one each time.
        let ids: HashSet<String> = found.into_iter().flatten().collect();
        Ok(ids.iter().filter_map(|id| InstanceId::parse(id).ok()).take(INSTANCES_MAX).collect())
    }

    async fn reap(&self, instance: &InstanceId) -> Result<u64> {
        let removed = self.each(|this, part| this.reap_part(part, instance)).await?;
        Ok(removed.iter().sum())
    }

    async fn goodbye(&self, instance: &InstanceId) -> Result<()> {
        self.each(|this, part| this.goodbye_of(part, instance)).await.map(drop)
    }

    async fn keep_ticket(&self, name: &str, record: &[u8], keep: Duration) -> Result<()> {
        let part = self.parts.of(name);
        let mut set = ::redis::cmd("SET");
        set.arg(self.key(part, format_args!("ticket:{name}")))
            .arg(record)
            .arg("PX")
            .arg(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX));
        let set = &set;
        self.servers.run(part, |mut redis| async move { set.exec_async(&mut redis).await }).await
    }

    async fn take_ticket(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let part = self.parts.of(name);
        let call = &self.scripts.take(&self.key(part, format_args!("ticket:{name}")));
        self.servers.run(part, |mut redis| async move { call.invoke(&mut redis).await }).await
    }

    async fn close(&self) {
        self.servers.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_with_another_marker_is_noticed() {
        assert_eq!(all_of(vec![7]), 7);
        let markers: Vec<u64> = (1..=16).map(|n| n << 40).collect();
        let before = all_of(markers.clone());
        for first in 0..16 {
            for last in first..16 {
                let mut after = markers.clone();
                after[first..=last].iter_mut().for_each(|marker| *marker ^= 0xabcd_ef01_2345_6789);
                assert_ne!(all_of(after), before, "parts {first} to {last}");
            }
        }
    }
}
