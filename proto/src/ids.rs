//! Names and numbers that cross process boundaries: validated once, shared by reference afterwards.

use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::limits::{LANES, MINTED_KEY_PREFIX, NAME_BYTES_MAX, ROOM_BYTES_MAX};

/// Position of a message in its room: 1, 2, … without holes. 0 is the position before the first.
pub type Seq = u64;

/// Why a name was refused. The text names the rule and is shown to clients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// The name is empty.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// Longer than the last number.
    #[error("{0} has {1} bytes, at most {2} are allowed")]
    TooLong(&'static str, usize, usize),
    /// A control character (U+0000…U+001F, U+007F…U+009F) is in it.
    #[error("{0} contains a control character")]
    Control(&'static str),
    /// A client's key starts with the prefix of minted keys.
    #[error("key starts with \"~\", which is reserved; choose another first character")]
    Reserved,
    /// A `*` in a room: a grant for it would be read as a prefix.
    #[error("room contains \"*\", which stands for the rest of a name in grants; choose another character")]
    Star,
}

/// The one rule for rooms, users and keys, the same in gateway and logic.
fn check(what: &'static str, text: &str, bytes_max: usize) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty(what));
    }
    if text.len() > bytes_max {
        return Err(InvalidName::TooLong(what, text.len(), bytes_max));
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidName::Control(what));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $bytes_max:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Takes a name of at least one and at most as many bytes as the wire allows, without control characters.
            ///
            /// # Errors
            /// [`InvalidName`] says which rule was broken.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                check($what, text, $bytes_max)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A room: an ordered log of messages that clients publish to and subscribe to.
    RoomId, "room", ROOM_BYTES_MAX
);
name!(
    /// A user: who publishes; also the dedupe space of keys.
    UserId, "user", NAME_BYTES_MAX
);
name!(
    /// A publish's key: the same `(room, sender, key)` is stored once.
    Key, "key", NAME_BYTES_MAX
);
name!(
    /// A running process: a new one at every registration, never used again.
    InstanceId, "instance", NAME_BYTES_MAX
);

impl RoomId {
    /// Takes a room to subscribe or publish to: as [`RoomId::parse`], and `*` is refused. Rooms that have one from
    /// earlier can still be read and left.
    ///
    /// # Errors
    /// [`InvalidName`] says which rule was broken.
    pub fn parse_from_client(text: &str) -> Result<Self, InvalidName> {
        let room = Self::parse(text)?;
        if text.contains('*') { Err(InvalidName::Star) } else { Ok(room) }
    }

    /// The lane of this room, `0…LANES-1`, equal in every process.
    #[must_use]
    pub fn lane(&self) -> u8 {
        lane_of(&self.0)
    }

    /// The room that addresses one user: `@<user>`.
    #[must_use]
    pub fn own_room_of(user: &UserId) -> String {
        format!("@{user}")
    }
}

/// The lane of a room given as text.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "a remainder of LANES fits in a byte")]
pub fn lane_of(room: &str) -> u8 {
    (xxh3_64(room.as_bytes()) % u64::from(LANES)) as u8
}

impl Key {
    /// Takes a key from a client: as [`Key::parse`], and the prefix of minted keys is refused.
    ///
    /// # Errors
    /// [`InvalidName`] says which rule was broken.
    pub fn parse_from_client(text: &str) -> Result<Self, InvalidName> {
        if text.starts_with(MINTED_KEY_PREFIX) {
            return Err(InvalidName::Reserved);
        }
        Self::parse(text)
    }

    /// Mints the key of the `n`-th keyless publish of a session, so that retries are safe.
    #[must_use]
    pub fn mint(session: SessionId, n: u64) -> Self {
        Self(format!("{MINTED_KEY_PREFIX}{session}/{n}").into())
    }

    /// Whether a gateway minted this key.
    #[must_use]
    pub fn is_minted(&self) -> bool {
        self.0.starts_with(MINTED_KEY_PREFIX)
    }
}

impl InstanceId {
    /// A fresh id `<service>-<host>-<64 random bits>`.
    #[must_use]
    pub fn fresh(service: &str, host: &str) -> Self {
        let host: String = host.chars().filter(|c| !c.is_control() && *c != '/').take(63).collect();
        Self(format!("{service}-{host}-{:016x}", rand::random::<u64>()).into())
    }
}

/// A client's life on one gateway: 128 random bits, 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub u128);

impl SessionId {
    /// A fresh random id.
    #[must_use]
    pub fn fresh() -> Self {
        Self(rand::random())
    }

    /// Reads the 32 hex digits clients see.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Identity of a store's history: positions of one epoch mean nothing in another. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// From the wire, where 0 stands for "not known".
    #[must_use]
    pub fn from_wire(value: u64) -> Option<Self> {
        (value != 0).then_some(Self(value))
    }

    /// Reads the 16 hex digits clients see.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten().and_then(Self::from_wire)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_one_rule() {
        assert!(RoomId::parse("news").is_ok());
        assert_eq!(RoomId::parse(""), Err(InvalidName::Empty("room")));
        assert_eq!(RoomId::parse(&"x".repeat(130)), Err(InvalidName::TooLong("room", 130, 129)));
        assert_eq!(Key::parse(&"x".repeat(129)), Err(InvalidName::TooLong("key", 129, 128)));
        assert_eq!(RoomId::parse("a\0b"), Err(InvalidName::Control("room")));
        assert_eq!(UserId::parse("a\u{85}"), Err(InvalidName::Control("user")));
    }

    #[test]
    fn the_longest_user_has_a_room() {
        let longest = UserId::parse(&"u".repeat(NAME_BYTES_MAX)).expect("valid");
        assert!(RoomId::parse_from_client(&RoomId::own_room_of(&longest)).is_ok());
    }

    #[test]
    fn a_room_with_a_star_is_only_read() {
        assert_eq!(RoomId::parse_from_client("chat*"), Err(InvalidName::Star));
        assert_eq!(RoomId::parse_from_client("a*b"), Err(InvalidName::Star));
        assert!(RoomId::parse("chat*").is_ok());
    }

    #[test]
    fn minted_keys_are_refused_from_clients() {
        let minted = Key::mint(SessionId(7), 3);
        assert_eq!(minted.as_str(), "~00000000000000000000000000000007/3");
        assert!(minted.is_minted());
        assert_eq!(Key::parse_from_client(minted.as_str()), Err(InvalidName::Reserved));
    }

    #[test]
    fn lanes_are_fixed_for_all_time() {
        // Two processes that disagree here would break the order of a sender.
        assert_eq!(["news", "a", "@ann", ""].map(lane_of), [4, 15, 10, 2]);
        assert!((0..1000).all(|n| lane_of(&n.to_string()) < LANES));
    }

    #[test]
    fn sessions_read_back() {
        let session = SessionId(0x1f);
        assert_eq!(SessionId::parse(&session.to_string()), Some(session));
        assert_eq!(["1f", "", &"+".repeat(32), &"g".repeat(32)].map(SessionId::parse), [None; 4]);
    }

    #[test]
    fn epochs_read_back() {
        let epoch = Epoch(0x1f);
        assert_eq!(epoch.to_string(), "000000000000001f");
        assert_eq!(Epoch::parse(&epoch.to_string()), Some(epoch));
        assert_eq!(Epoch::parse("0000000000000000"), None);
        assert_eq!(Epoch::parse("xyz"), None);
    }
}
