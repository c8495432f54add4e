-- What reads pages and what forgets old messages.

-- Milliseconds since 1970, the one way times leave the store.
create function ms_v1(p_at timestamptz) returns bigint language sql stable as
  $$ select floor(extract(epoch from p_at) * 1000)::bigint $$;

-- Pages of many rooms in one round trip. `stable`: the whole function sees the snapshot of the calling statement, so
-- no message is above its page's head. Per range: its messages, oldest first (newest first where p_before is not
-- null), then one row with seq null that closes the page. p_bytes bounds the sum of the messages' costs; the first range
-- gets at least one message.
create function read_v1(p_room text[], p_after bigint[], p_before bigint[], p_limit int[], p_bytes bigint)
returns table (ord int, head bigint, oldest bigint, deferred boolean,
               seq bigint, sender text, key text, at_ms bigint, data bytea)
language plpgsql stable
set plan_cache_mode = force_generic_plan
-- A bitmap scan would read a whole range before the limit counts; an index scan stops where the
-- reply is full.
set enable_seqscan = off set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
  v_left bigint := p_bytes;
  v_taken int;
  v_cost bigint;
  m record;
begin
  for i in 1 .. cardinality(p_room) loop
    ord := i;
    head := coalesce((select r.head from rooms r where r.room = p_room[i]), 0);
    oldest := coalesce((select min(x.seq) from messages x where x.room = p_room[i]), head + 1);
    deferred := false;
    v_taken := 0;
    for m in
      (select x.seq, x.sender, x.key, x.at, x.data from messages x
       where p_before[i] is null and x.room = p_room[i] and x.seq > p_after[i]
       order by x.seq limit p_limit[i])
      union all
      (select x.seq, x.sender, x.key, x.at, x.data from messages x
       where p_before[i] is not null and x.room = p_room[i] and x.seq < p_before[i]
       order by x.seq desc limit p_limit[i])
    loop
      v_cost := octet_length(m.data) + octet_length(m.sender) + octet_length(m.key) + 32;
      -- The first message of the first range always fits, or a reader of large messages would never
      -- get on.
      if v_cost > v_left and (i > 1 or v_taken > 0) then
        -- Nothing smaller may follow: a page must not have a hole.
        v_left := 0;
        deferred := v_taken = 0;
        exit;
      end if;
      v_left := v_left - v_cost;
      v_taken := v_taken + 1;
      seq := m.seq; sender := m.sender; key := m.key; at_ms := ms_v1(m.at); data := m.data;
      return next;
    end loop;
    seq := null; sender := null; key := null; at_ms := null; data := null;
    return next;
  end loop;
end $$;

-- One step of retention: at most p_rooms rooms after p_from, at most p_max messages, each room's oldest first and
-- without a gap, so that a room always keeps oldest…head. p_age and p_count may be null. One trimmer at a time.
-- Answers where to go on ('' = from the start) and how many went.
create function trim_v1(p_from text, p_rooms int, p_age interval, p_count bigint, p_dedupe interval, p_max int,
                        out next_from text, out removed bigint)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_bitmapscan = off
as $$
declare
  c_page constant int := 100;
  v_young timestamptz := clock_timestamp() - p_dedupe;  -- stored since then: stays, whatever the policy says
  v_old timestamptz := clock_timestamp() - p_age;
  v_seen int := 0;
  v_want int;
  v_gone int;
  r record;
begin
  next_from := p_from;
  removed := 0;
  -- Tried, not waited for: whoever has it does the work.
  if not pg_try_advisory_xact_lock(7310595919137407352) then return; end if;
  for r in select x.room, x.head from rooms x where x.room > p_from collate "C" order by x.room limit p_rooms loop
    v_seen := v_seen + 1;
    loop
      v_want := least(c_page, p_max - removed);
      if v_want <= 0 then return; end if;  -- not done with this room: the next step begins with it
      -- Look at one row before reading a page: most rooms have nothing to give.
      with first as (
        select x.seq, x.at from messages x where x.room = r.room order by x.seq limit 1),
      page as (
        select x.seq, x.at from messages x
        where x.room = r.room and exists (
          select from first f where f.at < v_young and (f.at < v_old or f.seq <= r.head - p_count))
        order by x.seq limit v_want),
      stop as (
        select min(p.seq) as seq from page p
        where not (p.at < v_young and (coalesce(p.at < v_old, false) or coalesce(p.seq <= r.head - p_count, false))))
      delete from messages m
      where m.room = r.room
        and m.seq = any (array(select p.seq from page p, stop s where s.seq is null or p.seq < s.seq));
      get diagnostics v_gone = row_count;
      removed := removed + v_gone;
      exit when v_gone < v_want;
    end loop;
    next_from := r.room;
  end loop;
  if v_seen < p_rooms then next_from := ''; end if;
end $$;
