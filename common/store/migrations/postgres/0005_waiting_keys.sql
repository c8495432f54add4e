-- What a waiting key is to others: how many a user may have, a publish at once under one of them, and firing beside
-- rooms that somebody holds locked.
--
-- A lane's lock (an advisory one, of the transaction) stands between keeping a message and publishing at once: keeping
-- takes it alone, publishes share it. Neither could else see what the other has not committed yet, and a key would end as
-- a message and as one that waits. The order of locks stays: the lane, rows of scheduled by name, rooms by name. Firing
-- needs no lane: it deletes the row it publishes. Logics of the version before take no lock of a lane: until they are
-- gone a key can still be both, and the one that waits is then dropped when it is due, as it was before.

create index scheduled_waiting on scheduled (sender) where cancelled is null;

-- As delay_v1, but that a user may have no more than p_waiting_max messages that wait (0: any number): outcome 5, one more
-- would be too many. Other lanes count at the same time, so what they keep in that moment may come on top: a batch each.
create function delay_v2(p_not_after timestamptz, p_part smallint, p_waiting_max int, p_room text[], p_sender text[],
                         p_key text[], p_hash bytea[], p_data bytea[], p_due bigint[], p_delay bigint[])
returns table (ord int, outcome int, due bigint, seq bigint)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
  i record;
  v_due timestamptz;
  v_hash bytea;
  v_cancelled timestamptz;
  v_seq bigint;
  v_senders text[];   -- who schedules here
  v_left int[];       -- how many more of theirs may wait
  v_slot int;
  v_kept boolean;
begin
  perform pg_advisory_xact_lock(73105959, p_part);
  -- Once a sender, and no further than the limit: the index is walked, not the table.
  if p_waiting_max > 0 then
    select array_agg(x.sender), array_agg(x.free) into v_senders, v_left from (
      select t.sender, p_waiting_max - (select count(*) from
        (select from scheduled s where s.sender = t.sender and s.cancelled is null limit p_waiting_max) w)::int as free
      from (select distinct u.sender from unnest(p_sender, p_due, p_delay) u(sender, due, delay)
            where u.due is not null or u.delay is not null) t) x;
  end if;
  -- One global order of keys, or two calls would wait for each other; of one key in the order they came.
  for i in
    select t.* from unnest(p_room, p_sender, p_key, p_hash, p_data, p_due, p_delay)
      with ordinality as t(room, sender, key, hash, data, due, delay, ord)
    order by t.room collate "C", t.sender collate "C", t.key collate "C", t.ord
  loop
    ord := i.ord; outcome := null; due := null; seq := null;
    v_slot := array_position(v_senders, i.sender);
    if i.due is null and i.delay is null then
      -- Waits for whoever publishes the row; if that ends well, the row is gone and this finds nothing (D5).
      update scheduled s set due = 'infinity', cancelled = clock_timestamp(), data = ''
      where s.room = i.room and s.sender = i.sender and s.key = i.key and s.cancelled is null;
      if found then
        outcome := 3;
        if v_slot is not null then v_left[v_slot] := v_left[v_slot] + 1; end if;
      else
        perform from scheduled s where s.room = i.room and s.sender = i.sender and s.key = i.key;
        outcome := case when found then 3 else 4 end;
      end if;
    end if;
    while outcome is null loop
      v_due := coalesce(timestamptz 'epoch' + i.due * interval '1 millisecond',
                        clock_timestamp() + i.delay * interval '1 millisecond');
      v_kept := false;
      if v_slot is null or v_left[v_slot] > 0 then
        insert into scheduled (due, part, room, sender, key, hash, data)
        values (v_due, p_part, i.room, i.sender, i.key, i.hash, i.data) on conflict do nothing;
        v_kept := found;
      end if;
      if v_kept then
        -- A new statement, so a new snapshot: whoever had a row of this key has committed what it published (A1, D4).
        select m.seq, m.hash into v_seq, v_hash from messages m
        where m.room = i.room and m.sender = i.sender and m.key = i.key;
        if not found then
          outcome := 0; due := ms_v1(v_due);
          if v_slot is not null then v_left[v_slot] := v_left[v_slot] - 1; end if;
        else
          delete from scheduled s where s.room = i.room and s.sender = i.sender and s.key = i.key;
          outcome := case when v_hash = i.hash then 1 else 2 end; seq := v_seq;
        end if;
      else
        select s.due, s.hash, s.cancelled into v_due, v_hash, v_cancelled from scheduled s
        where s.room = i.room and s.sender = i.sender and s.key = i.key;
        -- Not found: it was published in between, and the next look finds the message.
        if found then
          outcome := case when v_hash <> i.hash then 2 when v_cancelled is not null then 3 else 0 end;
          due := case when outcome = 0 then ms_v1(v_due) end;
        elsif v_left[v_slot] <= 0 then
          -- Nothing was tried. In this order: what is fired leaves the schedule and is a message in one step.
          select m.seq, m.hash into v_seq, v_hash from messages m
          where m.room = i.room and m.sender = i.sender and m.key = i.key;
          if found then
            outcome := case when v_hash = i.hash then 1 else 2 end; seq := v_seq;
          else
            outcome := 5;
          end if;
        end if;
      end if;
    end loop;
    return next;
  end loop;
  -- After all waits (A11).
  if clock_timestamp() > p_not_after then raise exception 'too late to store' using errcode = 'SLU01'; end if;
end $$;

-- As publish_v1, but for keys that wait: outcome 3, the same data waits under this key, until due; one that waits with
-- other data, or was cancelled, is a conflict. All items are of one lane, p_part.
create function publish_v2(p_part smallint, p_not_after timestamptz, p_room text[], p_sender text[], p_key text[], p_hash bytea[], p_data bytea[])
returns table (ord int, seq bigint, outcome int, at timestamptz, note bigint, due bigint)
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
  -- 0. Whoever keeps a message of this lane has committed, or waits until we have.
  perform pg_advisory_xact_lock_shared(73105959, p_part);

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
    select t.*, m.seq as old_seq, m.hash as old_hash, s.hash as kept_hash, s.due, s.cancelled,
           array_position(v_rooms, t.room) as slot
    from unnest(p_room, p_sender, p_key, p_hash, p_data) with ordinality as t(room, sender, key, hash, data, ord)
    -- Lateral with a limit: one probe of the index per item, whatever the planner thinks of the
    -- table.
    left join lateral (select x.seq, x.hash from messages x
                       where x.room = t.room and x.sender = t.sender and x.key = t.key limit 1) m on true
    -- A key that waits, or was cancelled, is somebody's: only where no message has it.
    left join lateral (select x.hash, x.due, x.cancelled from scheduled x
                       where x.room = t.room and x.sender = t.sender and x.key = t.key limit 1) s on m.seq is null),
  -- The same key twice in one call: the first is stored, later ones are its duplicates, or
  -- conflicts.
  marked as (
    select i.*, i.old_seq is null and i.kept_hash is null as free,
           row_number() over same_key as copy, first_value(i.hash) over same_key as first_hash
    from item i window same_key as (partition by i.slot, i.sender, i.key order by i.ord)),
  counted as (
    select k.*, sum((k.copy = 1 and k.free)::int) over (partition by k.slot order by k.ord) as n
    from marked k),
  -- Materialized: read three times below, and its positions must be the same each time.
  placed as materialized (
    select c.*, coalesce(c.old_seq, v_heads[c.slot]
             + first_value(c.n) over (partition by c.slot, c.sender, c.key order by c.ord)) as new_seq
    from counted c),
  ins as (
    insert into messages (room, seq, sender, key, hash, at, data)
    select p.room, p.new_seq, p.sender, p.key, p.hash, v_at, p.data
    from placed p where p.copy = 1 and p.free
    order by p.slot, p.ord),
  grown as materialized (
    select p.slot, v_rooms[p.slot] as room, v_heads[p.slot] as base, max(p.new_seq) as head
    from placed p where p.free group by p.slot),
  bump as (
    update rooms r set head = g.head from grown g where r.room = g.room),
  noted as (
    insert into outbox (at, rooms, firsts, lasts)
    select v_at, array_agg(g.room), array_agg(g.base + 1), array_agg(g.head) from grown g having count(*) > 0
    returning id)
  select p.ord::int, p.new_seq,
         -- A conflict is told before a duplicate: another message under a used key.
         case when p.hash <> coalesce(p.old_hash, p.kept_hash, p.first_hash) or p.cancelled is not null then 2
              when p.kept_hash is not null then 3
              when p.old_seq is not null or p.copy > 1 then 1 else 0 end,
         case when p.copy = 1 and p.free then v_at end,
         (select id from noted),
         case when p.cancelled is null then ms_v1(p.due) end
  from placed p order by p.ord;
end $$;

-- Waits for a room a tenth of a second; false: somebody keeps it.
create function lock_room_v1(p_room text) returns boolean language plpgsql volatile
set lock_timeout = '100ms'
as $$
begin
  perform from rooms where room = p_room for no key update;
  return true;
exception when lock_not_available then
  return false;
end $$;

-- As fire_due_v1 for one lane, but that it waits for no room that somebody has locked: what is due in one stays on the
-- schedule, and the room is answered, outcome 4. Rooms of p_without are passed over. For one room, p_wait, a moment is
-- waited: a room that is always in use would else never be free when it is looked at.
create function fire_due_v2(p_part smallint, p_max int, p_without text[], p_wait text)
returns table (room text, seq bigint, outcome int, at timestamptz, note bigint)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_ids uuid[]; v_rooms text[]; v_free text[];
  r text[]; s text[]; k text[]; h bytea[]; d bytea[];
  v_now timestamptz := clock_timestamp();   -- a function that changes its answer could not use an index
begin
  with picked as materialized (
    select x.id, x.room from scheduled x
    where x.part = p_part and x.due <= v_now and x.room <> all (p_without)
    -- Two tasks that fire the same part take different rows instead of waiting.
    order by x.due, x.id limit p_max for update skip locked)
  select array_agg(p.id), array_agg(distinct p.room) into v_ids, v_rooms from picked p;
  if v_ids is null then return; end if;
  -- Before a room is locked, as in publish_v1: nothing may wait for a rival's insert with a room in hand (A2).
  insert into rooms (room)
  select u.room collate "C" from unnest(v_rooms) u(room)
  where not exists (select 1 from rooms x where x.room = u.room)
  order by 1
  on conflict do nothing;
  -- The only wait for a room, with none in hand; the others are taken as they are.
  if p_wait = any (v_rooms) then perform lock_room_v1(p_wait); end if;
  select coalesce(array_agg(l.room), '{}') into v_free
  from (select x.room from rooms x where x.room = any (v_rooms) order by x.room for no key update skip locked) l;
  return query select u.room, null::bigint, 4, null::timestamptz, null::bigint
               from unnest(v_rooms) u(room) where u.room <> all (v_free);
  with fired as (
    delete from scheduled x where x.id = any (v_ids) and x.room = any (v_free) returning x.*)
  select array_agg(x.room), array_agg(x.sender), array_agg(x.key), array_agg(x.hash), array_agg(x.data)
  into r, s, k, h, d from (select * from fired order by due, id) x;
  if r is not null then
    return query select r[p.ord], p.seq, p.outcome, p.at, p.note from publish_v1('infinity', r, s, k, h, d) p;
  end if;
end $$;
