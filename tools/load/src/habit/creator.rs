//! 400 connections, each subscribed to rooms of its own: as many as one may have, or fewer with the longest names.

use super::{Behaviour, PROFILE, Profile, text};

const CONNECTIONS: usize = 400;
const NAME_BYTES_MAX: usize = 128;

struct Creator {
    tag: String,
    /// Of each connection.
    rooms: usize,
    name_bytes: usize,
    said: Vec<usize>,
}

pub(super) fn new(tag: &str) -> Box<dyn Behaviour> {
    Box::new(Creator { tag: tag.to_owned(), rooms: 1_000, name_bytes: 0, said: vec![0; CONNECTIONS] })
}

pub(super) fn with_long_names(tag: &str) -> Box<dyn Behaviour> {
    let said = vec![0; CONNECTIONS];
    Box::new(Creator { tag: tag.to_owned(), rooms: 500, name_bytes: NAME_BYTES_MAX, said })
}

impl Behaviour for Creator {
    fn profile(&self) -> Profile {
        Profile { connections: CONNECTIONS, ..PROFILE }
    }

    fn begin(&mut self, n: usize) {
        self.said[n] = 0;
    }

    fn say(&mut self, n: usize, out: &mut Vec<u8>) -> u32 {
        if self.said[n] == self.rooms {
            return 0;
        }
        let name = format!("{}.{n}.{}", self.tag, self.said[n]);
        text(out, &format!(r#"{{"sub":"{name:x<width$}"}}"#, width = self.name_bytes));
        self.said[n] += 1;
        1
    }
}
