//! 400 connections, each subscribed to as many rooms as one may be, all of them its own: 400,000 rooms.

use super::{MANNER, Manner, Neighbour, text};

const CONNECTIONS: usize = 400;
const ROOMS: usize = 1_000;

struct Creator {
    tag: String,
    said: Vec<usize>,
}

pub(super) fn new(tag: &str) -> Box<dyn Neighbour> {
    Box::new(Creator { tag: tag.to_owned(), said: vec![0; CONNECTIONS] })
}

impl Neighbour for Creator {
    fn manner(&self) -> Manner {
        Manner { connections: CONNECTIONS, ..MANNER }
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
