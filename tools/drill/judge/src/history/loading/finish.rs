//! The last step: sort what came in any order, link messages to rows, note when each row was first known.

use std::ops::Range;

use super::{Loading, number};
use crate::history::{Fate, History, NONE, Restore, StepKind};
use crate::record::FaultRecord;

impl Loading {
    /// The history, complete.
    #[must_use]
    pub fn finish(self) -> History {
        let mut history = self.history;
        history.faults.sort_by_key(|fault| fault.began_us);
        history.restores = history.faults.iter().filter_map(restore).collect();
        history.epochs = self.epochs.into_iter().map(|(epoch, first_us)| (first_us, epoch)).collect();
        history.epochs.sort_unstable();
        for client in &mut history.clients {
            client.steps.shrink_to_fit();
        }
        let History { rooms, users, keys, words, .. } = &mut history;
        // Nothing new is named from here on, and the tables are as large as the names.
        for names in [rooms, users, keys, words] {
            names.seal();
        }
        history.rows.sort_unstable_by_key(|row| (row.room, row.seq, row.key));
        history.by_room = ranges(&history);
        // Backwards, so that each message's chain begins with its lowest row.
        for index in (0..history.rows.len()).rev() {
            let message = &mut history.messages[history.rows[index].message as usize];
            history.rows[index].next = std::mem::replace(&mut message.row, number(index));
        }
        know(&mut history);
        history
    }
}

/// A fault after which the store is what it was before.
fn restore(fault: &FaultRecord) -> Option<Restore> {
    // Without a time of the copy everything may be gone: as if it was copied before the run began.
    let is_wipe = fault.kind.starts_with("wipe postgres");
    let copied_us = fault.copied_us.or((is_wipe || fault.kind.starts_with("restore")).then_some(0))?;
    Some(Restore { copied_us, healed_us: fault.healed_us })
}

fn ranges(history: &History) -> Vec<Range<usize>> {
    let mut ranges = vec![0..0; history.rooms.len()];
    let mut start = 0;
    for rows in history.rows.chunk_by(|a, b| a.room == b.room) {
        let end = start + rows.len();
        ranges[rows[0].room as usize] = start..end;
        start = end;
    }
    ranges
}

/// First `ok` or delivery of each row.
fn know(history: &mut History) {
    let mut known = vec![u64::MAX; history.rows.len()];
    let mut note = |room: u32, seq: u64, message: u32, at_us: u64| {
        if let Some((index, row)) = history.row_at(room, seq)
            // Another message under that seq is a finding of its own: it makes this row known to nobody.
            && row.message == message
        {
            let known = &mut known[index as usize];
            *known = at_us.min(*known);
        }
    };
    for answer in &history.answers {
        if let Fate::Ok(seq) = answer.fate {
            let sent = &history.sent[answer.sent as usize];
            note(sent.room, seq, sent.message, answer.at_us);
        }
    }
    for step in history.clients.iter().flat_map(|client| &client.steps) {
        if let StepKind::Got { seq, room, message, .. } = step.act {
            note(room, seq, message, step.at_us);
        }
    }
    for (row, known_us) in history.rows.iter_mut().zip(known) {
        row.known_us = known_us;
    }
    debug_assert!(history.rows.iter().all(|row| row.message != NONE));
}
