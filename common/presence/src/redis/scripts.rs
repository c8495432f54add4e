//! The Lua calls. Each does what must not be torn apart: a field with its entry in the instance's hash, the
//! removal of a field with the look at what is left.

use ::redis::aio::MultiplexedConnection;
use ::redis::{FromRedisValue, RedisResult, Script, ScriptInvocation};
use sluice_proto::ids::InstanceId;

use crate::Change;

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

/// Names what both scripts use. Index entries: `i\n<room>`, `u\n<user>\n<connection>`, `r\n<room>\n<connection>`.
const COMMON: &str = r"
local prefix, me = ARGV[1], ARGV[2]
local index = prefix .. ':instance:' .. me
local mine = me .. '|'
local function remove(key, connection)
  local value = redis.call('HGET', key, connection)
  return value and string.sub(value, 1, #mine) == mine and redis.call('HDEL', key, connection) == 1
end
local function take(entry)
  local kind, name, connection = string.match(entry, '^(%a)\n([^\n]*)\n?(.*)$')
  if kind == 'i' then return redis.call('SREM', prefix .. ':interest:' .. name, me) == 1 end
  return kind and remove(prefix .. ':presence:' .. kind .. ':' .. name, connection)
end
";

/// ARGV: prefix, instance, generation of a full set or '', then five of each change. Returns leaves.
const WRITE: &str = r"
if redis.call('EXISTS', prefix .. ':gone:' .. me) == 1 then return {} end
local current = redis.call('HGET', index, '') or '00000000000000000000'
local generation = ARGV[3]
if generation ~= '' then
  if generation < current then return {} end
  if generation > current then
    redis.call('HSET', index, '', generation)
    current = generation
  end
end
redis.call('SADD', prefix .. ':instances', me)
local leaves = {}
for at = 4, #ARGV, 5 do
  local change, connection, user, room, extra = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local value = mine .. extra .. '|' .. user
  local of_user, in_room = prefix .. ':presence:u:' .. user, prefix .. ':presence:r:' .. room
  if change == 'interest' then
    redis.call('SADD', prefix .. ':interest:' .. room, me)
    redis.call('HSET', index, 'i\n' .. room, current)
  elseif change == 'no interest' then
    redis.call('SREM', prefix .. ':interest:' .. room, me)
    redis.call('HDEL', index, 'i\n' .. room)
  elseif change == 'connected' then
    redis.call('HSET', of_user, connection, value)
    redis.call('HSET', index, 'u\n' .. user .. '\n' .. connection, current)
  elseif change == 'disconnected' then
    if remove(of_user, connection) and redis.call('EXISTS', of_user) == 0 then
      leaves[#leaves + 1] = {user, tonumber(extra)}
    end
    redis.call('HDEL', index, 'u\n' .. user .. '\n' .. connection)
  elseif change == 'joined' then
    redis.call('HSET', in_room, connection, value)
    redis.call('HSET', index, 'r\n' .. room .. '\n' .. connection, current)
  elseif change == 'left' then
    remove(in_room, connection)
    redis.call('HDEL', index, 'r\n' .. room .. '\n' .. connection)
  end
end
return leaves
";

/// ARGV: prefix, instance, generation, then entries of the instance's hash. Removes those named last before
/// the generation, with what they stand for, and returns how many of that there were. A newer generation has
/// begun: none, it may still name them.
const REMOVE: &str = r"
local current = redis.call('HGET', index, '')
if current and current > ARGV[3] then return 0 end
local removed = 0
for at = 4, #ARGV do
  local named = redis.call('HGET', index, ARGV[at])
  if named and named < ARGV[3] then
    local gone = take(ARGV[at])
    redis.call('HDEL', index, ARGV[at])
    if gone then removed = removed + 1 end
  end
end
return removed
";

/// ARGV: prefix, instance. Forgets an instance that has nothing any more.
const FORGET: &str = r"
if redis.call('HLEN', index) <= redis.call('HEXISTS', index, '') then
  redis.call('DEL', index)
  redis.call('SREM', prefix .. ':instances', me)
end
return redis.status_reply('OK')
";

/// ARGV: prefix, instance, how long late writes are dropped, entries at once. Removes everything of an instance and
/// returns 1; of one that has more entries nothing, and 0.
const GOODBYE: &str = r"
redis.call('SET', prefix .. ':gone:' .. me, '1', 'EX', ARGV[3])
if redis.call('HLEN', index) > tonumber(ARGV[4]) then return 0 end
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

/// ARGV: prefix, a fresh number. Returns the number that is kept, and the server's own, new at each of its starts.
const MARKER: &str = r"
redis.call('SET', ARGV[1] .. ':marker', ARGV[2], 'NX')
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
return {redis.call('GET', ARGV[1] .. ':marker'), run or ''}
";

pub(super) struct Scripts {
    prefix: String,
    write: Script,
    remove: Script,
    forget: Script,
    goodbye: Script,
    marker: Script,
}

/// A call with its arguments.
pub(super) struct ScriptCall<'a>(ScriptInvocation<'a>);

impl Scripts {
    pub(super) fn new(prefix: &str) -> Self {
        let with_common = |code| Script::new(&format!("{COMMON}{code}"));
        Self {
            prefix: prefix.into(),
            write: with_common(WRITE),
            remove: with_common(REMOVE),
            forget: with_common(FORGET),
            goodbye: with_common(GOODBYE),
            marker: Script::new(MARKER),
        }
    }

    pub(super) fn write(&self, instance: &InstanceId, generation: Option<Generation>) -> ScriptCall<'_> {
        self.call(&self.write, [instance.as_str(), generation.map(|it| it.0).as_deref().unwrap_or("")])
    }

    pub(super) fn remove(
        &self,
        instance: &InstanceId,
        below: &Generation,
        entries: &[String],
    ) -> ScriptCall<'_> {
        let mut call = self.call(&self.remove, [instance.as_str(), &below.0]);
        call.0.arg(entries);
        call
    }

    pub(super) fn forget(&self, instance: &InstanceId) -> ScriptCall<'_> {
        self.call(&self.forget, [instance.as_str()])
    }

    pub(super) fn goodbye(&self, instance: &InstanceId) -> ScriptCall<'_> {
        let (seconds, most) = (GONE_S.to_string(), GOODBYE_MAX.to_string());
        self.call(&self.goodbye, [instance.as_str(), &seconds, &most])
    }

    pub(super) fn marker(&self, fresh: u64) -> ScriptCall<'_> {
        self.call(&self.marker, [fresh.to_string().as_str()])
    }

    fn call<'a, const N: usize>(&self, script: &'a Script, arguments: [&str; N]) -> ScriptCall<'a> {
        let mut call = script.prepare_invoke();
        call.arg(&self.prefix).arg(arguments.as_slice());
        ScriptCall(call)
    }
}

impl ScriptCall<'_> {
    pub(super) fn change(&mut self, change: &Change) {
        let nobody = "";
        let (what, connection, user, room, extra) = match change {
            Change::Connected { connection, user, since_ms } => {
                ("connected", connection.as_str(), user.as_str(), nobody, *since_ms)
            }
            Change::Disconnected { connection, user, goodbye } => {
                ("disconnected", connection.as_str(), user.as_str(), nobody, i64::from(*goodbye))
            }
            Change::Joined { connection, user, room, since_ms } => {
                ("joined", connection.as_str(), user.as_str(), room.as_str(), *since_ms)
            }
            Change::Left { connection, room } => ("left", connection.as_str(), nobody, room.as_str(), 0),
            Change::InterestAdded(room) => ("interest", nobody, nobody, room.as_str(), 0),
            Change::InterestRemoved(room) => ("no interest", nobody, nobody, room.as_str(), 0),
        };
        self.0.arg(what).arg(connection).arg(user).arg(room).arg(extra);
    }

    pub(super) async fn invoke<T: FromRedisValue>(
        &self,
        redis: &mut MultiplexedConnection,
    ) -> RedisResult<T> {
        self.0.invoke_async(redis).await
    }
}
