//! Half a handshake and then nothing: a thousand a second, two thousand held open.

use super::{First, MANNER, Manner, Neighbour};

struct HalfOpen;

pub(super) fn new(_tag: &str) -> Box<dyn Neighbour> {
    Box::new(HalfOpen)
}

impl Neighbour for HalfOpen {
    fn manner(&self) -> Manner {
        Manner { connections: 2_000, dials_per_s: Some(1_000), first: First::Half, ..MANNER }
    }

    fn say(&mut self, _n: usize, _out: &mut Vec<u8>) -> u32 {
        0
    }
}
