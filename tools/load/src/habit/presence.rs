//! 200 connections in one room ask who is in it, without end, and read every answer.

use super::{MANNER, Manner, Neighbour, text};

const CONNECTIONS: usize = 200;

struct Presence {
    room: String,
    inside: Vec<bool>,
}

pub(super) fn new(tag: &str) -> Box<dyn Neighbour> {
    Box::new(Presence { room: format!("{tag}.party"), inside: vec![false; CONNECTIONS] })
}

impl Neighbour for Presence {
    fn manner(&self) -> Manner {
        Manner { connections: CONNECTIONS, ..MANNER }
    }

    fn begin(&mut self, n: usize) {
        self.inside[n] = false;
    }

    fn say(&mut self, n: usize, out: &mut Vec<u8>) -> u32 {
        let verb = if std::mem::replace(&mut self.inside[n], true) { "presence" } else { "sub" };
        text(out, &format!(r#"{{"{verb}":"{}"}}"#, self.room));
        1
    }
}
