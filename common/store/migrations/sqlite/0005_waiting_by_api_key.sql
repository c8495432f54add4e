-- By which key of the API a message that waits came, null where a client scheduled it; to be counted up to a limit.

alter table scheduled add column api_key text;
create index scheduled_api_key on scheduled (api_key) where cancelled_ms is null and api_key is not null;
