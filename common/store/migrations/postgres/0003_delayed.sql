-- Delayed messages: what stores them, what cancels them, what says when the next one is due, and what publishes those
-- that are. A key that was cancelled stays for as long as keys are remembered: a late copy of the call that scheduled it
-- must not bring its message back.

alter table scheduled add column cancelled timestamptz;   -- when it was: then due is infinity and data is empty
create index scheduled_cancelled on scheduled (cancelled) where cancelled is not null;

-- Schedules and cancels, in order. All items are of one part. p_due: milliseconds since 1970; p_delay: milliseconds from
-- now, where p_due is null; an item with neither is a cancel. Past p_not_after nothing is stored (SLU01).
-- outcome: 0 waits, since now or before (due: until when), 1 published already (seq), 2 key used for other data,
-- 3 cancelled, now or before, 4 nothing waits under this key.
create function delay_v1(p_not_after timestamptz, p_part smallint, p_room text[], p_sender text[], p_key text[],
                         p_hash bytea[], p_data bytea[], p_due bigint[], p_delay bigint[])
returns table (ord int, outcome int, due bigint, seq bigint)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  i record;
  v_due timestamptz;
  v_hash bytea;
  v_cancelled timestamptz;
  v_seq bigint;
begin
  -- One global order of keys, or two calls would wait for each other; of one key in the order they came.
  for i in
    select t.* from unnest(p_room, p_sender, p_key, p_hash, p_data, p_due, p_delay)
      with ordinality as t(room, sender, key, hash, data, due, delay, ord)
    order by t.room collate "C", t.sender collate "C", t.key collate "C", t.ord
  loop
    ord := i.ord; outcome := null; due := null; seq := null;
    if i.due is null and i.delay is null then
      -- Waits for whoever publishes the row; if that ends well, the row is gone and this finds nothing (D5).
      update scheduled s set due = 'infinity', cancelled = clock_timestamp(), data = ''
      where s.room = i.room and s.sender = i.sender and s.key = i.key and s.cancelled is null;
      if not found then
        perform from scheduled s where s.room = i.room and s.sender = i.sender and s.key = i.key;
      end if;
      outcome := case when found then 3 else 4 end;
    end if;
    while outcome is null loop
      v_due := coalesce(timestamptz 'epoch' + i.due * interval '1 millisecond',
                        clock_timestamp() + i.delay * interval '1 millisecond');
      insert into scheduled (due, part, room, sender, key, hash, data)
      values (v_due, p_part, i.room, i.sender, i.key, i.hash, i.data) on conflict do nothing;
      if found then
        -- A new statement, so a new snapshot: whoever had a row of this key has committed what it published (A1, D4).
        select m.seq, m.hash into v_seq, v_hash from messages m
        where m.room = i.room and m.sender = i.sender and m.key = i.key;
        if not found then
          outcome := 0; due := ms_v1(v_due);
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
        end if;
      end if;
    end loop;
    return next;
  end loop;
  -- After all waits (A11).
  if clock_timestamp() > p_not_after then raise exception 'too late to store' using errcode = 'SLU01'; end if;
end $$;

-- Milliseconds until the next message of these parts is due, negative if it was already; null: none waits.
create function next_due_v1(p_parts smallint[]) returns bigint language sql volatile
set enable_seqscan = off
as $$
  select ceil(extract(epoch from (min(x.due) - clock_timestamp())) * 1000)::bigint
  from unnest(p_parts) p(part) cross join lateral
    (select s.due from scheduled s where s.part = p.part and s.due < 'infinity' order by s.due limit 1) x
$$;

-- As in the first migration, which nobody has called, but for its plan: it looks at no row that is not due.
create or replace function fire_due_v1(p_parts smallint[], p_max int)
returns table (room text, seq bigint, outcome int, at timestamptz, note bigint)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  r text[]; s text[]; k text[]; h bytea[]; d bytea[];
  v_now timestamptz := clock_timestamp();   -- a function that changes its answer could not use an index
begin
  with picked as materialized (
    select id from scheduled where part = any (p_parts) and due <= v_now
    -- Two tasks that fire the same part take different rows instead of waiting.
    order by due, id limit p_max for update skip locked),
  fired as (
    delete from scheduled x using picked p where x.id = p.id returning x.*)
  select array_agg(x.room), array_agg(x.sender), array_agg(x.key), array_agg(x.hash), array_agg(x.data)
  into r, s, k, h, d from (select * from fired order by due, id) x;
  if r is not null then
    return query select r[p.ord], p.seq, p.outcome, p.at, p.note from publish_v1('infinity', r, s, k, h, d) p;
  end if;
end $$;
