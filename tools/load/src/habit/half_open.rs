//! Half a handshake and then nothing: a thousand a second, two thousand held open.

use super::{Behaviour, First, PROFILE, Profile};

struct HalfOpen;

pub(super) fn new(_tag: &str) -> Box<dyn Behaviour> {
    Box::new(HalfOpen)
}

impl Behaviour for HalfOpen {
    fn profile(&self) -> Profile {
        Profile { connections: 2_000, dials_per_s: Some(1_000), first: First::Half, ..PROFILE }
    }

    fn say(&mut self, _n: usize, _out: &mut Vec<u8>) -> u32 {
        0
    }
}
