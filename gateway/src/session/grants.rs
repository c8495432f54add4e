//! What a token allows: exact room names, or prefixes ending in `*`. Pure. Users of one service mostly have the same
//! grants, so they share them.
//!
//! A room that addresses one user (`@…`) needs a grant that says so: `*` is for the rooms that people share.

use std::collections::VecDeque;
use std::sync::Arc;

use sluice_proto::grants::cover;
use sluice_proto::grpc;
use sluice_proto::ids::{RoomId, UserId};

/// Grants of one user; clones share them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants(Arc<Lists>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Lists {
    subscribe: Box<[Box<str>]>,
    publish: Box<[Box<str>]>,
}

impl From<grpc::Grants> for Grants {
    fn from(grants: grpc::Grants) -> Self {
        let boxed = |list: Vec<String>| list.into_iter().map(String::into_boxed_str).collect();
        Self(Arc::new(Lists { subscribe: boxed(grants.sub), publish: boxed(grants.r#pub) }))
    }
}

/// Grants that were seen last, for whoever comes with the same.
#[derive(Debug, Default)]
pub struct SeenGrants(VecDeque<Grants>);

/// Kinds of clients that come mixed: one look at each costs less than the memory of a copy.
const SEEN_MAX: usize = 8;

impl SeenGrants {
    /// The same grants, in the copy that others have.
    pub fn share(&mut self, grants: Grants) -> Grants {
        if let Some(seen) = self.0.iter().find(|seen| **seen == grants) {
            return seen.clone();
        }
        if self.0.len() == SEEN_MAX {
            self.0.pop_front();
        }
        self.0.push_back(grants.clone());
        grants
    }
}

impl Grants {
    /// Whether `user` may subscribe to `room`, read its history and presence. Everybody may read the
    /// room that addresses them, `@<user>`.
    #[must_use]
    pub fn may_subscribe(&self, user: &UserId, room: &RoomId) -> bool {
        room.as_str().strip_prefix('@') == Some(user.as_str()) || cover(&self.0.subscribe, room.as_str())
    }

    /// Whether this user may publish to `room`.
    #[must_use]
    pub fn may_publish(&self, room: &RoomId) -> bool {
        cover(&self.0.publish, room.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_with_the_same_grants_shares_them() {
        let grants =
            |room: &str| Grants::from(grpc::Grants { sub: vec![room.to_owned()], r#pub: vec!["*".into()] });
        let mut seen = SeenGrants::default();
        let first = seen.share(grants("a"));
        assert!(Arc::ptr_eq(&first.0, &seen.share(grants("a")).0));
        let others: Vec<Grants> = (0..SEEN_MAX).map(|n| seen.share(grants(&n.to_string()))).collect();
        assert_eq!(seen.0.len(), SEEN_MAX, "whoever brings grants of its own each time fills nothing");
        assert!(!Arc::ptr_eq(&first.0, &seen.share(grants("a")).0) && others[1] == grants("1"));
    }

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
