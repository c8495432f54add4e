//! What tickets stand for, each until it is taken or its time is over. Pure.

use std::collections::HashMap;

/// Records by the names of their tickets, each with when it ends.
#[derive(Default)]
pub(in crate::memory) struct Tickets(HashMap<String, (i64, Vec<u8>)>);

impl Tickets {
    pub(in crate::memory) fn keep(&mut self, name: &str, record: &[u8], now_ms: i64, keep_ms: i64) {
        // Whoever asks for tickets and never uses them leaves a minute of them behind, not more.
        self.0.retain(|_, (until, _)| *until > now_ms);
        self.0.insert(name.to_owned(), (now_ms.saturating_add(keep_ms), record.to_vec()));
    }

    pub(in crate::memory) fn take(&mut self, name: &str, now_ms: i64) -> Option<Vec<u8>> {
        let (until, record) = self.0.remove(name)?;
        (until > now_ms).then_some(record)
    }
}
