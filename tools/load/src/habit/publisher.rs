//! Publishes to rooms of its own as fast as it is read, with keys as a library chooses them.

use super::{Behaviour, PROFILE, Profile, text};

const CONNECTIONS: usize = 8;
/// Rooms in turn, so that every lane has some.
const ROOMS: u64 = 64;
const DATA_BYTES: usize = 128;

struct Publisher {
    tag: String,
    data: String,
    next: u64,
}

pub(super) fn new(tag: &str) -> Box<dyn Behaviour> {
    Box::new(Publisher { tag: tag.to_owned(), data: "x".repeat(DATA_BYTES), next: 0 })
}

impl Behaviour for Publisher {
    fn profile(&self) -> Profile {
        Profile { connections: CONNECTIONS, ..PROFILE }
    }

    fn say(&mut self, _n: usize, out: &mut Vec<u8>) -> u32 {
        let Self { tag, data, next } = self;
        *next += 1;
        let room = *next % ROOMS;
        text(out, &format!(r#"{{"pub":"{tag}.{room}","data":"{data}","key":"{tag}{next:016x}"}}"#));
        1
    }
}
