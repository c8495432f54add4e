//! A client that behaves: what it has asked and what it has been given. It never asks twice for the same.

use std::collections::VecDeque;

use sluice_load::frame::{self, TEXT};

use super::{STAMP_AFTER, Tally};

/// Subscriptions without an answer; above it none is asked for: a person would have gone.
const ASKED_MAX: usize = 20;
/// A question without an answer counts with its age from this on; below it may only be under way.
const LATE_NS: u64 = 100_000_000;

pub(super) struct Client {
    pub(super) n: usize,
    room: String,
    probe: String,
    /// The seq that comes next in its room; `None` until it is subscribed.
    next: Option<u64>,
    probes: u64,
    /// Subscriptions without an answer: which, and since when.
    asked: VecDeque<(u64, u64)>,
    keys: u64,
    /// Publishes without an answer.
    published: VecDeque<(u64, u64)>,
    /// First half of its keys.
    key: String,
}

impl Client {
    pub(super) fn new(n: usize, tag: &str, room: String) -> Self {
        let probe = format!("{tag}.probe.{n}");
        let key = format!("{tag}-{n}-{:?}-", std::time::SystemTime::now());
        let key = format!("{:x}", key.bytes().fold(0_u64, |sum, byte| sum.rotate_left(5) ^ u64::from(byte)));
        let (asked, published) = (VecDeque::new(), VecDeque::new());
        Self { n, room, probe, next: None, probes: 0, asked, keys: 0, published, key }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.next.is_some()
    }

    /// Subscribes to a room that it has not asked for before.
    pub(super) fn subscribe(&mut self, out: &mut Vec<u8>, due: u64, _tally: &mut Tally) {
        // Bounded: one that asks on while nothing is answered would become a bad neighbour itself.
        if self.is_ready() && self.asked.len() < ASKED_MAX {
            self.probes += 1;
            let (id, probe) = (self.probes, &self.probe);
            self.asked.push_back((id, due));
            text(out, &format!(r#"{{"sub":"{probe}.{id}","id":{id}}}"#));
        }
    }

    pub(super) fn publish(&mut self, out: &mut Vec<u8>, due: u64) {
        if self.is_ready() {
            self.keys += 1;
            let (id, room, key) = (self.keys, &self.room, &self.key);
            self.published.push_back((id, due));
            text(out, &format!(r#"{{"pub":"{room}","data":"{due:020}","key":"{key}-{id}","id":{id}}}"#));
        }
    }

    pub(super) fn on(&mut self, out: &mut Vec<u8>, payload: &[u8], now: u64, tally: &mut Tally) {
        let id = || frame::number_after(payload, b"\"id\":");
        if payload.starts_with(b"{\"msg\":") {
            let seq = frame::number_after(payload, b"\"seq\":");
            tally.gaps += u64::from(seq != self.next);
            self.next = seq.map(|seq| seq + 1);
            if let Some(sent) = frame::number_after(payload, STAMP_AFTER) {
                tally.delivery.took(now.saturating_sub(sent));
            }
        } else if payload.starts_with(b"{\"ok\":\"pub\"") {
            if let Some(since) = take(&mut self.published, id()) {
                tally.publish.took(now.saturating_sub(since));
            }
        } else if payload.starts_with(b"{\"ok\":\"sub\"") {
            if let Some(id) = id().filter(|id| *id > 0) {
                if let Some(since) = take(&mut self.asked, Some(id)) {
                    tally.sub.took(now.saturating_sub(since));
                    text(out, &format!(r#"{{"unsub":"{}.{id}"}}"#, self.probe));
                }
            } else {
                self.next = frame::number_after(payload, b"\"after\":").map(|after| after + 1);
            }
        } else if payload.starts_with(b"{\"welcome\":") {
            text(out, &format!(r#"{{"sub":"{}","id":0}}"#, self.room));
        // A refusal is an answer, so its question is over, and counts with the time it took.
        } else if !payload.starts_with(b"{\"ok\":\"unsub\"") {
            tally.refused += 1;
            tally.trouble.get_or_insert_with(|| String::from_utf8_lossy(payload).into_owned());
            let (asked, published) = (take(&mut self.asked, id()), take(&mut self.published, id()));
            if let Some(since) = asked {
                tally.sub.took(now.saturating_sub(since));
            }
            if let Some(since) = published {
                tally.publish.took(now.saturating_sub(since));
            }
        }
    }

    /// What waits for too long already counts as it is.
    pub(super) fn ages(&self, now: u64, tally: &mut Tally) {
        let late = |since: &u64| Some(now.saturating_sub(*since)).filter(|age| *age > LATE_NS);
        self.asked.iter().filter_map(|(_, since)| late(since)).for_each(|age| tally.sub.took(age));
        self.published.iter().filter_map(|(_, since)| late(since)).for_each(|age| tally.publish.took(age));
    }
}

/// Removes what has this number; answers come in about the order of the questions.
fn take(waiting: &mut VecDeque<(u64, u64)>, id: Option<u64>) -> Option<u64> {
    let at = waiting.iter().position(|(waits, _)| Some(*waits) == id)?;
    waiting.remove(at).map(|(_, since)| since)
}

fn text(out: &mut Vec<u8>, text: &str) {
    frame::client_frame(out, TEXT, text.as_bytes());
}
