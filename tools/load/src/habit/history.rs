//! Asks for the largest pages of history there are: reading them as fast as they come, or not at all.

use super::{Behaviour, PROFILE, Profile, text};

/// Questions one connection may have without an answer.
pub(super) const PAGES: u32 = 8;
/// Messages of a page.
const MESSAGES: usize = 256;
/// So large that a page is 1 MiB.
const DATA_BYTES: usize = 4_000;

struct History {
    room: String,
    profile: Profile,
    /// Questions of each connection, at most; then it is silent.
    most: Option<u32>,
    asked: Vec<u32>,
}

pub(super) fn unread(tag: &str) -> Box<dyn Behaviour> {
    let profile = Profile { connections: 40, readers: 0, ..PROFILE };
    Box::new(History { room: room(tag), profile, most: Some(PAGES), asked: vec![0; 40] })
}

pub(super) fn reader(tag: &str) -> Box<dyn Behaviour> {
    let profile = Profile { connections: 200, ..PROFILE };
    Box::new(History { room: room(tag), profile, most: None, asked: vec![0; 200] })
}

/// The room that is asked for.
pub(super) fn room(tag: &str) -> String {
    format!("{tag}.archive")
}

/// What it holds.
pub(super) fn archive(room: &str) -> Vec<Vec<u8>> {
    let data = "x".repeat(DATA_BYTES);
    let publish = |n: usize| {
        let mut out = Vec::new();
        text(&mut out, &format!(r#"{{"pub":"{room}","data":"{data}","key":"archive-{n}"}}"#));
        out
    };
    (0..MESSAGES).map(publish).collect()
}

impl Behaviour for History {
    fn profile(&self) -> Profile {
        self.profile
    }

    fn prepare(&mut self) -> Vec<Vec<u8>> {
        archive(&self.room)
    }

    fn begin(&mut self, n: usize) {
        self.asked[n] = 0;
    }

    fn say(&mut self, n: usize, out: &mut Vec<u8>) -> u32 {
        if self.most.is_some_and(|most| self.asked[n] >= most) {
            return 0;
        }
        self.asked[n] += 1;
        text(out, &format!(r#"{{"history":"{}","limit":{MESSAGES}}}"#, self.room));
        1
    }
}
