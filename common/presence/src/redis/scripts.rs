//! The Lua calls. Each does what must not be torn apart: a field with its entry in the instance's hash, the
//! removal of a field with the look at what is left, and a user's last one in a room with the leave that is due.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{FromRedisValue, RedisResult, Script, ScriptInvocation};
use sluice_proto::ids::InstanceId;

use crate::{Change, GOODBYE_GRACE, WATCHED_CONNECTIONS_MAX};

/// Text that sorts like the number.
#[derive(Debug, Clone)]
pub(super) struct Generation(pub(super) String);

impl From<u64> for Generation {
    fn from(number: u64) -> Self {
        Self(format!("{number:020}"))
    }
}

impl Generation {
    pub(super) fn beyond_all() -> Self {
        Self("~".into())
    }
}

/// What the scripts have in common. ARGV begins with prefix, instance and the grace of a leave in milliseconds. Index
/// entries: `i\n<room>`, `u\n<user>\n<connection>`, `r\n<room>\n<connection>`.
///
/// A room is watched while a connection in it is, and for one grace longer: watchers move too. Only then a leave is
/// noted. Until it is due a field `~<user>` stands for the user in the room, so that whoever asks hears the same as whoever
/// was told.
///
/// In a cluster the connections of a user are in another slot than a room's: `users:<room>` counts them for each user. A
/// server alone is asked for them as by versions before, which run beside this one during a roll.
///
/// An entry is written before what it stands for, and removed after it: a script that is stopped half-way, since a
/// slot is on its way to another node, leaves nothing that cannot be found. `users:<room>` is touched before the room is
/// written to (`counted`): where it has left already, nothing is changed that it would have to count.
const COMMON: &str = r"
local prefix, me, grace = ARGV[1], ARGV[2], tonumber(ARGV[3])
local split = string.match(prefix, ':{[^{}]*}$') ~= nil
local index = prefix .. ':instance:' .. me
local mine = me .. '|'
local silent = false
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function quiet()
  return redis.call('EXISTS', prefix .. ':run') == 0 or redis.call('EXISTS', prefix .. ':quiet') == 1
end
local function watched(room)
  return redis.call('EXISTS', prefix .. ':watch:' .. room, prefix .. ':watched:' .. room) > 0
end
local function there(room, user)
  if split then return redis.call('HEXISTS', prefix .. ':users:' .. room, user) == 1 end
  local of_user, in_room = prefix .. ':presence:u:' .. user, prefix .. ':presence:r:' .. room
  if redis.call('HLEN', of_user) > 256 then return true end
  for _, connection in ipairs(redis.call('HKEYS', of_user)) do
    if redis.call('HEXISTS', in_room, connection) == 1 then return true end
  end
  return false
end
local function remove(key, connection)
  local value = redis.call('HGET', key, connection)
  if not value or string.sub(value, 1, #mine) ~= mine then return false end
  redis.call('HDEL', key, connection)
  return value
end
local function leave_user(user, connection)
  local of_user = prefix .. ':presence:u:' .. user
  local removed = remove(of_user, connection)
  if removed and redis.call('EXISTS', of_user) == 0 then
    redis.call('PEXPIRE', prefix .. ':info:' .. user, grace + 60000)
  end
  return removed
end
local function counted(room)
  if split then redis.call('HLEN', prefix .. ':users:' .. room) end
end
local function leave_room(room, connection, goodbye)
  local in_room, watch = prefix .. ':presence:r:' .. room, prefix .. ':watch:' .. room
  counted(room)
  local value = remove(in_room, connection)
  if not value then return false end
  local since, user = string.match(value, '^[^|]*|([^|]*)|(.*)$')
  if split and user then
    local users = prefix .. ':users:' .. room
    if redis.call('HINCRBY', users, user, -1) < 1 then redis.call('HDEL', users, user) end
    if redis.call('EXISTS', in_room) == 0 then redis.call('DEL', users) end
  end
  if not watched(room) then return value end
  if redis.call('SREM', watch, connection) == 1 and redis.call('EXISTS', watch) == 0 then
    redis.call('SET', prefix .. ':watched:' .. room, '', 'PX', grace)
  end
  if silent or not user or there(room, user) then return value end
  local wait = grace
  if goodbye and not quiet() then wait = math.min(grace, 1000) end
  redis.call('ZADD', prefix .. ':leaves', string.format('%.0f', now() + wait), room .. '\n' .. user)
  redis.call('HSET', in_room, '~' .. user, '|' .. since .. '|' .. user)
  return value
end
local function take(entry)
  local kind, name, connection = string.match(entry, '^(%a)\n([^\n]*)\n?(.*)$')
  if kind == 'i' then return redis.call('SREM', prefix .. ':interest:' .. name, me) == 1 end
  if kind == 'u' then return leave_user(name, connection) end
  return kind == 'r' and leave_room(name, connection, false)
end
";

/// ARGV: generation of a full set or '', then six of each change. Returns joins: room, user, when, info.
const WRITE: &str = r"
if redis.call('EXISTS', prefix .. ':gone:' .. me) == 1 then return {} end
local current = redis.call('HGET', index, '') or '00000000000000000000'
local generation = ARGV[4]
if generation ~= '' then
  if generation < current then return {} end
  if generation > current then
    redis.call('HSET', index, '', generation)
    current = generation
  end
end
redis.call('SADD', prefix .. ':instances', me)
local joins = {}
local function joined(room, connection, user, since, watches)
  local in_room = prefix .. ':presence:r:' .. room
  local told = generation == '' and watched(room) and not there(room, user)
  counted(room)
  redis.call('HSET', index, 'r\n' .. room .. '\n' .. connection, current)
  local new = redis.call('HSET', in_room, connection, mine .. since .. '|' .. user) == 1
  if split and new then redis.call('HINCRBY', prefix .. ':users:' .. room, user, 1) end
  if watches == '1' then redis.call('SADD', prefix .. ':watch:' .. room, connection) end
  if redis.call('ZREM', prefix .. ':leaves', room .. '\n' .. user) == 1 then
    redis.call('HDEL', in_room, '~' .. user)
  elseif told and not quiet() then
    joins[#joins + 1] = {room, user, now(), redis.call('GET', prefix .. ':info:' .. user) or ''}
  end
end
for at = 5, #ARGV, 6 do
  local change, connection, user, room = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local extra, more = ARGV[at + 4], ARGV[at + 5]
  if change == 'interest' then
    redis.call('HSET', index, 'i\n' .. room, current)
    redis.call('SADD', prefix .. ':interest:' .. room, me)
  elseif change == 'no interest' then
    redis.call('SREM', prefix .. ':interest:' .. room, me)
    redis.call('HDEL', index, 'i\n' .. room)
  elseif change == 'connected' then
    redis.call('HSET', index, 'u\n' .. user .. '\n' .. connection, current)
    redis.call('HSET', prefix .. ':presence:u:' .. user, connection, mine .. extra .. '|' .. user)
    if more ~= '' then redis.call('SET', prefix .. ':info:' .. user, more, 'EX', 3600) end
  elseif change == 'disconnected' then
    leave_user(user, connection)
    redis.call('HDEL', index, 'u\n' .. user .. '\n' .. connection)
  elseif change == 'joined' then
    joined(room, connection, user, extra, more)
  elseif change == 'left' then
    leave_room(room, connection, extra == '1')
    redis.call('HDEL', index, 'r\n' .. room .. '\n' .. connection)
  end
end
return joins
";

/// ARGV: generation, then entries of the instance's hash. Removes those named last before
/// the generation, with what they stand for, and returns how many of that there were. A newer generation has
/// begun: none, it may still name them.
const REMOVE: &str = r"
local current = redis.call('HGET', index, '')
if current and current > ARGV[4] then return 0 end
-- What an older copy brought back had left before: its leave was told then.
silent = ARGV[4] ~= '~' and quiet()
local removed = 0
for at = 5, #ARGV do
  local named = redis.call('HGET', index, ARGV[at])
  if named and named < ARGV[4] then
    local gone = take(ARGV[at])
    redis.call('HDEL', index, ARGV[at])
    if gone then removed = removed + 1 end
  end
end
return removed
";

/// Forgets an instance that has nothing any more.
const FORGET: &str = r"
if redis.call('HLEN', index) <= redis.call('HEXISTS', index, '') then
  redis.call('DEL', index)
  redis.call('SREM', prefix .. ':instances', me)
end
return redis.status_reply('OK')
";

/// ARGV: how long late writes are dropped, entries at once. Removes everything of an instance and
/// returns 1; of one that has more entries nothing, and 0.
const GOODBYE: &str = r"
redis.call('SET', prefix .. ':gone:' .. me, '1', 'EX', ARGV[4])
if redis.call('HLEN', index) > tonumber(ARGV[5]) then return 0 end
for _, entry in ipairs(redis.call('HKEYS', index)) do take(entry) end
redis.call('DEL', index)
redis.call('SREM', prefix .. ':instances', me)
return 1
";

/// How long late writes of an instance that has said goodbye are dropped, seconds: a call ends within a fraction of
/// one, but the logic that makes it may have been frozen.
const GONE_S: u32 = 60;
/// Entries removed by one call: some ten milliseconds of Redis, in which it serves nobody else.
const GOODBYE_MAX: u32 = 4_096;

/// ARGV: most at once. Takes leaves whose grace is over. Returns when, whether there are more, and each with room and user.
/// Nobody is told while it is quiet: an older copy brings back what was told before.
const DUE: &str = r"
local leaves, at, most = prefix .. ':leaves', now(), tonumber(ARGV[4])
silent = quiet()
local due = redis.call('ZRANGEBYSCORE', leaves, '-inf', string.format('%.0f', at), 'LIMIT', 0, most)
local told = {}
for _, entry in ipairs(due) do
  local room, user = string.match(entry, '^([^\n]*)\n(.*)$')
  redis.call('ZREM', leaves, entry)
  redis.call('HDEL', prefix .. ':presence:r:' .. room, '~' .. user)
  if not silent and watched(room) and not there(room, user) then told[#told + 1] = {room, user} end
end
return {at, #due == most and 1 or 0, told}
";

/// ARGV: prefix, a fresh number, how long it is quiet after a start or a loss. Returns the number that is kept, the server's own, new at each of its starts,
/// and whether it is a node of a cluster.
const MARKER: &str = r"
redis.call('SET', ARGV[1] .. ':marker', ARGV[2], 'NX')
local info = redis.call('INFO', 'server')
local run = string.match(info, 'run_id:(%x+)') or ''
if redis.call('GET', ARGV[1] .. ':run') ~= run then
  redis.call('SET', ARGV[1] .. ':run', run)
  if tonumber(ARGV[3]) > 0 then redis.call('SET', ARGV[1] .. ':quiet', '', 'PX', ARGV[3]) end
end
return {redis.call('GET', ARGV[1] .. ':marker'), run, string.match(info, '_mode:(%a+)') == 'cluster' and 1 or 0}
";

/// Takes what a ticket stands for; of two who come with it at once only one may find it.
const TAKE: &str = r"
local kept = redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
return kept
";

// They stand in the scripts as numbers.
const _: () = assert!(GOODBYE_GRACE.as_millis() == 1_000 && WATCHED_CONNECTIONS_MAX == 256);

pub(super) struct Scripts {
    /// Milliseconds.
    grace: String,
    quiet: String,
    write: Script,
    remove: Script,
    forget: Script,
    goodbye: Script,
    due: Script,
    marker: Script,
    take: Script,
}

/// A call with its arguments.
pub(super) struct ScriptCall<'a>(ScriptInvocation<'a>);

/// The calls, each for the keys of one part, which all begin with its `root`.
impl Scripts {
    pub(super) fn new(grace: Duration, quiet: Duration) -> Self {
        // A key that ends at once is an error for Redis.
        let (grace, quiet) = (grace.as_millis().max(1).to_string(), quiet.as_millis().to_string());
        let with_common = |code| Script::new(&format!("{COMMON}{code}"));
        Self {
            grace,
            quiet,
            write: with_common(WRITE),
            remove: with_common(REMOVE),
            forget: with_common(FORGET),
            goodbye: with_common(GOODBYE),
            due: with_common(DUE),
            marker: Script::new(MARKER),
            take: Script::new(TAKE),
        }
    }

    pub(super) fn write(
        &self,
        root: &str,
        instance: &InstanceId,
        generation: Option<Generation>,
    ) -> ScriptCall<'_> {
        self.call(&self.write, root, instance, &[generation.map(|it| it.0).as_deref().unwrap_or("")])
    }

    pub(super) fn remove(
        &self,
        root: &str,
        instance: &InstanceId,
        below: &Generation,
        entries: &[String],
    ) -> ScriptCall<'_> {
        let mut call = self.call(&self.remove, root, instance, &[&below.0]);
        call.0.arg(entries);
        call
    }

    pub(super) fn forget(&self, root: &str, instance: &InstanceId) -> ScriptCall<'_> {
        self.call(&self.forget, root, instance, &[])
    }

    pub(super) fn goodbye(&self, root: &str, instance: &InstanceId) -> ScriptCall<'_> {
        let (seconds, most) = (GONE_S.to_string(), GOODBYE_MAX.to_string());
        self.call(&self.goodbye, root, instance, &[&seconds, &most])
    }

    pub(super) fn due(&self, root: &str, most: usize) -> ScriptCall<'_> {
        let mut call = in_slot_of(&self.due, root);
        call.arg("").arg(&self.grace).arg(most);
        ScriptCall(call)
    }

    pub(super) fn marker(&self, root: &str, fresh: u64) -> ScriptCall<'_> {
        let mut call = in_slot_of(&self.marker, root);
        call.arg(fresh).arg(&self.quiet);
        ScriptCall(call)
    }

    pub(super) fn take(&self, ticket: &str) -> ScriptCall<'_> {
        ScriptCall(self.take.key(ticket))
    }

    fn call<'a>(
        &self,
        script: &'a Script,
        root: &str,
        instance: &InstanceId,
        arguments: &[&str],
    ) -> ScriptCall<'a> {
        let mut call = in_slot_of(script, root);
        call.arg(instance.as_str()).arg(&self.grace).arg(arguments);
        ScriptCall(call)
    }
}

/// Names one key, so that a node that does not have them says who has.
fn in_slot_of<'a>(script: &'a Script, root: &str) -> ScriptInvocation<'a> {
    let mut call = script.key(format!("{root}:instances"));
    call.arg(root);
    call
}

impl ScriptCall<'_> {
    pub(super) fn change(&mut self, change: &Change) {
        let none = "";
        let (what, connection, user, room, extra, more) = match change {
            Change::Connected { connection, user, since_ms, info } => {
                ("connected", connection.as_str(), user.as_str(), none, *since_ms, info.as_str())
            }
            Change::Disconnected { connection, user } => {
                ("disconnected", connection.as_str(), user.as_str(), none, 0, none)
            }
            Change::Joined { connection, user, room, since_ms, watches } => {
                let watches = if *watches { "1" } else { none };
                ("joined", connection.as_str(), user.as_str(), room.as_str(), *since_ms, watches)
            }
            Change::Left { connection, room, goodbye } => {
                ("left", connection.as_str(), none, room.as_str(), i64::from(*goodbye), none)
            }
            Change::InterestAdded(room) => ("interest", none, none, room.as_str(), 0, none),
            Change::InterestRemoved(room) => ("no interest", none, none, room.as_str(), 0, none),
        };
        self.0.arg(what).arg(connection).arg(user).arg(room).arg(extra).arg(more);
    }

    pub(super) async fn invoke<T: FromRedisValue>(
        &self,
        redis: &mut MultiplexedConnection,
    ) -> RedisResult<T> {
        self.0.invoke_async(redis).await
    }
}
