//! Has upgraded and does not say who it is, as it should with its first frame: it writes large frames without end.

use super::{Behaviour, First, PROFILE, Profile, text};

const DATA_BYTES: usize = 60 * 1024;

struct Unconnected {
    frame: Vec<u8>,
}

pub(super) fn new(tag: &str) -> Box<dyn Behaviour> {
    let mut frame = Vec::new();
    text(&mut frame, &format!(r#"{{"pub":"{tag}","data":"{}"}}"#, "x".repeat(DATA_BYTES)));
    Box::new(Unconnected { frame })
}

impl Behaviour for Unconnected {
    fn profile(&self) -> Profile {
        Profile { connections: 80, first: First::Nameless, readers: 0, ..PROFILE }
    }

    fn say(&mut self, _n: usize, out: &mut Vec<u8>) -> u32 {
        out.extend_from_slice(&self.frame);
        1
    }
}
