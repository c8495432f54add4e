//! 200 connections in one room ask who is in it, without end, and read every answer.

use super::{Behaviour, PROFILE, Profile, text};

const CONNECTIONS: usize = 200;

struct Presence {
    room: String,
    inside: Vec<bool>,
}

pub(super) fn new(tag: &str) -> Box<dyn Behaviour> {
    Box::new(Presence { room: format!("{tag}.party"), inside: vec![false; CONNECTIONS] })
}

impl Behaviour for Presence {
    fn profile(&self) -> Profile {
        Profile { connections: CONNECTIONS, ..PROFILE }
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
