//! Who is connected and where: takes the gateways' reports over into Redis, answers who is there, removes
//! what gone instances left. Never writes "offline", and nothing promised to clients hangs on it.

use std::sync::Arc;

use sluice_presence::{Change, Presence, Present, Roster};
use sluice_proto::grpc::{
    ChangeKind, PresenceReply, PresenceRequest, PresentUser, ReapReply, ReapRequest, StatusChange,
    StatusReply, StatusRequest, presence_request,
};
use sluice_proto::ids::{InstanceId, RoomId, UserId};
use sluice_proto::limits::NAME_BYTES_MAX;
use tokio::sync::Semaphore;

use crate::defaults::{PRESENCE_QUERIES_MAX, PRESENT_MAX, REAP_MAX};
use crate::error::CallError;
use crate::metrics::Metrics;
use crate::probe::Probe;

/// Says whether an instance is alive for certain, whatever the registry says.
pub type Alive = Box<dyn Fn(&InstanceId) -> bool + Send + Sync>;

/// Answers `ReportStatus`, `Presence` and `Reap`.
pub struct PresenceService {
    presence: Arc<dyn Presence>,
    probe: Probe,
    alive: Alive,
    metrics: Metrics,
    queries: Semaphore,
}

impl PresenceService {
    /// Reports go into `presence`.
    #[must_use]
    pub fn new(presence: Arc<dyn Presence>, probe: Probe, alive: Alive, metrics: Metrics) -> Self {
        let queries = Semaphore::new(PRESENCE_QUERIES_MAX);
        Self { presence, probe, alive, metrics, queries }
    }

    /// Applies a report; `stored` is false when Redis did not take it.
    ///
    /// # Errors
    /// Only a malformed instance id.
    pub async fn report(&self, request: StatusRequest) -> Result<StatusReply, CallError> {
        let instance = InstanceId::parse(&request.instance)?;
        if request.gone {
            return Ok(self.goodbye(&instance).await);
        }
        let all = request.changes.len();
        let changes: Vec<Change> = request.changes.into_iter().filter_map(change).collect();
        if changes.len() < all {
            // Refusing the report would make the gateway repeat it for ever.
            self.metrics.changes_ignored.inc_by((all - changes.len()) as u64);
            tracing::warn!(%instance, ignored = all - changes.len(), "A status report holds malformed changes.");
        }
        let stored = match request.full {
            // Also without changes: the part that ends a full set removes what it did not name.
            Some(full) => self.presence.full_set(&instance, full.generation, &changes, full.last).await,
            None if changes.is_empty() => Ok(()),
            // Leaves become frames for subscribers when such frames exist.
            None => self.presence.apply(&instance, &changes).await.map(|_leaves| ()),
        };
        if let Err(error) = &stored {
            self.metrics.presence_failures.inc();
            tracing::debug!(%error, %instance, "A status report was not stored; the gateway says it again.");
        }
        let (epoch, marker) = (self.probe.epoch(), self.probe.marker());
        Ok(StatusReply { epoch, marker, stored: stored.is_ok(), gone: false })
    }

    /// An instance ends and says so itself: nobody has to wait until its lease has run out and it is reaped.
    async fn goodbye(&self, instance: &InstanceId) -> StatusReply {
        let gone = self.presence.goodbye(instance).await;
        if let Err(error) = &gone {
            self.metrics.presence_failures.inc();
            tracing::debug!(%error, %instance, "A goodbye was not stored; what the instance has is reaped.");
        }
        let (epoch, marker) = (self.probe.epoch(), self.probe.marker());
        StatusReply { epoch, marker, stored: gone.is_ok(), gone: gone.is_ok() }
    }

    /// Who is in a room, or whether a user is connected.
    ///
    /// # Errors
    /// A malformed request, or Redis.
    pub async fn present(&self, request: PresenceRequest) -> Result<PresenceReply, CallError> {
        let limit = if request.limit == 0 { PRESENT_MAX } else { (request.limit as usize).min(PRESENT_MAX) };
        // Whoever has stopped waiting is dropped with its place in the queue.
        let _permit = self.queries.acquire().await;
        let roster = match request.of {
            Some(presence_request::Of::Room(room)) => {
                let after = (!request.after.is_empty()).then(|| UserId::parse(&request.after)).transpose()?;
                self.presence.room(&RoomId::parse(&room)?, after.as_ref(), limit).await?
            }
            Some(presence_request::Of::User(user)) => {
                let found = self.presence.user(&UserId::parse(&user)?).await?;
                let connections = found.as_ref().map_or(0, |present| present.connections);
                let count = u32::from(found.is_some());
                Roster { users: found.into_iter().collect(), count, connections, more: false }
            }
            None => return Err(CallError::Invalid("say of which room or user".into())),
        };
        let Roster { users, count, connections, more } = roster;
        Ok(PresenceReply { users: users.into_iter().map(present_user).collect(), count, connections, more })
    }

    /// Removes what gone instances left. One that is alive for certain is left alone.
    ///
    /// # Errors
    /// A malformed request, or Redis: what was removed before that stays removed.
    pub async fn reap(&self, request: ReapRequest) -> Result<ReapReply, CallError> {
        if request.gone.len() > REAP_MAX {
            let text = format!("{} instances, at most {REAP_MAX} are allowed", request.gone.len());
            return Err(CallError::Invalid(text));
        }
        let mut fields_removed = 0;
        for gone in &request.gone {
            let gone = InstanceId::parse(gone)?;
            // The task's registry may be behind ours: what is connected here lives (C3).
            if (self.alive)(&gone) {
                tracing::warn!(gone = %gone, "An instance said to be gone is connected here; it is not reaped.");
                continue;
            }
            fields_removed += self.presence.reap(&gone).await?;
        }
        Ok(ReapReply { fields_removed })
    }
}

fn present_user(present: Present) -> PresentUser {
    PresentUser {
        user: present.user.as_str().to_owned(),
        connections: present.connections,
        since_ms: present.since_ms,
    }
}

/// `None` for what makes no sense.
fn change(change: StatusChange) -> Option<Change> {
    let kind = change.kind();
    let StatusChange { connection, user, room, since_ms, goodbye, .. } = change;
    let named = (1..=NAME_BYTES_MAX).contains(&connection.len()) && !connection.chars().any(char::is_control);
    let of_connection = !matches!(kind, ChangeKind::InterestAdded | ChangeKind::InterestRemoved);
    // Part of names in Redis, where a line break parts them.
    if of_connection && !named {
        return None;
    }
    let user = || UserId::parse(&user).ok();
    let room = || RoomId::parse(&room).ok();
    Some(match kind {
        ChangeKind::None => return None,
        ChangeKind::Connected => Change::Connected { user: user()?, connection, since_ms },
        ChangeKind::Disconnected => Change::Disconnected { user: user()?, connection, goodbye },
        ChangeKind::Joined => Change::Joined { user: user()?, room: room()?, connection, since_ms },
        ChangeKind::Left => Change::Left { room: room()?, connection },
        ChangeKind::InterestAdded => Change::InterestAdded(room()?),
        ChangeKind::InterestRemoved => Change::InterestRemoved(room()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_without_their_names_are_ignored() {
        let left =
            StatusChange { kind: ChangeKind::Left.into(), connection: "c".into(), ..Default::default() };
        assert_eq!(change(left.clone()), None);
        let room = RoomId::parse("news").expect("valid");
        assert_eq!(
            change(StatusChange { room: "news".into(), ..left.clone() }),
            Some(Change::Left { connection: "c".into(), room })
        );
        let long = "c".repeat(NAME_BYTES_MAX + 1);
        for connection in ["", "a\nb", &long] {
            let change_of =
                StatusChange { room: "news".into(), connection: connection.into(), ..left.clone() };
            assert_eq!(change(change_of), None, "{connection:?}");
        }
        assert_eq!(change(StatusChange { kind: 99, room: "news".into(), ..Default::default() }), None);
    }
}
