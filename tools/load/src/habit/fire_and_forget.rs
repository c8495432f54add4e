//! Fire and forget: connects, asks for 8 pages of history with the same segment, says that it has nothing more to say,
//! and is gone before anybody could answer.

use super::history::{PAGES, archive, room};
use super::{Behaviour, First, PROFILE, Profile, text};

const DIALS_PER_S: u32 = 150;
/// Places that are used in turn: more than are ever open at once.
const CONNECTIONS: usize = 1_000;

struct FireAndForget {
    room: String,
    asked: Vec<bool>,
}

pub(super) fn new(tag: &str) -> Box<dyn Behaviour> {
    Box::new(FireAndForget { room: room(tag), asked: vec![false; CONNECTIONS] })
}

impl Behaviour for FireAndForget {
    fn profile(&self) -> Profile {
        Profile {
            connections: CONNECTIONS,
            dials_per_s: Some(DIALS_PER_S),
            first: First::Eager,
            leaves: true,
            ..PROFILE
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
