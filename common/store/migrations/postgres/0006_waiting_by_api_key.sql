-- By which key of the API a message that waits came: how many such a key may have, whoever sends them. Logics of the
-- version before write none, so what they take from the API until they are gone is not counted.

alter table scheduled add column api_key text;   -- its name; null: a client scheduled it
create index scheduled_api_key on scheduled (api_key) where cancelled is null and api_key is not null;

-- As delay_v2, but that with p_api_key the limit is of what came by that key, not of each sender.
create function delay_v3(p_not_after timestamptz, p_part smallint, p_waiting_max int, p_api_key text, p_room text[],
                         p_sender text[], p_key text[], p_hash bytea[], p_data bytea[], p_due bigint[], p_delay bigint[])
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
  v_senders text[];   -- who schedules here; with p_api_key that alone
  v_left int[];       -- how many more of theirs may wait
  v_slot int;
  v_kept boolean;
  v_by text;
begin
  -- No further than the limit: an index is walked, not the table. What a key has may be many, so whoever publishes in the
  -- lane does not wait for that.
  if p_waiting_max > 0 and p_api_key is not null and exists
    (select from unnest(p_due, p_delay) u(due, delay) where u.due is not null or u.delay is not null) then
    select array[p_api_key], array[p_waiting_max - count(*)::int] into v_senders, v_left from
      (select from scheduled s where s.api_key = p_api_key and s.cancelled is null limit p_waiting_max) w;
  end if;
  perform pg_advisory_xact_lock(73105959, p_part);
  -- Once a sender.
  if p_waiting_max > 0 and p_api_key is null then
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
    v_slot := array_position(v_senders, coalesce(p_api_key, i.sender));
    if i.due is null and i.delay is null then
      -- Waits for whoever publishes the row; if that ends well, the row is gone and this finds nothing (D5).
      update scheduled s set due = 'infinity', cancelled = clock_timestamp(), data = ''
      where s.room = i.room and s.sender = i.sender and s.key = i.key and s.cancelled is null
      returning s.api_key into v_by;
      if found then
        outcome := 3;
        -- Whoever takes back what came by another way has no more places of its own for that.
        if v_slot is not null and (p_api_key is null or v_by = p_api_key) then
          v_left[v_slot] := v_left[v_slot] + 1;
        end if;
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
        insert into scheduled (due, part, room, sender, key, hash, data, api_key)
        values (v_due, p_part, i.room, i.sender, i.key, i.hash, i.data, p_api_key) on conflict do nothing;
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
