//! Which tokens are revoked, as far as a gateway has to know: what was revoked while its clients are here. A logic tells of
//! a revocation when it is made; any logic is asked for those that nobody told of. A logic may be behind with what it has
//! read from the store, so its verdict on a token is held against what is known here, and one that looked at less than is
//! remembered here is not believed.

use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluice_proto::grpc::RevocationsReply;
use sluice_proto::ids::{InvalidName, UserId};
use sluice_proto::revocation::{Revocation, Revocations, Standing};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::calls::Authenticated;
use crate::defaults::REVOCATIONS_KNOWN_MAX;

/// Revoked tokens, as all shards look at them: once when a client is known.
#[derive(Debug)]
pub struct RevokedTokens {
    known: Mutex<Known>,
    /// Whether it is known where to begin: before that no verdict is believed.
    begun: watch::Sender<bool>,
}

#[derive(Debug)]
struct Known {
    /// Of the last answer.
    epoch: u64,
    revocations: Revocations,
}

impl Default for RevokedTokens {
    fn default() -> Self {
        let revocations = Revocations::above(u64::MAX, 0, REVOCATIONS_KNOWN_MAX);
        Self { known: Mutex::new(Known { epoch: 0, revocations }), begun: watch::Sender::new(false) }
    }
}

impl RevokedTokens {
    /// Whether a token of this user that was issued then is known to be revoked.
    #[must_use]
    pub fn refuses(&self, user: &UserId, issued_at_s: Option<NonZero<u32>>) -> bool {
        let known = self.known();
        !known.revocations.is_empty()
            && known.revocations.judge_after(u64::MAX, user, issued_at_s.map(NonZero::get))
                == Standing::Revoked
    }

    /// Whether who gave this verdict had looked at all revocations that are not remembered here. A logic of the version
    /// before has looked at none, and nothing better can be had from it.
    #[must_use]
    pub fn believes(&self, verdict: &Authenticated) -> bool {
        match verdict {
            Authenticated::Known(known) => {
                known.revocations.is_none_or(|looked_at| looked_at >= self.known().revocations.floor())
            }
            Authenticated::Invalid(_) | Authenticated::Unavailable => true,
        }
    }

    /// A logic told of one.
    pub fn add(&self, revocation: Revocation) {
        self.known().revocations.add(revocation);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After which position to ask.
    pub(crate) fn after(&self) -> Option<u64> {
        self.begun.borrow().then(|| self.known().revocations.position())
    }

    /// Waits until it is known where to begin, so long at most.
    pub async fn begun(&self, within: Duration) {
        // The sender is here: it ends by the time alone.
        drop(timeout(within, self.begun.subscribe().wait_for(|begun| *begun)).await);
    }

    /// It is known now, unless it was.
    pub(crate) fn begin_at(&self, position: u64) {
        if !*self.begun.borrow() {
            self.known().revocations.went_back_to(position);
            self.begun.send_replace(true);
        }
    }

    /// Takes an answer over, but for how far it goes: that counts when it was carried out.
    pub(crate) fn take(&self, reply: RevocationsReply) -> Result<Vec<Revocation>, InvalidName> {
        let new = reply.revocations.into_iter().map(Revocation::try_from).collect::<Result<Vec<_>, _>>()?;
        let mut known = self.known();
        let before = std::mem::replace(&mut known.epoch, reply.epoch);
        // Another history with fewer of them: a store that was restored. A logic that is merely behind has the same epoch.
        if before != reply.epoch && reply.position < known.revocations.position() {
            known.revocations.went_back_to(reply.position);
        }
        new.iter().cloned().for_each(|revocation| known.revocations.add(revocation));
        Ok(new)
    }

    /// Whatever was revoked up to there is ended here.
    pub(crate) fn carried_out(&self, position: u64) {
        self.known().revocations.read_up_to(position);
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::grpc::AuthenticateReply;

    use super::*;

    fn ann() -> UserId {
        UserId::parse("ann").expect("valid")
    }

    fn reply(epoch: u64, position: u64, of_ann: bool) -> RevocationsReply {
        let ann = Revocation { user: ann(), issued_until_s: 10, position };
        let revocations = of_ann.then(|| ann.into()).into_iter().collect();
        RevocationsReply { epoch, position, revocations, more: false }
    }

    fn verdict(looked_at: Option<u64>) -> Authenticated {
        Authenticated::Known(AuthenticateReply { revocations: looked_at, ..AuthenticateReply::default() })
    }

    #[test]
    fn no_verdict_is_believed_that_looked_at_less_than_is_remembered_here() {
        let revoked = RevokedTokens::default();
        assert!(!revoked.believes(&verdict(Some(7))), "nobody was asked yet");
        assert!(revoked.believes(&verdict(None)), "a logic of the version before");
        revoked.begin_at(7);
        assert_eq!(revoked.after(), Some(7));
        let believed = [6, 7, 8].map(|looked_at| revoked.believes(&verdict(Some(looked_at))));
        assert_eq!(believed, [false, true, true]);
    }

    #[test]
    fn what_was_told_before_the_first_answer_counts() {
        let revoked = RevokedTokens::default();
        revoked.add(Revocation { user: ann(), issued_until_s: 10, position: 8 });
        revoked.begin_at(7);
        assert_eq!(revoked.after(), Some(7), "others may be before it");
        let refused = [NonZero::new(10), NonZero::new(11), None].map(|at| revoked.refuses(&ann(), at));
        assert_eq!(refused, [true, false, true]);
    }

    #[test]
    fn a_logic_that_is_behind_takes_nothing_back_and_a_restored_store_is_read_again() {
        let revoked = RevokedTokens::default();
        revoked.begin_at(0);
        assert_eq!(revoked.take(reply(1, 9, true)).map(|new| new.len()), Ok(1));
        assert_eq!(revoked.after(), Some(0), "not carried out yet");
        revoked.carried_out(9);
        revoked.take(reply(1, 4, false)).expect("valid");
        revoked.carried_out(4);
        assert_eq!(revoked.after(), Some(9));
        revoked.take(reply(2, 4, false)).expect("valid");
        assert_eq!(revoked.after(), Some(4));
        assert!(revoked.refuses(&ann(), NonZero::new(10)), "nobody is let in for that");
    }
}
