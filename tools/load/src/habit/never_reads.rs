//! 50 connections: two fill a room with large messages, the others subscribe to it and never read.

use super::{Behaviour, PROFILE, Profile, text};

const CONNECTIONS: usize = 50;
/// Those of them that publish.
const PUBLISHERS: usize = 2;
const DATA_BYTES: usize = 16 * 1024;
/// Frames of all together: 3 MB/s to each subscriber.
const FRAMES_PER_S: u32 = 200;

struct NeverReads {
    room: String,
    data: String,
    inside: Vec<bool>,
    next: u64,
}

pub(super) fn new(tag: &str) -> Box<dyn Behaviour> {
    let (room, data) = (format!("{tag}.loud"), "x".repeat(DATA_BYTES));
    Box::new(NeverReads { room, data, inside: vec![false; CONNECTIONS], next: 0 })
}

impl Behaviour for NeverReads {
    fn profile(&self) -> Profile {
        Profile { connections: CONNECTIONS, frames_per_s: Some(FRAMES_PER_S), readers: PUBLISHERS, ..PROFILE }
    }

    fn begin(&mut self, n: usize) {
        self.inside[n] = false;
    }

    fn say(&mut self, n: usize, out: &mut Vec<u8>) -> u32 {
        let Self { room, data, inside, next } = self;
        if n >= PUBLISHERS {
            let is_inside = std::mem::replace(&mut inside[n], true);
            if !is_inside {
                text(out, &format!(r#"{{"sub":"{room}"}}"#));
            }
            return u32::from(!is_inside);
        }
        *next += 1;
        text(out, &format!(r#"{{"pub":"{room}","data":"{data}","key":"{room}{next:016x}"}}"#));
        1
    }
}
