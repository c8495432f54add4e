//! Protocol pings as fast as they are read: each is owed a pong.

use super::{MANNER, Manner, Neighbour};
use crate::frame;

struct Pinger;

pub(super) fn new(_tag: &str) -> Box<dyn Neighbour> {
    Box::new(Pinger)
}

impl Neighbour for Pinger {
    fn manner(&self) -> Manner {
        Manner { connections: 4, ..MANNER }
    }

    fn say(&mut self, _n: usize, out: &mut Vec<u8>) -> u32 {
        frame::client_frame(out, frame::PING, b"");
        1
    }
}
