-- What a statement says of the transaction it is: whose session it must be in, and whether a crash may forget it.
--
-- What stands between a logic and its server can hand a session to several connections (a pooler in transaction mode).
-- Then a setting of one is met by the others, and a connection outlives the history whose epoch it carries.

-- p_session is what the connection put into sluice.session when it was opened; only its own session has it, and only as
-- long as nobody else was given it.
create function own_session_v1(p_session text) returns boolean language plpgsql volatile as $$
begin
  if current_setting('sluice.session', true) is distinct from p_session then
    raise exception 'a statement met a session that is not its connection''s alone' using errcode = 'SLU03';
  end if;
  return true;
end $$;

-- Whatever the session says by now, this transaction is kept when it has committed. One that waits for standbys longer
-- than it must (remote_apply) goes on doing so.
create function durable_v1(p_session text) returns boolean language plpgsql volatile as $$
begin
  if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  return own_session_v1(p_session);
end $$;

-- Never by the session: that would outlive the transaction.
create function forgetful_v1(p_session text) returns boolean language plpgsql volatile as $$
begin
  perform set_config('synchronous_commit', 'off', true);
  return own_session_v1(p_session);
end $$;

-- Stores a message and takes it back in the same transaction, which then commits: whatever a publish needs of the server
-- is needed, rights, space and a standby that acknowledges, and no row stays. A room of its own for each session, or two
-- probes would wait for each other; a name that no room can have. p_blocks: how many times 16 bytes it has.
create function probe_v1(p_blocks int) returns void language plpgsql volatile as $$
begin
  begin
    perform publish_v2((-1)::smallint, 'infinity', array[' ' || pg_backend_pid()], array['~'], array['~'],
      array['\x00'::bytea],
      array[(select decode(string_agg(md5(random()::text), ''), 'hex') from generate_series(1, p_blocks))]);
    raise exception using errcode = 'SLU02';
  exception when sqlstate 'SLU02' then null;
  end;
end $$;
