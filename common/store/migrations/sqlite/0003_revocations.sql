-- Which tokens are refused although they are signed and have not ended.

create table revocations (
  name text primary key,                               -- the user
  issued_until integer not null,                       -- seconds since 1970: of tokens issued in this second and before
  place integer not null unique                        -- its place among all; a later one of the same user takes a new place
) strict, without rowid;

create table revocations_head (
  one integer primary key check (one = 1),             -- one row
  place integer not null                               -- the last place that was given
) strict;
insert into revocations_head (one, place) values (1, 0);
