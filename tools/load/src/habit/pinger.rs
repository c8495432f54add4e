//! Protocol pings as fast as they are read: each is owed a pong.

use super::{Behaviour, PROFILE, Profile};
use crate::frame;

struct Pinger;

pub(super) fn new(_tag: &str) -> Box<dyn Behaviour> {
    Box::new(Pinger)
}

impl Behaviour for Pinger {
    fn profile(&self) -> Profile {
        Profile { connections: 4, ..PROFILE }
    }

    fn say(&mut self, _n: usize, out: &mut Vec<u8>) -> u32 {
        frame::client_frame(out, frame::PING, b"");
        1
    }
}
