-- A store in one file that was copied here keeps its epoch, so that positions go on being good: for exactly the history
-- that it was copied into. A restore, a promotion or `sluice store new-epoch` makes another one of it, as ever.

alter table meta
  add column copied_epoch text,                        -- 16 hex digits; null: nothing was copied
  add column copied_into text;                         -- the parts of the epoch that it stands for, as they were then
