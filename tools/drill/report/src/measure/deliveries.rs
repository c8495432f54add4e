//! From the first send of a message to its delivery at somebody else. Deliveries are too many to keep and their send
//! may stand in a file that is read later: of ever fewer messages, all is kept until the end.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

use super::spread::Counted;

/// Sends or deliveries kept at most: some 100 MB.
const KEPT_MAX: usize = 2_000_000;

/// What is kept of the messages of one run. Those whose name ends in enough zero bits are kept.
pub(super) struct Deliveries {
    kept_max: usize,
    mask: u64,
    sends: HashMap<u64, FirstSend>,
    gots: Vec<Arrival>,
}

struct FirstSend {
    at: u64,
    n: u64,
    client: u32,
    /// Two messages of the same sender, room and data cannot be told apart.
    ambiguous: bool,
}

struct Arrival {
    message: u64,
    at: u64,
    /// Since when its client is in the room: what is older is history.
    since: u64,
}

/// Short name of a room or user.
pub(super) fn short(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// Short name of a message; its last bits are as good as random.
pub(super) fn name(room: u64, from: u64, hash: u64) -> u64 {
    let mut bytes = [0; 24];
    for (part, of) in bytes.chunks_exact_mut(8).zip([room, from, hash]) {
        part.copy_from_slice(&of.to_le_bytes());
    }
    xxh3_64(&bytes)
}

impl Default for Deliveries {
    fn default() -> Self {
        Self { kept_max: KEPT_MAX, mask: 0, sends: HashMap::new(), gots: Vec::new() }
    }
}

impl Deliveries {
    /// Message `n` of `client` was sent, or sent again.
    pub(super) fn sent(&mut self, message: u64, client: u32, n: u64, at: u64) {
        if message & self.mask != 0 {
            return;
        }
        self.sends
            .entry(message)
            .and_modify(|send| send.ambiguous |= send.n != n || send.client != client)
            .or_insert(FirstSend { at, n, client, ambiguous: false });
        self.shrink();
    }

    /// A message came to somebody who is in its room since `since`.
    pub(super) fn got(&mut self, message: u64, at: u64, since: u64) {
        if message & self.mask == 0 {
            self.gots.push(Arrival { message, at, since });
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        while self.sends.len().max(self.gots.len()) >= self.kept_max {
            self.mask = self.mask << 1 | 1;
            let mask = self.mask;
            self.sends.retain(|message, _| message & mask == 0);
            self.gots.retain(|got| got.message & mask == 0);
        }
    }

    /// Adds every latency to `counted`; answers that one message in so many was kept.
    pub(super) fn finish(self, counted: &mut Counted) -> u64 {
        for got in &self.gots {
            let send = self.sends.get(&got.message).filter(|send| !send.ambiguous && send.at >= got.since);
            if let Some(took) = send.and_then(|send| got.at.checked_sub(send.at)) {
                counted.add(took);
            }
        }
        self.mask + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_and_twins_are_left_out() {
        let mut deliveries = Deliveries::default();
        deliveries.got(1, 50, 0);
        deliveries.got(1, 90, 30);
        deliveries.got(2, 90, 0);
        deliveries.sent(1, 7, 1, 20);
        deliveries.sent(1, 7, 1, 45);
        deliveries.sent(2, 7, 2, 21);
        deliveries.sent(2, 7, 3, 22);
        let mut counted = Counted::default();
        assert_eq!(deliveries.finish(&mut counted), 1);
        assert_eq!((counted.n(), counted.max()), (1, 30));
    }

    #[test]
    fn too_many_are_thinned_by_message() {
        let messages = 1_500;
        let mut deliveries = Deliveries { kept_max: 1_000, ..Deliveries::default() };
        for n in 0..messages {
            let message = name(1, 2, n);
            deliveries.sent(message, 1, n, n);
            deliveries.got(message, n + 5, 0);
        }
        let mut counted = Counted::default();
        assert_eq!(deliveries.finish(&mut counted), 2);
        assert!(counted.n() > messages / 3 && counted.n() < messages * 2 / 3, "{}", counted.n());
        assert_eq!((counted.percentile(50), counted.max()), (5, 5));
    }
}
