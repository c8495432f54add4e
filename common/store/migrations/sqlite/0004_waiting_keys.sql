-- A sender's messages that wait, to be counted up to a limit.

create index scheduled_waiting on scheduled (sender) where cancelled_ms is null;
