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
//!
//! A field and its entry in the instance's hash are written in one Lua call, so that whatever an instance
//! has can be found without looking through rooms. The scripts build their keys, so all of them are on one
//! server: a single one, or the primary that sentinels name. Never sends a command that is not safe to repeat.

mod access;
mod dial;
mod failovers;
mod link;
mod scripts;
mod sentinels;

use std::collections::HashMap;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Pipeline, RedisResult};
use async_trait::async_trait;
use sluice_proto::ids::{InstanceId, RoomId, UserId};
use tokio::time::timeout;

use self::link::RedisLink;
use self::scripts::{Generation, Scripts};
use self::sentinels::Sentinels;
use crate::users::{CONNECTIONS_OF_USER_MAX, Gathering, INSTANCES_MAX, by_user};
use crate::{
    Change, DueLeaves, LEAVE_GRACE, Presence, PresenceError, Present, QUIET, Redis, Result, RoomEvent,
    RoomEventKind, Roster,
};

/// Changes of one Lua call: about a millisecond of Redis.
const CHANGES_PER_CALL: usize = 256;
/// Fields asked for in one step of a scan.
const SCAN_STEP: usize = 512;
/// Longest look at a server, connecting included.
const PROBED_WITHIN: Duration = Duration::from_secs(2);

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

/// Connects once; what the server says of itself.
///
/// # Errors
/// Why it cannot be used.
pub async fn probe(redis: Redis) -> Result<String, String> {
    let ask = async {
        let (mut connection, _) = dial::connect(&redis, None, PROBED_WITHIN).await?;
        ::redis::cmd("INFO").arg("server").query_async::<String>(&mut connection).await
    };
    let info = timeout(PROBED_WITHIN, ask).await.map_err(|_| access::silence(&redis))?;
    let info = info.map_err(|error| access::describe(&error))?;
    if info.lines().any(|line| line.trim_end() == "redis_mode:cluster") {
        return Err(access::NO_CLUSTER.to_owned());
    }
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
    Ok(format!("Redis {}", version.unwrap_or("of unknown version").trim()))
}

/// Interest and presence on Redis, each change one Lua call.
pub struct RedisPresence {
    link: RedisLink,
    prefix: String,
    scripts: Scripts,
}

impl RedisPresence {
    /// Connects with the first call, and again whenever a connection was lost; returns at once.
    ///
    /// # Errors
    /// [`PresenceError::Refused`] for a URL that is none, or a file of the section that cannot be used.
    pub fn connect(config: RedisConfig) -> Result<Self> {
        let link = RedisLink::new(config.redis, config.response_timeout)?;
        let scripts = Scripts::new(&config.prefix, config.leave_grace, config.quiet);
        Ok(Self { link, scripts, prefix: config.prefix })
    }

    /// Moves to another server as soon as sentinels make it the primary; never ends. Without it they are asked when the
    /// connection breaks.
    pub async fn follow_failovers(&self) {
        match Sentinels::of(self.link.redis().url.reveal()) {
            Ok(Some(sentinels)) => failovers::follow(&self.link, &sentinels).await,
            // A single server, which nobody moves.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    fn ticket(&self, name: &str) -> String {
        format!("{}:ticket:{name}", self.prefix)
    }

    async fn write(
        &self,
        instance: &InstanceId,
        generation: Option<u64>,
        changes: &[Change],
    ) -> Result<Vec<RoomEvent>> {
        let mut joins = Vec::new();
        // Lua blocks all of Redis while it runs.
        for part in changes.chunks(CHANGES_PER_CALL) {
            joins.extend(self.write_part(instance, generation, part).await?);
        }
        Ok(joins)
    }

    async fn write_part(
        &self,
        instance: &InstanceId,
        generation: Option<u64>,
        changes: &[Change],
    ) -> Result<Vec<RoomEvent>> {
        let mut call = self.scripts.write(instance, generation.map(Generation::from));
        for change in changes {
            call.change(change);
        }
        let joins: Vec<(String, String, i64, String)> =
            self.link.run(async |mut redis| call.invoke(&mut redis).await).await?;
        let event = |(room, user, at_ms, info): (String, String, i64, String)| {
            event(&room, &user, at_ms, RoomEventKind::Joined { info })
        };
        Ok(joins.into_iter().filter_map(event).collect())
    }

    /// Adds what tokens say of the users of a page.
    async fn add_info(&self, redis: &mut MultiplexedConnection, users: &mut [Present]) -> RedisResult<()> {
        if users.is_empty() {
            return Ok(());
        }
        let keys: Vec<String> =
            users.iter().map(|present| format!("{}:info:{}", self.prefix, present.user)).collect();
        let infos: Vec<Option<String>> = ::redis::cmd("MGET").arg(keys).query_async(redis).await?;
        for (present, info) in users.iter_mut().zip(infos) {
            present.info = info.unwrap_or_default();
        }
        Ok(())
    }

    /// Removes what of this instance was named last before `below`. Bounded steps; may be dropped and
    /// repeated at any time.
    async fn remove(&self, instance: &InstanceId, below: Generation) -> Result<u64> {
        // The instance's own index: no scan over rooms, which may be millions.
        let index = format!("{}:instance:{instance}", self.prefix);
        let (mut cursor, mut removed) = (0, 0);
        loop {
            let (next, entries): (u64, Vec<(String, String)>) = self
                .link
                // Entries that stay during the whole scan are seen at least once; those seen twice
                // do no harm.
                .run(async |mut redis| scan("HSCAN", &index, cursor).query_async(&mut redis).await)
                .await?;
            let old = entries.into_iter().filter(|(what, named)| !what.is_empty() && *named < below.0);
            let old: Vec<_> = old.map(|(what, _)| what).collect();
            for part in old.chunks(CHANGES_PER_CALL) {
                let call = self.scripts.remove(instance, &below, part);
                removed += self.link.run(async |mut redis| call.invoke::<u64>(&mut redis).await).await?;
            }
            if next == 0 {
                return Ok(removed);
            }
            cursor = next;
        }
    }

    /// Looks at the connections in a hash until `take` has enough: each with its user and since when.
    async fn connections(
        redis: &mut MultiplexedConnection,
        key: &str,
        mut take: impl FnMut(String, UserId, i64) -> bool,
    ) -> RedisResult<()> {
        let mut cursor = 0;
        loop {
            let (next, fields): (u64, Vec<(String, String)>) =
                scan("HSCAN", key, cursor).query_async(redis).await?;
            for (connection, value) in fields {
                let Some((user, since_ms)) = read_value(&value) else { continue };
                if !take(connection, user, since_ms) {
                    return Ok(());
                }
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

fn scan(command: &str, key: &str, cursor: u64) -> Cmd {
    let mut command = ::redis::cmd(command);
    command.arg(key).arg(cursor).arg("COUNT").arg(SCAN_STEP);
    command
}

/// `None` for names that cannot be: somebody else's data.
fn event(room: &str, user: &str, at_ms: i64, kind: RoomEventKind) -> Option<RoomEvent> {
    Some(RoomEvent { room: RoomId::parse(room).ok()?, user: UserId::parse(user).ok()?, at_ms, kind })
}

/// Reads `instance|since_ms|user`.
fn read_value(value: &str) -> Option<(UserId, i64)> {
    // Three parts at most: a user's name may hold the separator.
    let mut parts = value.splitn(3, '|').skip(1);
    let since = parts.next()?.parse().ok()?;
    Some((UserId::parse(parts.next()?).ok()?, since))
}

/// One number of the one that is kept and of the run id of the server, 40 hex digits, of which the first 16 are enough.
fn marker(kept: &str, run: &str) -> Option<u64> {
    // An older copy brings its marker back; the run id is new at every start of the server.
    let run = run.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default();
    kept.parse::<u64>().ok().map(|kept| (kept ^ run).max(1))
}

#[async_trait]
impl Presence for RedisPresence {
    async fn add_interest(&self, instance: &InstanceId, rooms: &[RoomId]) -> Result<()> {
        let changes: Vec<_> = rooms.iter().cloned().map(Change::InterestAdded).collect();
        self.write(instance, None, &changes).await.map(drop)
    }

    async fn remove_interest(&self, instance: &InstanceId, rooms: &[RoomId]) -> Result<()> {
        let changes: Vec<_> = rooms.iter().cloned().map(Change::InterestRemoved).collect();
        self.write(instance, None, &changes).await.map(drop)
    }

    async fn interested(&self, rooms: &[RoomId]) -> Result<Vec<Vec<InstanceId>>> {
        // An empty pipeline is an error of the library.
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(rooms.len());
        for room in rooms {
            pipeline.cmd("SMEMBERS").arg(format!("{}:interest:{room}", self.prefix));
        }
        let sets: Vec<Vec<String>> =
            self.link.run(async |mut redis| pipeline.query_async(&mut redis).await).await?;
        let read = |set: Vec<String>| set.iter().filter_map(|id| InstanceId::parse(id).ok()).collect();
        Ok(sets.into_iter().map(read).collect())
    }

    async fn apply(&self, instance: &InstanceId, changes: &[Change]) -> Result<Vec<RoomEvent>> {
        self.write(instance, None, changes).await
    }

    async fn due_leaves(&self) -> Result<DueLeaves> {
        let call = self.scripts.due();
        let (at_ms, more, due): (i64, bool, Vec<(String, String)>) =
            self.link.run(async |mut redis| call.invoke(&mut redis).await).await?;
        let events = due.iter().filter_map(|(room, user)| event(room, user, at_ms, RoomEventKind::Left));
        Ok(DueLeaves { events: events.collect(), more })
    }

    async fn full_set(
        &self,
        instance: &InstanceId,
        generation: u64,
        changes: &[Change],
        last: bool,
    ) -> Result<()> {
        // A call without changes makes the generation known, so that what is written meanwhile belongs to it.
        self.write_part(instance, Some(generation), &[]).await?;
        self.write(instance, Some(generation), changes).await?;
        if last {
            self.remove(instance, generation.into()).await?;
        }
        Ok(())
    }

    async fn marker(&self) -> Result<u64> {
        let fresh = rand::random_range(1..=u64::MAX);
        let call = self.scripts.marker(fresh);
        let found = self.link.run(async |mut redis| call.invoke(&mut redis).await).await?;
        let (kept, run): (String, String) = found;
        marker(&kept, &run)
            .ok_or_else(|| PresenceError::Refused(format!("the marker is {kept:?}, not a number")))
    }

    async fn room(&self, room: &RoomId, after: Option<&UserId>, limit: usize) -> Result<Roster> {
        let key = format!("{}:presence:r:{room}", self.prefix);
        let gathered = self.link.run(async |mut redis| {
            let mut gathering = Gathering::new(after, limit);
            let take = |connection: String, user, since_ms| {
                gathering.add(&connection, user, since_ms);
                !gathering.is_full()
            };
            Self::connections(&mut redis, &key, take).await?;
            let mut connections = 0;
            if gathering.is_full() {
                connections = ::redis::cmd("HLEN").arg(&key).query_async(&mut redis).await?;
            }
            let mut roster = gathering.roster(connections);
            self.add_info(&mut redis, &mut roster.users).await?;
            Ok(roster)
        });
        gathered.await
    }

    async fn subscribers(&self, rooms: &[RoomId]) -> Result<Vec<u64>> {
        // An empty pipeline is an error of the library.
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(rooms.len());
        for room in rooms {
            pipeline.cmd("HLEN").arg(format!("{}:presence:r:{room}", self.prefix));
        }
        self.link.run(async |mut redis| pipeline.query_async(&mut redis).await).await
    }

    async fn user(&self, user: &UserId) -> Result<Option<Present>> {
        let key = format!("{}:presence:u:{user}", self.prefix);
        let found = self.link.run(async |mut redis| {
            let mut found = HashMap::new();
            let take = |connection, user, since_ms| {
                found.insert(connection, (user, since_ms));
                found.len() < CONNECTIONS_OF_USER_MAX
            };
            Self::connections(&mut redis, &key, take).await?;
            let mut present = by_user(found.into_values()).remove(user);
            self.add_info(&mut redis, present.as_mut_slice()).await?;
            Ok(present)
        });
        found.await
    }

    async fn instances(&self) -> Result<Vec<InstanceId>> {
        // At random: with more instances than one call takes, each comes up in time.
        let mut some = ::redis::cmd("SRANDMEMBER");
        some.arg(format!("{}:instances", self.prefix)).arg(INSTANCES_MAX);
        let ids: Vec<String> = self.link.run(async |mut redis| some.query_async(&mut redis).await).await?;
        Ok(ids.iter().filter_map(|id| InstanceId::parse(id).ok()).collect())
    }

    async fn reap(&self, instance: &InstanceId) -> Result<u64> {
        let removed = self.remove(instance, Generation::beyond_all()).await?;
        // Asked of the script, which looks again: something may have been written since the scan.
        let call = self.scripts.forget(instance);
        self.link.run(async |mut redis| call.invoke::<()>(&mut redis).await).await?;
        Ok(removed)
    }

    async fn goodbye(&self, instance: &InstanceId) -> Result<()> {
        let call = self.scripts.goodbye(instance);
        let all = self.link.run(async |mut redis| call.invoke::<bool>(&mut redis).await).await?;
        // a large crowd was cut off: in steps, so that Redis serves others in between
        if all { Ok(()) } else { self.reap(instance).await.map(drop) }
    }

    async fn keep_ticket(&self, name: &str, record: &[u8], keep: Duration) -> Result<()> {
        let mut set = ::redis::cmd("SET");
        set.arg(self.ticket(name))
            .arg(record)
            .arg("PX")
            .arg(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX));
        self.link.run(async |mut redis| set.exec_async(&mut redis).await).await
    }

    async fn take_ticket(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let key = self.ticket(name);
        let mut take = ::redis::pipe();
        // In one step: of two who come with it at once only one may find it.
        take.atomic().get(&key).del(&key).ignore();
        let (record,): (Option<Vec<u8>>,) =
            self.link.run(async |mut redis| take.query_async(&mut redis).await).await?;
        Ok(record)
    }

    async fn close(&self) {
        self.link.close();
    }
}
