-- The tables of a store in one file.
--
-- They are also an interface for readers outside (a judge of a drill, a report): such a reader opens the file read-only
-- (`mode=ro`, not `immutable`), while the store runs, after it stopped or after it was killed, and finds below what
-- each column means. Migrations only ever expand, so what is said here stays true. Everything a store holds, in order:
--
--   select room, seq, sender, key, at_ms, cast(data as text) from messages order by room, seq

pragma application_id = 0x534c5543;                    -- "SLUC": what tells a store from somebody else's file

create table meta (
  one integer primary key check (one = 1),             -- one row
  epoch text not null,                                 -- one part of the epoch; changed by `sluice store new-epoch`
  identity text not null                               -- the other part; made with the file, never changed
) strict;
insert into meta (one, epoch, identity) values (1, lower(hex(randomblob(16))), lower(hex(randomblob(16))));

create table rooms (
  room text primary key,
  head integer not null,                               -- last seq given out; rows are never deleted
  at_ms integer not null                               -- time of that message: the next one's is not before it
) strict, without rowid;

create table messages (
  id integer primary key,                              -- order of storing over all rooms
  room text not null,
  seq integer not null,                                -- position in the room: oldest kept … head, without a hole
  sender text not null,
  key text not null,
  at_ms integer not null,                              -- milliseconds since 1970, never decreasing in a room
  hash blob not null,                                  -- SHA-256 of data
  data blob not null,                                  -- JSON as received
  unique (room, seq),
  unique (room, sender, key)                           -- neither can ever fire; if one does it is a bug: alarm
) strict;

create table outbox (
  id integer primary key autoincrement,                -- never used again: a late `noted` must not hit another row
  at_ms integer not null,
  runs text not null                                   -- [[room, first, last], …]: what the group stored
) strict;
