//! Finding rows: by position, by message.

use super::{History, NONE, StoredRow};

impl History {
    /// The rows of a room, by seq.
    #[must_use]
    pub fn rows_in(&self, room: u32) -> &[StoredRow] {
        self.by_room.get(room as usize).map_or(&[], |range| &self.rows[range.clone()])
    }

    /// The row at a position.
    #[must_use]
    pub fn row_at(&self, room: u32, seq: u64) -> Option<(u32, &StoredRow)> {
        let range = self.by_room.get(room as usize)?;
        let rows = &self.rows[range.clone()];
        let first = rows.first()?.seq;
        // Without holes the place is the distance, in all runs that are well: tens of millions of look-ups.
        let direct = usize::try_from(seq.checked_sub(first)?).ok()?;
        let place = match rows.get(direct) {
            Some(row) if row.seq == seq => direct,
            _ => rows.binary_search_by_key(&seq, |row| row.seq).ok()?,
        };
        Some((u32::try_from(range.start + place).unwrap_or(NONE), &rows[place]))
    }

    /// The rows of a room that are this message; more than one is one too many.
    pub fn rows_of(&self, room: u32, message: u32) -> impl Iterator<Item = (u32, &StoredRow)> {
        let mut at = self.messages.get(message as usize).map_or(NONE, |message| message.row);
        let all = std::iter::from_fn(move || {
            let row = self.rows.get(at as usize)?;
            let found = (at, row);
            at = row.next;
            Some(found)
        });
        all.filter(move |(_, row)| row.room == room)
    }

    /// What names a row: its room, who published it, under which key.
    #[must_use]
    pub fn name_of(&self, row: &StoredRow) -> (u32, u32, u32) {
        (row.room, self.messages[row.message as usize].user, row.key)
    }

    /// Last position of a room in the store; 0 = empty.
    #[must_use]
    pub fn last_seq(&self, room: u32) -> u64 {
        self.rows_in(room).last().map_or(0, |row| row.seq)
    }

    /// Oldest position kept; one more than its head when a room is empty.
    #[must_use]
    pub fn oldest(&self, room: u32) -> u64 {
        let head = self.heads.get(&room).copied().unwrap_or_default();
        self.rows_in(room).first().map_or(head + 1, |row| row.seq)
    }
}
