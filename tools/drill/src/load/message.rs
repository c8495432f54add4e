//! What is published: rooms by popularity, payloads that no two messages share but for a few empty ones. Everything
//! from a client's own stream of chance. It sends nothing.

use std::sync::Arc;

use rand::RngExt;
use rand::rngs::SmallRng;
use sluice_judge::record::{ClientEvent, hash_of};

use super::plan::{ClientRole, ClientSpec, Plan};
use super::zipf::Zipf;
use crate::seed::Seed;

/// Most bytes of `data`.
const LARGE: usize = 65_536;
/// One in so many is empty.
const EMPTY_IN: u32 = 300;
/// Part of the publishes of plain clients that have no key.
const KEYLESS: f64 = 0.03;
/// Hex digits of a key.
const KEY_DIGITS: usize = 24;

/// One message, before it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OutgoingMessage {
    pub n: u64,
    pub room: String,
    pub key: Option<String>,
    pub data: String,
}

impl OutgoingMessage {
    /// The record of its sending.
    pub(super) fn send(&self, conn: u32) -> ClientEvent {
        let (room, key) = (self.room.clone(), self.key.clone());
        let bytes = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        ClientEvent::Send { conn, n: self.n, room, key, hash: hash_of(self.data.as_bytes()), bytes }
    }
}

/// Writes a client's messages.
#[derive(Debug)]
pub(super) struct MessageGenerator {
    client: u32,
    beacon: bool,
    keyless: bool,
    plan: Plan,
    popularity: Arc<Zipf>,
    rng: SmallRng,
    last: u64,
}

impl MessageGenerator {
    /// `keyless`: may leave out the key.
    pub(super) fn new(plan: &Plan, spec: &ClientSpec, popularity: &Arc<Zipf>, keyless: bool) -> Self {
        Self {
            client: spec.client,
            beacon: spec.role == ClientRole::Beacon,
            keyless: keyless && plan.keyless,
            plan: plan.clone(),
            popularity: Arc::clone(popularity),
            rng: Seed(plan.seed).stream("letters", spec.client),
            last: 0,
        }
    }

    pub(super) fn generate(&mut self, now_us: u64) -> OutgoingMessage {
        self.last += 1;
        let (client, n) = (self.client, self.last);
        // Drawn also for those that get none: what the seed brings later must not hang on that.
        let key = (0..KEY_DIGITS).map(|_| char::from_digit(self.rng.random_range(0..16), 16).unwrap_or('0'));
        let key = key.collect();
        if self.beacon {
            let data = format!(r#"{{"c":{client},"n":{n},"t":{now_us}}}"#);
            return OutgoingMessage { n, room: self.plan.beacon_room(), key: Some(key), data };
        }
        if self.plan.large_in > 0 && self.rng.random_ratio(1, self.plan.large_in) {
            // Large ones to many would be a load of bytes, which another measurement is for.
            let place = self.popularity.places() / 2; // of the rooms that few read
            let room = self.plan.room(self.rng.random_range(place..self.popularity.places()));
            return OutgoingMessage { n, room, key: Some(key), data: self.padded(n, LARGE) };
        }
        let room = self.plan.room(self.popularity.pick(&mut self.rng));
        if self.rng.random_ratio(1, EMPTY_IN) {
            let data = ["\"\"", "{}", "null"][self.rng.random_range(0..3)].to_owned();
            return OutgoingMessage { n, room, key: Some(key), data };
        }
        let bytes = self.rng.random_range(60..=300);
        let key = (!self.keyless || !self.rng.random_bool(KEYLESS)).then_some(key);
        OutgoingMessage { n, room, key, data: self.padded(n, bytes) }
    }

    /// Exactly so many bytes, when that is enough for the numbers.
    fn padded(&mut self, n: u64, bytes: usize) -> String {
        let mut data = format!(r#"{{"c":{},"n":{n},"pad":""#, self.client);
        let letter = char::from(b'a' + self.rng.random_range(0..26_u8));
        // A letter of its own: two payloads of one length must not have the same hash.
        data.extend(std::iter::repeat_n(letter, bytes.saturating_sub(data.len() + 2)));
        data.push_str("\"}");
        data
    }
}

/// When a beacon was sent, microseconds of the run's clock.
pub(super) fn sent_us(data: &str) -> Option<u64> {
    data.split_once("\"t\":")?.1.strip_suffix('}')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn messages_repeat_with_their_seed_and_share_no_payload_but_empty_ones() {
        let plan = Plan::default();
        let specs = plan.specs();
        let spec = specs.iter().find(|spec| spec.role == ClientRole::Sender).unwrap();
        let popularity = Arc::new(plan.popularity());
        let write = || {
            let mut generator = MessageGenerator::new(&plan, spec, &popularity, true);
            (0..5_000).map(|_| generator.generate(7)).collect::<Vec<_>>()
        };
        let messages = write();
        assert_eq!(messages, write());
        let full: Vec<&OutgoingMessage> = messages.iter().filter(|message| message.data.len() > 4).collect();
        assert!(full.len() < messages.len(), "some are empty");
        assert_eq!(full.iter().map(|message| &message.data).collect::<HashSet<_>>().len(), full.len());
        let keys: HashSet<_> = messages.iter().filter_map(|message| message.key.as_ref()).collect();
        let keyless = messages.len() - keys.len();
        assert!((50..400).contains(&keyless), "{keyless} without key, no key twice");
        assert!(messages.iter().any(|message| message.data.len() == LARGE));
        for message in &messages {
            serde_json::from_str::<serde_json::Value>(&message.data).unwrap();
            assert!(message.data.len() <= LARGE);
            assert!(message.data.len() > 4 || message.key.is_some(), "what has neither is seen by nobody");
        }
    }

    #[test]
    fn a_beacon_says_when_it_was_sent() {
        let plan = Plan::default();
        let mut generator =
            MessageGenerator::new(&plan, &plan.specs()[0], &Arc::new(plan.popularity()), false);
        let message = generator.generate(1_234);
        assert_eq!((message.room.as_str(), sent_us(&message.data)), ("beacon", Some(1_234)));
        assert_eq!(sent_us("null"), None);
    }
}
