//! The smallest requests there are, as fast as they are read: each costs the server an answer.

use super::{Behaviour, PROFILE, Profile, text};

struct Tiny;

pub(super) fn new(_tag: &str) -> Box<dyn Behaviour> {
    Box::new(Tiny)
}

impl Behaviour for Tiny {
    fn profile(&self) -> Profile {
        Profile { connections: 4, ..PROFILE }
    }

    fn say(&mut self, _n: usize, out: &mut Vec<u8>) -> u32 {
        text(out, r#"{"ping":1}"#);
        1
    }
}
