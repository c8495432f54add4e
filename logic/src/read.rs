//! Reads for gateways: pages, heads, and the first look at a room. Never on the connections of the
//! commits, never more at once than [`READS_MAX`], and [`HISTORY_READS_MAX`] of history beside them.
//!
//! Whoever asked and has left is not read for: its call is dropped, while it waits and while the store works.

use std::sync::Arc;

use sluice_presence::Presence;
use sluice_proto::grpc::{
    HeadsReply, Message, ReadRange, ReadReply, ReadRequest, RoomPage, SubscribeReply, SubscribeRequest,
};
use sluice_proto::ids::{InstanceId, RoomId};
use sluice_proto::limits::{BATCH_BYTES_MAX, PAGE_MESSAGES_MAX, RANGES_PER_CALL_MAX, ROOMS_PER_CALL_MAX};
use sluice_store::{
    Heads, Page, Range, RoomList, RoomQuery, ScheduledList, ScheduledQuery, Store, StoredMessage,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::defaults::{HISTORY_READS_MAX, READ_TURN_WITHIN, READS_MAX};
use crate::error::CallError;
use crate::metrics::{Metrics, ReadKind};
use crate::probe::Probe;

/// Answers `Read`, `Heads` and `Subscribe`.
pub struct Reader {
    store: Arc<dyn Store>,
    presence: Arc<dyn Presence>,
    probe: Probe,
    rooms: Semaphore,
    history: Semaphore,
    metrics: Metrics,
}

impl Reader {
    /// A reader over these parts.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, presence: Arc<dyn Presence>, probe: Probe, metrics: Metrics) -> Self {
        let (rooms, history) = (Semaphore::new(READS_MAX), Semaphore::new(HISTORY_READS_MAX));
        Self { store, presence, probe, rooms, history, metrics }
    }

    /// One page per range, in order.
    ///
    /// # Errors
    /// A malformed request, or the store.
    pub async fn read(&self, request: ReadRequest) -> Result<ReadReply, CallError> {
        let asked = request.ranges.len();
        if !(1..=RANGES_PER_CALL_MAX).contains(&asked) {
            return Err(CallError::Invalid(format!("{asked} ranges, it must be 1…{RANGES_PER_CALL_MAX}")));
        }
        let ranges = request.ranges.iter().map(range).collect::<Result<Vec<_>, _>>()?;
        let kind = if request.history { ReadKind::History } else { ReadKind::Room };
        let _turn = self.turn(kind).await?;
        let pages = self.store.read(&ranges, BATCH_BYTES_MAX).await?;
        self.probe.saw_epoch(pages.epoch);
        let pages_out =
            pages.pages.into_iter().zip(&ranges).map(|(page, range)| room_page(page, range.after));
        Ok(ReadReply { epoch: pages.epoch.0, pages: pages_out.collect() })
    }

    /// Heads of rooms, in order.
    ///
    /// # Errors
    /// A malformed request, or the store.
    pub async fn heads(&self, rooms: &[String]) -> Result<HeadsReply, CallError> {
        let heads = self.heads_of(&parse_rooms(rooms)?).await?;
        Ok(HeadsReply { epoch: heads.epoch.0, marker: self.probe.marker(), heads: heads.heads })
    }

    /// Stores interest first and reads the heads then: what is committed in between is pushed, what was
    /// before is below the head. Without Redis the room opens all the same and lives on repair.
    ///
    /// # Errors
    /// A malformed request, or the store.
    pub async fn subscribe(&self, request: SubscribeRequest) -> Result<SubscribeReply, CallError> {
        let instance = InstanceId::parse(&request.instance)?;
        let rooms = parse_rooms(&request.rooms)?;
        // Interest before heads: a message committed between the two is pushed, one before it is
        // below the head.
        let interest = self.presence.add_interest(&instance, &rooms).await;
        // Not an error of the call: the room opens and lives on repair until interest is stored.
        if let Err(error) = &interest {
            self.metrics.presence_failures.inc();
            tracing::debug!(%error, rooms = rooms.len(), "Interest was not stored; the gateway says it again.");
        }
        // After the interest, never beside it.
        let heads = self.heads_of(&rooms).await?;
        Ok(SubscribeReply {
            epoch: heads.epoch.0,
            marker: self.probe.marker(),
            heads: heads.heads,
            interest_stored: interest.is_ok(),
        })
    }

    /// Rooms by prefix; a read of history.
    ///
    /// # Errors
    /// The store, or too many reads.
    pub async fn rooms(&self, query: &RoomQuery) -> Result<RoomList, CallError> {
        let _turn = self.turn(ReadKind::History).await?;
        let list = self.store.rooms(query).await?;
        self.probe.saw_epoch(list.epoch);
        Ok(list)
    }

    /// What waits in a room; a read of history.
    ///
    /// # Errors
    /// The store, or too many reads.
    pub async fn scheduled(&self, query: &ScheduledQuery) -> Result<ScheduledList, CallError> {
        let _turn = self.turn(ReadKind::History).await?;
        Ok(self.store.scheduled(query).await?)
    }

    /// How many connections each of these rooms has; `None` while Redis does not say.
    pub async fn subscribers(&self, rooms: &[RoomId]) -> Option<Vec<u64>> {
        let counted = self.presence.subscribers(rooms).await;
        if let Err(error) = &counted {
            self.metrics.presence_failures.inc();
            tracing::debug!(%error, "Redis does not say how many subscribe to rooms.");
        }
        counted.ok().filter(|counts| counts.len() == rooms.len())
    }

    /// Waits for a place among the reads of a kind; neither kind can take those of the other.
    async fn turn(&self, kind: ReadKind) -> Result<SemaphorePermit<'_>, CallError> {
        let permits = match kind {
            ReadKind::Room => &self.rooms,
            ReadKind::History => &self.history,
        };
        match timeout(READ_TURN_WITHIN, permits.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => {
                self.metrics.read_refused(kind).inc();
                let waited = READ_TURN_WITHIN.as_millis();
                Err(CallError::Full(format!(
                    "too many reads of this kind: none of them ended in {waited} ms"
                )))
            }
        }
    }

    async fn heads_of(&self, rooms: &[RoomId]) -> Result<Heads, CallError> {
        let _turn = self.turn(ReadKind::Room).await?;
        let heads = self.store.heads(rooms).await?;
        self.probe.saw_epoch(heads.epoch);
        Ok(heads)
    }
}

fn parse_rooms(rooms: &[String]) -> Result<Vec<RoomId>, CallError> {
    if rooms.len() > ROOMS_PER_CALL_MAX {
        let text = format!("{} rooms, at most {ROOMS_PER_CALL_MAX} are allowed", rooms.len());
        return Err(CallError::Invalid(text));
    }
    Ok(rooms.iter().map(|room| RoomId::parse(room)).collect::<Result<_, _>>()?)
}

fn range(range: &ReadRange) -> Result<Range, CallError> {
    let limit = if range.limit == 0 { PAGE_MESSAGES_MAX } else { range.limit as usize };
    if limit > PAGE_MESSAGES_MAX {
        return Err(CallError::Invalid(format!("limit is {limit}, at most {PAGE_MESSAGES_MAX} are allowed")));
    }
    Ok(Range {
        room: RoomId::parse(&range.room)?,
        after: range.after,
        before: (range.before > 0).then_some(range.before),
        limit: u32::try_from(limit).unwrap_or(u32::MAX),
    })
}

fn room_page(page: Page, after: u64) -> RoomPage {
    RoomPage {
        room: page.room.as_str().to_owned(),
        after,
        oldest: page.oldest,
        head: page.head,
        messages: page.messages.into_iter().map(message).collect(),
        deferred: page.deferred,
    }
}

fn message(message: StoredMessage) -> Message {
    Message {
        seq: message.seq,
        sender: message.sender.as_str().to_owned(),
        key: message.key.as_str().to_owned(),
        at_ms: message.at_ms,
        data: message.data,
    }
}
