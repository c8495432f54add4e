//! What logic ends here: connections of a user, subscriptions, and whoever came with a token that is revoked. Finds out
//! whether it concerns anybody here at all; the shards do it.

pub mod untold;

use std::sync::Arc;

use sluice_proto::grpc::{DisconnectReply, DisconnectRequest, UnsubscribeReply, UnsubscribeRequest};
use sluice_proto::ids::{InvalidName, RoomId, SessionId, UserId};
use sluice_proto::revocation::Revocation;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::Status;

use crate::defaults::{DISCONNECTS_MAX, REMOVE_WITHIN};
use crate::shard::handle::Shards;
use crate::shard::removals::{Removal, Removals, Removed};
use crate::shard::shared::Shared;

/// Ends connections and subscriptions; clones share it.
#[derive(Debug, Clone)]
pub struct Disconnects {
    shared: Arc<Shared>,
    shards: Shards,
    permits: Arc<Semaphore>,
}

impl Disconnects {
    /// In these shards.
    #[must_use]
    pub fn new(shared: Arc<Shared>, shards: Shards) -> Self {
        Self { shared, shards, permits: Arc::new(Semaphore::new(DISCONNECTS_MAX)) }
    }

    /// Ends connections of a user.
    ///
    /// # Errors
    /// The request makes no sense, too many are under way, or a shard did not do it in time: to be made again.
    pub async fn disconnect(&self, request: DisconnectRequest) -> Result<DisconnectReply, Status> {
        let user = UserId::parse(&request.user).map_err(invalid)?;
        let what = match request.revocation {
            None => Removed::Connection,
            Some(revocation) => {
                let revocation = Revocation::try_from(revocation).map_err(invalid)?;
                if revocation.user != user {
                    return Err(Status::invalid_argument("the revocation is of another user"));
                }
                let issued_until_s = revocation.issued_until_s;
                // First: who is let in from now on is looked for there.
                self.shared.revoked.add(revocation);
                Removed::Revoked { issued_until_s }
            }
        };
        let connections = self.remove_one(user, session(&request.session)?, what).await?;
        Ok(DisconnectReply { connections })
    }

    /// Ends subscriptions of a user.
    ///
    /// # Errors
    /// As of [`Disconnects::disconnect`].
    pub async fn unsubscribe(&self, request: UnsubscribeRequest) -> Result<UnsubscribeReply, Status> {
        let user = UserId::parse(&request.user).map_err(invalid)?;
        let room = (!request.room.is_empty()).then(|| RoomId::parse(&request.room)).transpose();
        let what = Removed::Subscriptions(room.map_err(invalid)?);
        let subscriptions = self.remove_one(user, session(&request.session)?, what).await?;
        Ok(UnsubscribeReply { subscriptions })
    }

    async fn remove_one(
        &self,
        user: UserId,
        session: Option<SessionId>,
        what: Removed,
    ) -> Result<u32, Status> {
        let _permit =
            self.permits.try_acquire().map_err(|_| Status::resource_exhausted("too many at once"))?;
        let removals = Removals::from_iter([(user, Removal { session, what })]);
        self.remove(removals).await.ok_or_else(|| Status::unavailable("a shard did not answer in time"))
    }

    /// Ends whoever came with one of these tokens; whether that was done in time.
    async fn end_revoked(&self, revocations: Vec<Revocation>) -> bool {
        let removal = |revocation: Revocation| {
            let what = Removed::Revoked { issued_until_s: revocation.issued_until_s };
            (revocation.user, Removal { session: None, what })
        };
        self.remove(revocations.into_iter().map(removal).collect()).await.is_some()
    }

    /// How many of what was to be ended there were; `None`: not in time.
    async fn remove(&self, mut removals: Removals) -> Option<u32> {
        // All connections have to be looked at: only where there is one. A client takes its place as this user before it is
        // held against what is revoked, so none is overlooked.
        removals.retain(|user| self.shared.usages.is_here(user));
        if removals.is_empty() {
            return Some(0);
        }
        timeout(REMOVE_WITHIN, self.shards.remove(Arc::new(removals))).await.ok()
    }
}

fn session(text: &str) -> Result<Option<SessionId>, Status> {
    match text {
        "" => Ok(None),
        text => SessionId::parse(text).map(Some).ok_or_else(|| Status::invalid_argument("no session id")),
    }
}

fn invalid(error: InvalidName) -> Status {
    Status::invalid_argument(error.to_string())
}
