//! 400 connections, each subscribed to as many rooms as one may be, all of them its own: 400,000 rooms.

use super::{Behaviour, PROFILE, Profile, text};

const CONNECTIONS: usize = 400;
const ROOMS: usize = 1_000;

struct Creator {
    tag: String,
    said: Vec<usize>,
}

pub(super) fn new(tag: &str) -> Box<dyn Behaviour> {
    Box::new(Creator { tag: tag.to_owned(), said: vec![0; CONNECTIONS] })
}

impl Behaviour for Creator {
    fn profile(&self) -> Profile {
        Profile { connections: CONNECTIONS, ..PROFILE }
    }

    fn begin(&mut self, n: usize) {
        self.said[n] = 0;
    }

    fn say(&mut self, n: usize, out: &mut Vec<u8>) -> u32 {
        if self.said[n] == ROOMS {
            return 0;
        }
        text(out, &format!(r#"{{"sub":"{}.{n}.{}"}}"#, self.tag, self.said[n]));
        self.said[n] += 1;
        1
    }
}
