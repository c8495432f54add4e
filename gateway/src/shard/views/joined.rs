//! A run in one piece, for those who get all of it at once.

use bytes::Bytes;

/// The messages of a run in one piece for each transport, as soon as somebody has it: a burst is joined once for all who
/// get it; for a single one it would only be a copy more.
#[derive(Default)]
pub(super) struct Joined {
    pub(super) wanted: bool,
    pub(super) frames: Option<Bytes>,
    pub(super) events: Option<Bytes>,
}

/// Messages one after the other.
pub(super) fn join(messages: impl Iterator<Item = Bytes>) -> Bytes {
    let mut joined = Vec::new();
    messages.for_each(|message| joined.extend_from_slice(&message));
    joined.into()
}
