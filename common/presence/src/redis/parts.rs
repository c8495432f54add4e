//! Where keys are: in one part that is all there is, or in sixteen of a Redis Cluster, each in one slot, so that a
//! script finds all that it touches on one server. Pure.

use sluice_proto::ids::{RoomId, UserId, lane_of};
use sluice_proto::limits::LANES;

use crate::Change;

/// Slots of every Redis Cluster.
const SLOTS: u16 = 16_384;

/// One part of all keys: a room with all that is said of it, a user with theirs, and what each instance has of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part(pub(super) u8);

/// How keys of each part begin.
#[derive(Debug)]
pub(super) struct Parts {
    /// `prefix`, or `prefix:{tag}` of each part.
    roots: Vec<String>,
}

impl Parts {
    /// Of a server that has everything.
    pub(super) fn one(prefix: &str) -> Self {
        Self { roots: vec![prefix.to_owned()] }
    }

    /// Of a Redis Cluster. A room's part is its lane: the rooms of one commit group are asked for by one call.
    pub(super) fn sixteen(prefix: &str) -> Self {
        Self { roots: tags().map(|tag| format!("{prefix}:{{{tag}}}")).collect() }
    }

    pub(super) fn count(&self) -> usize {
        self.roots.len()
    }

    pub(super) fn are_several(&self) -> bool {
        self.count() > 1
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Part> + use<> {
        (0..LANES).map(Part).take(self.count())
    }

    pub(super) fn of_room(&self, room: &RoomId) -> Part {
        self.of(room.as_str())
    }

    pub(super) fn of_user(&self, user: &UserId) -> Part {
        self.of(user.as_str())
    }

    pub(super) fn of(&self, name: &str) -> Part {
        Part(if self.are_several() { lane_of(name) } else { 0 })
    }

    /// How the keys of this part begin.
    pub(super) fn root(&self, part: Part) -> &str {
        self.roots.get(usize::from(part.0)).map_or("", String::as_str)
    }

    /// The changes of each part, in their order; of parts that have none only where `all` are asked for.
    pub(super) fn split<'a>(&self, changes: &'a [Change], all: bool) -> Vec<(Part, Vec<&'a Change>)> {
        let mut split: Vec<(Part, Vec<&Change>)> = self.all().map(|part| (part, Vec::new())).collect();
        for change in changes {
            let Part(at) = match change {
                Change::Connected { user, .. } | Change::Disconnected { user, .. } => self.of_user(user),
                Change::Joined { room, .. }
                | Change::Left { room, .. }
                | Change::InterestAdded(room)
                | Change::InterestRemoved(room) => self.of_room(room),
            };
            if let Some((_, changes)) = split.get_mut(usize::from(at)) {
                changes.push(change);
            }
        }
        split.retain(|(_, changes)| all || !changes.is_empty());
        split
    }

    /// These things by part, each with its place among them.
    pub(super) fn group<'a, T>(
        &self,
        things: &'a [T],
        name: impl Fn(&T) -> &str,
    ) -> Vec<(Part, Vec<(usize, &'a T)>)> {
        let mut groups: Vec<(Part, Vec<(usize, &T)>)> = self.all().map(|part| (part, Vec::new())).collect();
        for (place, thing) in things.iter().enumerate() {
            if let Some((_, group)) = groups.get_mut(usize::from(self.of(name(thing)).0)) {
                group.push((place, thing));
            }
        }
        groups.retain(|(_, group)| !group.is_empty());
        groups
    }
}

/// What was said of grouped things, in the order they had before; the first failure, if any part failed.
pub(super) fn in_order<T, E>(of_parts: Vec<Result<Vec<(usize, T)>, E>>) -> Result<Vec<T>, E> {
    let said: Vec<Vec<(usize, T)>> = of_parts.into_iter().collect::<Result<_, E>>()?;
    let mut said: Vec<(usize, T)> = said.into_iter().flatten().collect();
    said.sort_unstable_by_key(|(place, _)| *place);
    Ok(said.into_iter().map(|(_, one)| one).collect())
}

/// The smallest numbers that lie in the first, the second … sixteenth of all slots: primaries that share slots evenly
/// share parts evenly.
fn tags() -> impl Iterator<Item = String> {
    let share = SLOTS / u16::from(LANES);
    (0..u16::from(LANES)).filter_map(move |part| {
        (0..SLOTS).map(|number| number.to_string()).find(|tag| slot(tag.as_bytes()) / share == part)
    })
}

/// The slot of a key with this tag: its CRC-16 (XMODEM).
fn slot(tag: &[u8]) -> u16 {
    let bit = |crc: u16| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
    let byte = |crc: u16, byte: &u8| (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| bit(crc));
    tag.iter().fold(0, byte) % SLOTS
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn keys_are_the_same_for_all_time() {
        assert_eq!(slot(b"123456789"), 0x31C3, "as the specification has it");
        let tags: Vec<String> = tags().collect();
        assert_eq!(tags.join(" "), "10 3 61 43 11 2 60 42 12 1 63 41 13 0 62 40");
        assert_eq!(Parts::one("sluice").root(Part(0)), "sluice", "as versions before had them");
    }

    #[test]
    fn each_change_goes_where_the_keys_it_writes_are() {
        let (room, user) = (RoomId::parse("news").unwrap(), UserId::parse("ann").unwrap());
        let connection = String::from("c");
        let changes = [
            Change::Disconnected { connection: connection.clone(), user: user.clone() },
            Change::InterestAdded(room.clone()),
            Change::Left { connection, room: room.clone(), goodbye: false },
        ];
        let several = Parts::sixteen("p");
        let split = several.split(&changes, false);
        let (of_room, of_user) = (several.of_room(&room), several.of_user(&user));
        assert_ne!(of_room, of_user);
        let of = |part| split.iter().find(|(one, _)| *one == part).map(|(_, changes)| changes.clone());
        assert_eq!(of(of_room), Some(vec![&changes[1], &changes[2]]), "in their order");
        assert_eq!((of(of_user), split.len()), (Some(vec![&changes[0]]), 2));
        assert_eq!(several.split(&changes, true).len(), 16, "a full set speaks for every part");
        assert_eq!(Parts::one("p").split(&changes, false), [(Part(0), changes.iter().collect())]);
        let twice = [room.clone(), room];
        let groups = several.group(&twice, RoomId::as_str);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].1.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 1]);
    }
}
