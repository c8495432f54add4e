-- Delayed messages. A row goes in the transaction that publishes it; one that was cancelled stays for as long as keys are
-- remembered, so that a late copy of the call that scheduled it does not bring its message back.

create table scheduled (
  id integer primary key,
  due_ms integer not null,                             -- milliseconds since 1970
  part integer not null,                               -- lane of the room
  room text not null,
  sender text not null,
  key text not null,
  hash blob not null,                                  -- SHA-256 of data
  data blob not null,                                  -- JSON as received; empty when cancelled
  cancelled_ms integer,                                -- when it was cancelled; null: it waits
  unique (room, sender, key)
) strict;
create index scheduled_due on scheduled (part, due_ms) where cancelled_ms is null;
create index scheduled_cancelled on scheduled (cancelled_ms) where cancelled_ms is not null;
