//! Subscribes and unsubscribes, 60,000 times a second, each time another room with the longest name there may be.

use super::{Behaviour, PROFILE, Profile, text};

/// Subscriptions and their ends, each two frames.
const FRAMES_PER_S: u32 = 120_000;
/// The longest name of a room.
const NAME_BYTES: usize = 128;
/// Pairs said at once.
const PAIRS: u32 = 32;

struct Churner {
    tag: String,
    next: u64,
}

pub(super) fn new(tag: &str) -> Box<dyn Behaviour> {
    Box::new(Churner { tag: format!("{tag}."), next: 0 })
}

impl Behaviour for Churner {
    fn profile(&self) -> Profile {
        Profile { frames_per_s: Some(FRAMES_PER_S), ..PROFILE }
    }

    fn say(&mut self, _n: usize, out: &mut Vec<u8>) -> u32 {
        for _ in 0..PAIRS {
            self.next += 1;
            let (tag, next, width) = (&self.tag, self.next, NAME_BYTES - self.tag.len());
            text(out, &format!(r#"{{"sub":"{tag}{next:0width$}"}}"#));
            text(out, &format!(r#"{{"unsub":"{tag}{next:0width$}"}}"#));
        }
        PAIRS * 2
    }
}
