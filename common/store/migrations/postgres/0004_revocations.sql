-- Which tokens are refused although they are signed and have not ended.

create table revocations (
  name text collate "C" primary key,                   -- the user
  issued_until bigint not null,                        -- seconds since 1970: of tokens issued in this second and before
  place bigint not null unique                         -- its place among all; a later one of the same user takes a new place
);

create table revocations_head (
  one boolean primary key default true check (one),    -- one row
  place bigint not null                                -- the last place that was given
);
insert into revocations_head (place) values (0);

-- Revokes a user's tokens that were issued up to p_until (null: until now); what was revoked before stays revoked.
create function revoke_v1(p_name text, p_until bigint, out issued_until bigint, out place bigint)
language plpgsql volatile
as $$
#variable_conflict use_column
declare
  v_place bigint;
begin
  -- One at a time until the commit: whoever has read up to a place has missed none before it.
  update revocations_head h set place = h.place + 1 returning h.place into v_place;
  -- After all waits, or tokens issued meanwhile would be good.
  insert into revocations as r (name, issued_until, place)
  values (p_name, coalesce(p_until, floor(extract(epoch from clock_timestamp()))::bigint), v_place)
  on conflict (name) do update
    set issued_until = greatest(r.issued_until, excluded.issued_until), place = excluded.place
  returning r.issued_until, r.place into issued_until, place;
end $$;
