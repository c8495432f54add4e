//! Where each item of a group goes: the rules of a publish, given what the tables say. Pure.

use std::collections::{BTreeMap, HashMap};

use sluice_proto::ids::{RoomId, Seq};

use crate::{NewMessage, Outcome, Row, Run};

/// How far the time of a message may be ahead of the clock: as far as clocks are set back in orderly life.
const AHEAD_MAX_MS: i64 = 60_000;

/// Where a room stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Head {
    pub(super) seq: Seq,
    /// Time of the last message.
    pub(super) at_ms: i64,
}

/// What a key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KnownKey {
    pub(super) seq: Seq,
    pub(super) hash: [u8; 32],
}

/// `(room, sender, key)`
type Name<'a> = (&'a str, &'a str, &'a str);

/// The rooms and keys of some groups, as the tables have them and as the groups change them.
#[derive(Debug, Default)]
pub(super) struct Ledger<'a> {
    pub(super) heads: HashMap<&'a str, Head>,
    pub(super) keys: HashMap<Name<'a>, KnownKey>,
    /// Keys that no message has, but one that waits or was cancelled.
    pub(super) kept: HashMap<Name<'a>, KeptKey>,
}

/// A key of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeptKey {
    pub(super) hash: [u8; 32],
    /// When it is due; `None`: it was cancelled.
    pub(super) due_ms: Option<i64>,
}

impl KeptKey {
    fn outcome(&self, item: &NewMessage) -> Outcome {
        match self.due_ms {
            Some(due_ms) if self.hash == item.hash => Outcome::Waits { due_ms },
            Some(_) | None => Outcome::Conflict,
        }
    }
}

/// A message that is new, and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct New<'a> {
    pub(super) item: &'a NewMessage,
    pub(super) seq: Seq,
    pub(super) at_ms: i64,
}

/// A group with its places.
#[derive(Debug, Default)]
pub(super) struct PlacedGroup<'a> {
    pub(super) rows: Vec<Row>,
    pub(super) new: Vec<New<'a>>,
    pub(super) runs: Vec<Run>,
}

pub(super) fn name_of(item: &NewMessage) -> Name<'_> {
    (item.room.as_str(), item.sender.as_str(), item.key.as_str())
}

impl<'a> Ledger<'a> {
    /// Gives places to a group, in order. Groups placed later see it.
    pub(super) fn place(&mut self, group: &'a [NewMessage], now_ms: i64) -> PlacedGroup<'a> {
        let mut placed = PlacedGroup::default();
        let mut runs: BTreeMap<&'a RoomId, (Seq, Seq)> = BTreeMap::new();
        for item in group {
            let name = name_of(item);
            let outcome = match (self.keys.get(&name), self.kept.get(&name)) {
                (Some(known), _) if known.hash == item.hash => Outcome::Duplicate { seq: known.seq },
                (Some(_), _) => Outcome::Conflict,
                (None, Some(kept)) => kept.outcome(item),
                (None, None) => {
                    let new = self.append(item, now_ms);
                    runs.entry(&item.room).or_insert((new.seq, new.seq)).1 = new.seq;
                    placed.new.push(new);
                    Outcome::Stored { seq: new.seq, at_ms: new.at_ms }
                }
            };
            placed.rows.push(Row { outcome });
        }
        let run = |(room, (first, last)): (&RoomId, _)| Run { room: room.clone(), first, last };
        placed.runs = runs.into_iter().map(run).collect();
        placed
    }

    fn append(&mut self, item: &'a NewMessage, now_ms: i64) -> New<'a> {
        let head = self.heads.entry(item.room.as_str()).or_default();
        head.seq += 1;
        // A clock that is set back a little must not make a room's times run backwards; one that was far ahead must not
        // keep them in the future.
        head.at_ms = head.at_ms.clamp(now_ms, now_ms.saturating_add(AHEAD_MAX_MS));
        let new = New { item, seq: head.seq, at_ms: head.at_ms };
        self.keys.insert(name_of(item), KnownKey { seq: new.seq, hash: item.hash });
        new
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::ids::{Key, UserId};

    use super::*;
    use crate::hash_of;

    fn item(room: &str, key: &str, data: &'static str) -> NewMessage {
        NewMessage {
            room: RoomId::parse(room).unwrap(),
            sender: UserId::parse("alice").unwrap(),
            key: Key::parse(key).unwrap(),
            hash: hash_of(data.as_bytes()),
            data: data.as_bytes().into(),
        }
    }

    fn outcomes(placed: &PlacedGroup<'_>) -> Vec<Outcome> {
        placed.rows.iter().map(|row| row.outcome).collect()
    }

    #[test]
    fn times_do_not_run_backwards_and_do_not_stay_in_the_future() {
        let group = [item("a", "1", "x")];
        let at = |head_ms: i64, now_ms: i64| {
            let mut ledger = Ledger::default();
            ledger.heads.insert("a", Head { seq: 7, at_ms: head_ms });
            let Outcome::Stored { at_ms, .. } = ledger.place(&group, now_ms).rows[0].outcome else {
                panic!("stored")
            };
            at_ms
        };
        assert_eq!(at(1_000_000, 1_000_500), 1_000_500);
        assert_eq!(at(1_000_000, 990_000), 1_000_000, "set back by 10 s");
        assert_eq!(at(400 * 86_400_000, 1_000_000), 1_060_000, "400 days ahead, and back");
        assert_eq!(at(i64::MAX, i64::MAX), i64::MAX);
    }

    #[test]
    fn a_group_is_numbered_and_later_ones_see_it() {
        let first = [item("a", "1", "x"), item("b", "1", "x"), item("a", "2", "x"), item("a", "1", "y")];
        let second = [item("a", "2", "x"), item("a", "3", "x")];
        let mut ledger = Ledger::default();
        ledger.heads.insert("a", Head { seq: 7, at_ms: 100 });
        let stored = |seq, at_ms| Outcome::Stored { seq, at_ms };

        let placed = ledger.place(&first, 90);
        assert_eq!(outcomes(&placed), [stored(8, 100), stored(1, 90), stored(9, 100), Outcome::Conflict]);
        let runs: Vec<_> = placed.runs.iter().map(|run| (run.room.as_str(), run.first, run.last)).collect();
        assert_eq!(runs, [("a", 8, 9), ("b", 1, 1)]);

        let placed = ledger.place(&second, 110);
        assert_eq!(outcomes(&placed), [Outcome::Duplicate { seq: 9 }, stored(10, 110)]);
        assert_eq!(ledger.heads["a"], Head { seq: 10, at_ms: 110 });
    }
}
