-- Wrong on purpose, only for the drill's own proof: fire_due_v1 that publishes each message a second time.

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
    delete from scheduled x using picked p where x.id = p.id returning x.*),
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
