-- Wrong on purpose, only for the drill's own proof: fire_due_v2 that publishes each message a second time.

create or replace function fire_due_v2(p_part smallint, p_max int, p_without text[], p_wait text)
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
    delete from scheduled x where x.id = any (v_ids) and x.room = any (v_free) returning x.*),
  -- The bug: it waits on, as if it had another key.
  again as (
    insert into scheduled (due, part, room, sender, key, hash, data)
    select f.due, f.part, f.room, f.sender, left(f.key, 100) || '/again', f.hash, f.data
    from fired f where f.key not like '%/again')
  select array_agg(x.room), array_agg(x.sender), array_agg(x.key), array_agg(x.hash), array_agg(x.data)
  into r, s, k, h, d from (select * from fired order by due, id) x;
  if r is not null then
    return query select r[p.ord], p.seq, p.outcome, p.at, p.note from publish_v1('infinity', r, s, k, h, d) p;
  end if;
end $$;
