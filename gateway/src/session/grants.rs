//! What a token allows: exact room names, or prefixes ending in `*`. Pure.
//!
//! A room that addresses one user (`@…`) needs a grant that says so: `*` is for the rooms that people share.

use sluice_proto::grpc;
use sluice_proto::ids::{RoomId, UserId};

/// Grants of one user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    subscribe: Box<[Box<str>]>,
    publish: Box<[Box<str>]>,
}

impl From<grpc::Grants> for Grants {
    fn from(grants: grpc::Grants) -> Self {
        let boxed = |list: Vec<String>| list.into_iter().map(String::into_boxed_str).collect();
        Self { subscribe: boxed(grants.sub), publish: boxed(grants.r#pub) }
    }
}

impl Grants {
    /// Whether `user` may subscribe to `room`, read its history and presence. Everybody may read the
    /// room that addresses them, `@<user>`.
    #[must_use]
    pub fn may_subscribe(&self, user: &UserId, room: &RoomId) -> bool {
        room.as_str().strip_prefix('@') == Some(user.as_str()) || any(&self.subscribe, room)
    }

    /// Whether this user may publish to `room`.
    #[must_use]
    pub fn may_publish(&self, room: &RoomId) -> bool {
        any(&self.publish, room)
    }
}

fn any(patterns: &[Box<str>], room: &RoomId) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some("") => !room.as_str().starts_with('@'),
        Some(prefix) => room.as_str().starts_with(prefix),
        None => room.as_str() == &**pattern,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_exact_or_prefixes() {
        let grants = Grants::from(grpc::Grants {
            sub: vec!["news.*".into(), "lobby".into()],
            r#pub: vec!["*".into()],
        });
        let ann = UserId::parse("ann").expect("valid");
        let may = |room: &str| grants.may_subscribe(&ann, &RoomId::parse(room).expect("valid"));
        assert!(may("news.sport") && may("lobby") && may("@ann"));
        assert!(!may("news") && !may("lobby2") && !may("@anna") && !may("@bob"));
        let may_publish = |room: &str| grants.may_publish(&RoomId::parse(room).expect("valid"));
        assert!(may_publish("anything") && may_publish("a@b"));
        assert!(!may_publish("@ann") && !may_publish("@"), "all rooms, but nobody's own");
        for (pattern, others) in [("@*", true), ("@bob", true), ("@b*", true), ("@bo", false), ("*", false)] {
            let grants = Grants::from(grpc::Grants { sub: vec![pattern.into()], r#pub: Vec::new() });
            assert_eq!(
                grants.may_subscribe(&ann, &RoomId::parse("@bob").expect("valid")),
                others,
                "{pattern}"
            );
        }
        assert!(!Grants::default().may_publish(&RoomId::parse("a").expect("valid")));
    }
}
