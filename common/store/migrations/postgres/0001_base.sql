-- The first tables of the store and the statement that publishes.
--
-- Migrations only ever expand: during a roll two versions of logic work on one database, so a migration may
-- add (tables, columns with a default, functions under a new name) but not change or remove what the version
-- before it uses. What nobody uses any more is removed by a migration one release later (contract).
-- A function's version is part of its name, and it lives until no instance calls it.

create table meta (
  one boolean primary key default true check (one),   -- one row
  epoch uuid not null                                  -- one part of the epoch; changed by `sluice store new-epoch`
);
insert into meta (epoch) values (gen_random_uuid());


create table rooms (
  room text collate "C" primary key,
  head bigint not null default 0                       -- rows are never deleted
-- Half-full pages, so that the update of a head stays on its page (HOT) and no index is touched.
-- Vacuum by count, not by share: heads change thousands of times a second on a table that hardly
-- grows.
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

create table messages (
  room text collate "C" not null, seq bigint not null,
  sender text collate "C" not null, key text collate "C" not null, hash bytea not null,
  at timestamptz not null, data bytea not null,
  primary key (room, seq),
  -- The index that finds duplicates; as a constraint it also stops a bug from storing twice.
  constraint messages_once unique (room, sender, key)  -- can never fire; if it does it is a bug: alarm
);

create table outbox (
  -- Rows live for a second: vacuum must follow at once, or the scan of stale rows grows with what
  -- was deleted.
  id bigint generated always as identity primary key, at timestamptz not null,
  rooms text[] not null, firsts bigint[] not null, lasts bigint[] not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

create table scheduled (
  id uuid primary key default gen_random_uuid(), due timestamptz not null, part smallint not null,   -- part = lane of the room
  room text collate "C" not null, sender text collate "C" not null, key text collate "C" not null,
  hash bytea not null, data bytea not null, unique (room, sender, key)
);
create index scheduled_due on scheduled (part, due);

-- outcome: 0 stored now, 1 was stored before, 2 key used for other data. at: time of storing, null unless outcome = 0.
-- note: id of the outbox row of this call, null if nothing was stored. Past p_not_after nothing is stored (SLU01).
create function publish_v1(p_not_after timestamptz, p_room text[], p_sender text[], p_key text[], p_hash bytea[], p_data bytea[])
returns table (ord int, seq bigint, outcome int, at timestamptz, note bigint)
language plpgsql volatile
-- The planner must not change its mind while the table is young (A9): arrays of any length, always
-- by index.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_rooms text[];
  v_heads bigint[];
  v_at timestamptz;
begin
  -- 1. Rooms that do not exist yet, sorted. Nothing else is locked while this may wait for a rival's insert.
  -- A statement of its own (A2): rooms made in the statement that locks would have no head to lock
  -- yet. Sorted, as two groups that create the same rooms would else deadlock. `on conflict` for
  -- the rival that committed after our snapshot.
  insert into rooms (room)
  select distinct r collate "C" from unnest(p_room) r
  where not exists (select 1 from rooms x where x.room = r)
  order by 1
  on conflict do nothing;

  -- 2. The heads, locked in one global order; the values are those after the wait.
  -- Locking rows in one order for all callers makes deadlocks impossible (A2). `no key update`:
  -- weaker than `update`, and enough, as nobody changes the key. After a wait PostgreSQL reads the
  -- row again, so the heads are current although the snapshot is not.
  select array_agg(l.room), array_agg(l.head) into v_rooms, v_heads
  from (select room, head from rooms where room = any (p_room) order by room for no key update) l;
  -- After the wait and not `now()`, which is when the transaction began: times of a room must not
  -- run backwards, and a statement frozen in between must see that it is late (A11).
  v_at := clock_timestamp();
  if v_at > p_not_after then raise exception 'too late to store' using errcode = 'SLU01'; end if;

  -- 3. A new statement, so a new snapshot: nobody can add to these rooms before we end.
  -- Under READ COMMITTED each statement has its own snapshot. One taken before the locks would see
  -- the old messages beside the new head (A1).
  return query
  with item as (
    select t.*, m.seq as old_seq, m.hash as old_hash, array_position(v_rooms, t.room) as slot
    from unnest(p_room, p_sender, p_key, p_hash, p_data) with ordinality as t(room, sender, key, hash, data, ord)
    -- Lateral with a limit: one probe of the index per item, whatever the planner thinks of the
    -- table.
    left join lateral (select x.seq, x.hash from messages x
                       where x.room = t.room and x.sender = t.sender and x.key = t.key limit 1) m on true),
  -- The same key twice in one call: the first is stored, later ones are its duplicates, or
  -- conflicts.
  marked as (
    select i.*, row_number() over same_key as copy, first_value(i.hash) over same_key as first_hash
    from item i window same_key as (partition by i.slot, i.sender, i.key order by i.ord)),
  counted as (
    select k.*, sum((k.copy = 1 and k.old_seq is null)::int) over (partition by k.slot order by k.ord) as n
    from marked k),
  -- Materialized: read three times below, and its positions must be the same each time.
  placed as materialized (
    select c.*, coalesce(c.old_seq, v_heads[c.slot]
             + first_value(c.n) over (partition by c.slot, c.sender, c.key order by c.ord)) as new_seq
    from counted c),
  ins as (
    insert into messages (room, seq, sender, key, hash, at, data)
    select p.room, p.new_seq, p.sender, p.key, p.hash, v_at, p.data
    from placed p where p.copy = 1 and p.old_seq is null
    order by p.slot, p.ord),
  grown as materialized (
    select p.slot, v_rooms[p.slot] as room, v_heads[p.slot] as base, max(p.new_seq) as head
    from placed p where p.old_seq is null group by p.slot),
  bump as (
    update rooms r set head = g.head from grown g where r.room = g.room),
  noted as (
    insert into outbox (at, rooms, firsts, lasts)
    select v_at, array_agg(g.room), array_agg(g.base + 1), array_agg(g.head) from grown g having count(*) > 0
    returning id)
  select p.ord::int, p.new_seq,
         -- A conflict is told before a duplicate: another message under a used key.
         case when p.hash <> coalesce(p.old_hash, p.first_hash) then 2
              when p.old_seq is not null or p.copy > 1 then 1 else 0 end,
         case when p.copy = 1 and p.old_seq is null then v_at end,
         (select id from noted)
  from placed p order by p.ord;
end $$;

-- Takes what is due in these parts and publishes it, in one transaction: a cancel that deletes the row first wins, one that comes later finds nothing.
create function fire_due_v1(p_parts smallint[], p_max int)
returns table (room text, seq bigint, outcome int, at timestamptz, note bigint)
language plpgsql volatile as $$
#variable_conflict use_column
declare r text[]; s text[]; k text[]; h bytea[]; d bytea[];
begin
  with due as (
    delete from scheduled where id in (
      select id from scheduled where part = any (p_parts) and due <= clock_timestamp()
      -- Two tasks that fire the same part take different rows instead of waiting.
      order by due, id limit p_max for update skip locked)
    returning scheduled.*)
  select array_agg(x.room), array_agg(x.sender), array_agg(x.key), array_agg(x.hash), array_agg(x.data)
  into r, s, k, h, d from (select * from due order by due, id) x;
  if r is not null then
    return query select r[p.ord], p.seq, p.outcome, p.at, p.note from publish_v1('infinity', r, s, k, h, d) p;
  end if;
end $$;
