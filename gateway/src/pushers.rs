//! Who pushes: the streams of tasks, open ones and those of a while ago, by number. Messages carry the number alone;
//! the names are asked for only where two versions of a message met.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Streams remembered: several times as many as may be open, so that one that just left is still known.
const KEPT_MAX: usize = 4 * crate::defaults::PUSH_STREAMS_MAX;

/// A stream of pushes; the default is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PusherId(u32);

/// The names of the streams; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Pushers(Arc<Mutex<Streams>>);

#[derive(Debug, Default)]
struct Streams {
    last: u32,
    names: VecDeque<(PusherId, String)>,
}

impl Pushers {
    /// A stream was opened by `who`.
    #[must_use]
    pub fn opened(&self, who: String) -> PusherId {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Never 0, which is no stream.
        streams.last = streams.last.checked_add(1).unwrap_or(1);
        let id = PusherId(streams.last);
        if streams.names.len() >= KEPT_MAX {
            streams.names.pop_front();
        }
        streams.names.push_back((id, who));
        id
    }

    /// All who are remembered.
    #[must_use]
    pub fn all(&self) -> String {
        let streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<&str> = streams.names.iter().map(|(_, name)| name.as_str()).collect();
        names.join(" and ")
    }

    /// Who these were, for people; without a stream it was this gateway's own publish or a page.
    #[must_use]
    pub fn names(&self, ids: &[PusherId]) -> String {
        let streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<&str> = Vec::new();
        for id in ids.iter().filter(|id| **id != PusherId::default()) {
            let found = streams.names.iter().find(|(of, _)| of == id);
            let name = found.map_or("a stream that ended long ago", |(_, name)| name.as_str());
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if names.is_empty() { "nobody".into() } else { names.join(" and ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_have_names_as_long_as_they_are_kept() {
        let (pushers, nobody) = (Pushers::default(), PusherId::default());
        let first = pushers.opened("task-a at 10.0.0.1:1".into());
        let second = pushers.opened("task-b at 10.0.0.2:2".into());
        assert_eq!(pushers.names(&[second, first]), "task-b at 10.0.0.2:2 and task-a at 10.0.0.1:1");
        assert_eq!(pushers.names(&[first, first]), "task-a at 10.0.0.1:1");
        assert_eq!(
            (pushers.names(&[nobody, first]), pushers.names(&[nobody])),
            (pushers.names(&[first]), "nobody".into())
        );
        for _ in 0..KEPT_MAX - 1 {
            assert_ne!(pushers.opened("task-c".into()), nobody);
        }
        assert_eq!(pushers.names(&[first, second]), "a stream that ended long ago and task-b at 10.0.0.2:2");
    }
}
