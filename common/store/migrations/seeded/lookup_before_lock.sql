-- Wrong on purpose, only for the drill's own proof: publish_v2 whose lookup comes before its locks. Two logics that
-- store the same batch at once both find nothing; the second one answers with positions that hold nothing.

create or replace function publish_v2(p_part smallint, p_not_after timestamptz, p_room text[], p_sender text[], p_key text[], p_hash bytea[], p_data bytea[])
returns table (ord int, seq bigint, outcome int, at timestamptz, note bigint, due bigint)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_rooms text[];
  v_heads bigint[];
  v_at timestamptz;
  v_old_seqs bigint[];
  v_old_hashes bytea[];
begin
  -- 1. Rooms that do not exist yet, sorted. Nothing else is locked while this may wait for a rival's insert.
  insert into rooms (room)
  select distinct r collate "C" from unnest(p_room) r
  where not exists (select 1 from rooms x where x.room = r)
  order by 1
  on conflict do nothing;

  -- The bug: what is found here is out of date when the locks are held.
  select array_agg(m.seq order by t.ord), array_agg(m.hash order by t.ord) into v_old_seqs, v_old_hashes
  from unnest(p_room, p_sender, p_key) with ordinality as t(room, sender, key, ord)
  left join lateral (select x.seq, x.hash from messages x
                     where x.room = t.room and x.sender = t.sender and x.key = t.key limit 1) m on true;
  perform pg_sleep(0.2);  -- what a busy server does by itself

  -- 2. The heads, locked in one global order; the values are those after the wait.
  select array_agg(l.room), array_agg(l.head) into v_rooms, v_heads
  from (select room, head from rooms where room = any (p_room) order by room for no key update) l;
  v_at := clock_timestamp();
  if v_at > p_not_after then raise exception 'too late to store' using errcode = 'SLU01'; end if;

  -- 3. A new statement, so a new snapshot: nobody can add to these rooms before we end.
  return query
  with item as (
    select t.*, v_old_seqs[t.ord] as old_seq, v_old_hashes[t.ord] as old_hash, array_position(v_rooms, t.room) as slot
    from unnest(p_room, p_sender, p_key, p_hash, p_data) with ordinality as t(room, sender, key, hash, data, ord)),
  marked as (
    select i.*, row_number() over same_key as copy, first_value(i.hash) over same_key as first_hash
    from item i window same_key as (partition by i.slot, i.sender, i.key order by i.ord)),
  counted as (
    select k.*, sum((k.copy = 1 and k.old_seq is null)::int) over (partition by k.slot order by k.ord) as n
    from marked k),
  placed as materialized (
    select c.*, coalesce(c.old_seq, v_heads[c.slot]
             + first_value(c.n) over (partition by c.slot, c.sender, c.key order by c.ord)) as new_seq
    from counted c),
  ins as (
    insert into messages (room, seq, sender, key, hash, at, data)
    select p.room, p.new_seq, p.sender, p.key, p.hash, v_at, p.data
    from placed p where p.copy = 1 and p.old_seq is null
    order by p.slot, p.ord
    on conflict do nothing),
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
         case when p.hash <> coalesce(p.old_hash, p.first_hash) then 2
              when p.old_seq is not null or p.copy > 1 then 1 else 0 end,
         case when p.copy = 1 and p.old_seq is null then v_at end,
         (select id from noted),
         null::bigint
  from placed p order by p.ord;
end $$;
