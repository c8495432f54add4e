//! Fire and forget: connects, asks for 8 pages of history with the same segment, says that it has nothing more to say,
//! and is gone before anybody could answer.

use super::history::{PAGES, archive, room};
use super::{First, MANNER, Manner, Neighbour, text};

const DIALS_PER_S: u32 = 150;
/// Places that are used in turn: more than are ever open at once.
const CONNECTIONS: usize = 1_000;

struct Forgetter {
    room: String,
    asked: Vec<bool>,
}

pub(super) fn new(tag: &str) -> Box<dyn Neighbour> {
    Box::new(Forgetter { room: room(tag), asked: vec![false; CONNECTIONS] })
}

impl Neighbour for Forgetter {
    fn manner(&self) -> Manner {
        Manner {
            connections: CONNECTIONS,
            dials_per_s: Some(DIALS_PER_S),
            first: First::Eager,
            leaves: true,
            ..MANNER
        }
    }

    fn prepare(&mut self) -> Vec<Vec<u8>> {
        archive(&self.room)
    }

    fn begin(&mut self, n: usize) {
        self.asked[n] = false;
    }

    fn say(&mut self, n: usize, out: &mut Vec<u8>) -> u32 {
        if std::mem::replace(&mut self.asked[n], true) {
            return 0;
        }
        for _ in 0..PAGES {
            text(out, &format!(r#"{{"history":"{}","limit":256}}"#, self.room));
        }
        PAGES
    }
}
