//! Which tokens are refused although they are signed and have not ended: those of a user that were issued up to a second.
//!
//! A token says when it was issued (`iat`) in whole seconds, so a revocation does too: the second in which it is made is
//! refused as a whole, before and after, and tokens of the next one are good. One that does not say when it was issued may
//! be of any time: it is refused for as long as its user stands here.

use std::collections::{BTreeMap, HashMap};

use crate::grpc;
use crate::ids::{InvalidName, UserId};

/// Tokens of a user that are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Whose.
    pub user: UserId,
    /// Issued up to this second since 1970, that one included.
    pub issued_until_s: u32,
    /// Its place among all revocations, from 1.
    pub position: u64,
}

/// Whether a token that was issued then is refused; `None`: it does not say when.
#[must_use]
pub fn is_refused(issued_at_s: Option<u32>, issued_until_s: u32) -> bool {
    issued_at_s.is_none_or(|at| at <= issued_until_s)
}

impl TryFrom<grpc::Revocation> for Revocation {
    type Error = InvalidName;

    fn try_from(wire: grpc::Revocation) -> Result<Self, InvalidName> {
        let grpc::Revocation { user, issued_until_s, position } = wire;
        Ok(Self { user: UserId::parse(&user)?, issued_until_s, position })
    }
}

impl From<Revocation> for grpc::Revocation {
    fn from(Revocation { user, issued_until_s, position }: Revocation) -> Self {
        Self { user: user.to_string(), issued_until_s, position }
    }
}

/// What the newest revocations say of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is not revoked.
    Good,
    /// It is.
    Revoked,
    /// Older revocations than those that are remembered may be of it.
    Unknown,
}

/// The newest revocations, bounded in number. Pure: whoever reads them from somewhere puts them in.
#[derive(Debug)]
pub struct Revocations {
    most: usize,
    by_user: HashMap<UserId, Known>,
    by_position: BTreeMap<u64, UserId>,
    /// All up to here were read.
    position: u64,
    /// Those up to here are not remembered.
    floor: u64,
    /// They are of tokens issued up to here.
    floor_s: u32,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    issued_until_s: u32,
    position: u64,
}

impl Revocations {
    /// Remembers so many; all above `floor` are to come. Those up to it are of tokens issued up to `floor_s`.
    #[must_use]
    pub fn above(floor: u64, floor_s: u32, most: usize) -> Self {
        let (by_user, by_position) = (HashMap::new(), BTreeMap::new());
        Self { most, by_user, by_position, position: floor, floor, floor_s }
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_user.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_user.is_empty()
    }

    /// All up to here were read.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Those up to here are not remembered.
    #[must_use]
    pub const fn floor(&self) -> u64 {
        self.floor
    }

    /// Puts one in. It may come early, before others of lower positions, or again.
    pub fn add(&mut self, revocation: Revocation) {
        let Revocation { user, issued_until_s, position } = revocation;
        if let Some(known) = self.by_user.get(&user).copied() {
            if known.position >= position {
                return;
            }
            self.by_position.remove(&known.position);
        }
        self.by_position.insert(position, user.clone());
        self.by_user.insert(user, Known { issued_until_s, position });
        while self.by_user.len() > self.most {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((position, user)) = self.by_position.pop_first() else { return };
        self.floor = self.floor.max(position);
        if let Some(known) = self.by_user.remove(&user) {
            // Whoever revokes may name an earlier second than the one before did.
            self.floor_s = self.floor_s.max(known.issued_until_s);
        }
    }

    /// All up to here are in.
    pub fn read_up_to(&mut self, position: u64) {
        self.position = self.position.max(position);
    }

    /// The store has fewer than it had, as it was restored: what follows is read again from here. What it forgot is still
    /// refused here.
    pub fn went_back_to(&mut self, position: u64) {
        self.position = position;
        self.floor = self.floor.min(position);
    }

    /// Those after a position, at most `most`, and whether there are more. `None`: some of them are not remembered.
    #[must_use]
    pub fn after(&self, position: u64, most: usize) -> Option<(Vec<Revocation>, bool)> {
        if position < self.floor {
            return None;
        }
        if position >= self.position {
            return Some((Vec::new(), false));
        }
        // What came early is not among them: those before it may be missing.
        let mut range = self.by_position.range(position + 1..=self.position);
        let revocation = |(position, user): (&u64, &UserId)| {
            let known = self.by_user.get(user)?;
            Some(Revocation { user: user.clone(), issued_until_s: known.issued_until_s, position: *position })
        };
        let page = range.by_ref().take(most).filter_map(revocation).collect();
        Some((page, range.next().is_some()))
    }

    /// How it stands with a token of this user.
    #[must_use]
    pub fn judge(&self, user: &UserId, issued_at_s: Option<u32>) -> Standing {
        match self.by_user.get(user) {
            Some(known) if is_refused(issued_at_s, known.issued_until_s) => Standing::Revoked,
            Some(_) => Standing::Good,
            None if self.floor > 0 && is_refused(issued_at_s, self.floor_s) => Standing::Unknown,
            None => Standing::Good,
        }
    }

    /// How it stands with a token that somebody else called good, who had looked at all revocations up to `looked_at`.
    #[must_use]
    pub fn judge_after(&self, looked_at: u64, user: &UserId, issued_at_s: Option<u32>) -> Standing {
        match self.by_user.get(user) {
            Some(known) if is_refused(issued_at_s, known.issued_until_s) => Standing::Revoked,
            // Between the two nobody has looked.
            Some(_) | None if looked_at < self.floor => Standing::Unknown,
            Some(_) | None => Standing::Good,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).expect("valid")
    }

    fn revocation(name: &str, issued_until_s: u32, position: u64) -> Revocation {
        Revocation { user: user(name), issued_until_s, position }
    }

    fn filled(most: usize) -> Revocations {
        let mut all = Revocations::above(0, 0, most);
        for (position, (name, until)) in (1..).zip([("ann", 10), ("bob", 30), ("carl", 20)]) {
            all.add(revocation(name, until, position));
        }
        all.read_up_to(3);
        all
    }

    #[test]
    fn the_second_of_a_revocation_is_refused_as_a_whole() {
        let all = filled(9);
        let ann = |at| all.judge(&user("ann"), at);
        assert_eq!([ann(Some(9)), ann(Some(10)), ann(None)], [Standing::Revoked; 3]);
        assert_eq!(ann(Some(11)), Standing::Good);
        assert_eq!(all.judge(&user("dora"), None), Standing::Good, "who was never revoked need not say when");
    }

    #[test]
    fn what_is_forgotten_leaves_only_old_tokens_in_doubt() {
        let all = filled(1);
        assert_eq!((all.len(), all.floor(), all.position()), (1, 2, 3));
        let stands = |name, at| all.judge(&user(name), at);
        assert_eq!(stands("ann", Some(31)), Standing::Good, "above all that was forgotten");
        assert_eq!([stands("ann", Some(30)), stands("dora", None)], [Standing::Unknown; 2]);
        assert_eq!([stands("carl", Some(20)), stands("carl", Some(21))], [Standing::Revoked, Standing::Good]);
    }

    #[test]
    fn a_later_one_of_a_user_takes_the_place_of_the_earlier() {
        let mut all = filled(9);
        all.add(revocation("ann", 40, 4));
        all.add(revocation("ann", 10, 1));
        assert_eq!((all.len(), all.judge(&user("ann"), Some(40))), (3, Standing::Revoked));
        all.read_up_to(4);
        let (page, more) = all.after(2, 9).expect("remembered");
        assert_eq!((page, more), (vec![revocation("carl", 20, 3), revocation("ann", 40, 4)], false));
    }

    #[test]
    fn a_page_ends_where_something_may_be_missing() {
        let mut all = filled(9);
        all.add(revocation("dora", 40, 6));
        assert_eq!(all.judge(&user("dora"), Some(40)), Standing::Revoked, "it counts at once");
        assert_eq!(all.after(3, 9), Some((vec![], false)));
        assert_eq!(all.after(7, 9), Some((vec![], false)), "a position of before a restore");
        let (page, more) = all.after(0, 2).expect("remembered");
        assert_eq!((page.len(), page[1].position, more), (2, 2, true));
        assert_eq!(filled(1).after(1, 9), None, "some are forgotten");
    }

    #[test]
    fn a_verdict_is_believed_from_where_all_is_remembered() {
        let all = filled(2);
        let verdict = |looked_at, name, at| all.judge_after(looked_at, &user(name), at);
        assert_eq!(verdict(0, "dora", Some(99)), Standing::Unknown);
        assert_eq!(verdict(1, "dora", None), Standing::Good);
        assert_eq!(verdict(0, "bob", Some(30)), Standing::Revoked);
        let unasked = Revocations::above(u64::MAX, 0, 2);
        assert_eq!(unasked.judge_after(7, &user("dora"), Some(1)), Standing::Unknown);
    }

    #[test]
    fn a_store_that_was_restored_is_read_again_and_nothing_is_let_in_for_it() {
        let mut all = filled(2);
        all.went_back_to(0);
        assert_eq!((all.position(), all.floor()), (0, 0));
        assert_eq!(all.judge(&user("carl"), Some(20)), Standing::Revoked);
    }
}
