//! Who is connected and where: takes the gateways' reports over into Redis, answers who is there, removes
//! what gone instances left. Never writes "offline", and nothing promised to clients hangs on it.

#[cfg(feature = "seeded-bugs")]
mod early;

use std::sync::Arc;

use sluice_presence::{Change, Presence, Present, RoomEvent, Roster};
use sluice_proto::grpc::{
    ChangeKind, PresenceReply, PresenceRequest, PresentUser, ReapReply, ReapRequest, StatusChange,
    StatusReply, StatusRequest, TellLeavesReply, presence_request,
};
use sluice_proto::ids::{InstanceId, RoomId, UserId};
use sluice_proto::limits::{INFO_BYTES_MAX, NAME_BYTES_MAX, PAGE_INFO_BYTES_MAX};
use tokio::sync::Semaphore;

use crate::defaults::{PRESENCE_QUERIES_MAX, PRESENT_MAX, REAP_MAX};
use crate::error::CallError;
use crate::metrics::Metrics;
use crate::notices::Notices;
use crate::probe::Probe;

/// Says whether an instance is alive for certain, whatever the registry says.
pub type Alive = Box<dyn Fn(&InstanceId) -> bool + Send + Sync>;

/// Answers `ReportStatus`, `Presence`, `Reap` and `TellLeaves`.
pub struct PresenceService {
    presence: Arc<dyn Presence>,
    notices: Arc<Notices>,
    probe: Probe,
    alive: Alive,
    metrics: Metrics,
    queries: Semaphore,
}

impl PresenceService {
    /// Reports go into `presence`; what they bring about is told by `notices`.
    #[must_use]
    pub fn new(
        presence: Arc<dyn Presence>,
        notices: Arc<Notices>,
        probe: Probe,
        alive: Alive,
        metrics: Metrics,
    ) -> Self {
        let queries = Semaphore::new(PRESENCE_QUERIES_MAX);
        Self { presence, notices, probe, alive, metrics, queries }
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
        #[cfg(feature = "seeded-bugs")]
        self.tell(early::leaves(&request.changes));
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
            None => {
                let applied = self.presence.apply(&instance, &changes).await;
                // Also of a part of it: sent again, they are no news.
                self.tell(applied.joins);
                applied.stored
            }
        };
        if let Err(error) = &stored {
            self.metrics.presence_failures.inc();
            tracing::debug!(%error, %instance, "A status report was not stored; the gateway says it again.");
        }
        let (epoch, marker) = (self.probe.epoch(), self.probe.marker());
        Ok(StatusReply { epoch, marker, stored: stored.is_ok(), gone: false })
    }

    fn tell(&self, events: Vec<RoomEvent>) {
        if !events.is_empty() {
            self.notices.tell(self.probe.epoch(), events);
        }
    }

    /// Tells leaves whose grace is over.
    ///
    /// # Errors
    /// Redis.
    pub async fn tell_leaves(&self) -> Result<TellLeavesReply, CallError> {
        let due = self.presence.due_leaves().await?;
        let told = u32::try_from(due.events.len()).unwrap_or(u32::MAX);
        self.tell(due.events);
        Ok(TellLeavesReply { told, more: due.more })
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
        let all = users.len();
        let users: Vec<PresentUser> = bounded(users).into_iter().map(present_user).collect();
        let more = more || users.len() < all;
        Ok(PresenceReply { users, count, connections, more })
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

/// As many of the first as a page has room for by what is said of them.
fn bounded(mut users: Vec<Present>) -> Vec<Present> {
    let mut bytes = 0;
    let mut fits = |present: &Present| {
        bytes += present.info.len();
        bytes <= PAGE_INFO_BYTES_MAX
    };
    // At least one, whatever a logic of another version took from a token.
    let fitting = users.iter().map_while(|present| Some(present).filter(|present| fits(present))).count();
    users.truncate(fitting.max(1));
    users
}

fn present_user(present: Present) -> PresentUser {
    PresentUser {
        user: present.user.as_str().to_owned(),
        connections: present.connections,
        since_ms: present.since_ms,
        info: present.info,
    }
}

/// `None` for what makes no sense.
fn change(change: StatusChange) -> Option<Change> {
    let kind = change.kind();
    let StatusChange { connection, user, room, since_ms, goodbye, info, watches, .. } = change;
    let named = (1..=NAME_BYTES_MAX).contains(&connection.len()) && !connection.chars().any(char::is_control);
    let of_connection = !matches!(kind, ChangeKind::InterestAdded | ChangeKind::InterestRemoved);
    // Part of names in Redis, where a line break parts them.
    if (of_connection && !named) || info.len() > INFO_BYTES_MAX {
        return None;
    }
    let user = || UserId::parse(&user).ok();
    let room = || RoomId::parse(&room).ok();
    Some(match kind {
        ChangeKind::None => return None,
        ChangeKind::Connected => Change::Connected { user: user()?, connection, since_ms, info },
        ChangeKind::Disconnected => Change::Disconnected { user: user()?, connection },
        ChangeKind::Joined => Change::Joined { user: user()?, room: room()?, connection, since_ms, watches },
        ChangeKind::Left => Change::Left { room: room()?, connection, goodbye },
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
            Some(Change::Left { connection: "c".into(), room, goodbye: false })
        );
        let long = "c".repeat(NAME_BYTES_MAX + 1);
        for connection in ["", "a\nb", &long] {
            let change_of =
                StatusChange { room: "news".into(), connection: connection.into(), ..left.clone() };
            assert_eq!(change(change_of), None, "{connection:?}");
        }
        let says = |bytes| StatusChange {
            kind: ChangeKind::Connected.into(),
            connection: "c".into(),
            user: "ann".into(),
            info: "1".repeat(bytes),
            ..Default::default()
        };
        assert!(change(says(INFO_BYTES_MAX)).is_some() && change(says(INFO_BYTES_MAX + 1)).is_none());
        assert_eq!(change(StatusChange { kind: 99, room: "news".into(), ..Default::default() }), None);
    }

    #[test]
    fn a_page_also_ends_by_what_is_said_of_its_users() {
        let users = |info: usize, count: usize| {
            let user = |n| UserId::parse(&format!("u{n}")).expect("valid");
            let one = |n| Present { user: user(n), connections: 1, since_ms: 1, info: "1".repeat(info) };
            bounded((0..count).map(one).collect()).len()
        };
        assert_eq!(users(0, 1_000), 1_000);
        assert_eq!(users(INFO_BYTES_MAX, 1_000), PAGE_INFO_BYTES_MAX / INFO_BYTES_MAX);
        assert_eq!((users(PAGE_INFO_BYTES_MAX + 1, 3), users(5, 0)), (1, 0), "one at least");
    }
}
