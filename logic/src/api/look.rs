//! Looking: history, presence, rooms, what waits, and what answers here. Every page says whether there is more, and
//! where to go on. Reads take turns of their own among those of history, so that clients never wait for many of them.

use bytes::Bytes;
use serde_json::value::RawValue;
use sluice_cluster::{InstanceState, Service};
use sluice_proto::grpc::{Message, PresenceRequest, ReadRange, ReadRequest, RoomPage, presence_request};
use sluice_proto::ids::{Epoch, Key, RoomId, UserId};
use sluice_proto::limits::{
    BATCH_BYTES_MAX, BATCH_ITEMS_MAX, DATA_BYTES_MAX, MINTED_KEY_PREFIX, PAGE_MESSAGES_MAX, ROOM_BYTES_MAX,
};
use sluice_store::{RoomQuery, ScheduledQuery as StoreQuery};
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::Api;
use super::keys::ApiKey;
use super::problem::{Code, Problem};
use super::types::{
    History, HistoryQuery, Info, InstanceInfo, KeyInfo, Limits, Presence, PresenceQuery, PresentUser, Room,
    Rooms, RoomsQuery, ScheduledQuery, StoredMessage, WaitingMessage, WaitingMessages,
};
use crate::defaults::{API_PAGE, API_PAGE_MAX, API_TURN_WITHIN};

/// Which way a page goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// The newest below this position; `None`: of all.
    Before(Option<u64>),
    /// The oldest above.
    After(u64),
}

/// A page of messages as the store has it, with where the room stands.
pub(super) struct ReadPage {
    pub epoch: u64,
    pub oldest: u64,
    pub head: u64,
    pub messages: Vec<Message>,
}

impl Api {
    /// A page of a room.
    ///
    /// # Errors
    /// What is wrong with the question, or why it cannot be answered now.
    pub async fn history(&self, key: &ApiKey, query: HistoryQuery) -> Result<History, Problem> {
        let HistoryQuery { room, before, after, limit } = query;
        let room = RoomId::parse(&room)?;
        let limit = page_limit(limit, 1)?;
        key.may_read(&room)?;
        let mut direction = match (before, after) {
            (Some(_), Some(_)) => return Err(Problem::bad("say either before or after, not both")),
            (before, None) => Direction::Before(before),
            (None, Some(after)) => Direction::After(after),
        };
        let first = self.read(&room, direction, limit).await?;
        let (epoch, oldest, head) = (first.epoch, first.oldest, first.head);
        let (mut messages, mut page) = (Vec::new(), first.messages);
        let mut bytes = 0;
        loop {
            let (asked, got) = (limit - messages.len(), page.len());
            bytes += page.iter().map(|message| message.data.len()).sum::<usize>();
            // Where the next page begins; the store gives each oldest first.
            direction = match (direction, page.first(), page.last()) {
                (Direction::Before(_), Some(first), _) => Direction::Before(Some(first.seq)),
                (Direction::After(_), _, Some(last)) => Direction::After(last.seq),
                (same, ..) => same,
            };
            match direction {
                Direction::Before(_) => messages.splice(0..0, page).for_each(drop),
                Direction::After(_) => messages.extend(page),
            }
            // Fewer than a page holds: it was cut by its bytes, or the room ends there.
            if got < asked.min(PAGE_MESSAGES_MAX) || messages.len() >= limit || bytes >= BATCH_BYTES_MAX {
                break;
            }
            let next = self.read(&room, direction, limit - messages.len()).await?;
            // Another history, or what followed was removed meanwhile: the next question hears of it.
            let follows = match direction {
                Direction::After(after) => next.messages.first().is_none_or(|it| it.seq == after + 1),
                Direction::Before(before) => next.messages.last().is_none_or(|it| Some(it.seq + 1) == before),
            };
            if next.epoch != epoch || !follows {
                break;
            }
            page = next.messages;
        }
        let (before, after) = match direction {
            Direction::Before(Some(before)) => (Some(before).filter(|before| *before > oldest), None),
            Direction::Before(None) => (None, None),
            Direction::After(after) => (None, Some(after).filter(|after| *after < head)),
        };
        Ok(History {
            room: room.to_string(),
            epoch: Epoch(epoch).to_string(),
            oldest,
            head,
            more: !messages.is_empty() && (before.is_some() || after.is_some()),
            before: before.filter(|_| !messages.is_empty()),
            after: after.filter(|_| !messages.is_empty()),
            messages: messages.into_iter().map(stored_message).collect::<Result<_, _>>()?,
        })
    }

    async fn read(&self, room: &RoomId, direction: Direction, limit: usize) -> Result<ReadPage, Problem> {
        let limit = u32::try_from(limit.min(PAGE_MESSAGES_MAX)).unwrap_or(u32::MAX);
        let (after, before) = match direction {
            // Nothing is below the first position, and 0 would stand for all.
            Direction::Before(Some(0)) => (0, 1),
            Direction::Before(before) => (0, before.unwrap_or(u64::MAX)),
            Direction::After(after) => (after, 0),
        };
        let range = ReadRange { room: room.to_string(), after, before, limit };
        let _turn = self.read_turn().await?;
        let request = ReadRequest { ranges: vec![range], history: true };
        let mut reply = self.core()?.reader.read(request).await?;
        let page = reply.pages.pop().ok_or_else(|| Problem::new(Code::Internal, "the store gave no page"))?;
        let RoomPage { oldest, head, messages, .. } = page;
        Ok(ReadPage { epoch: reply.epoch, oldest, head, messages })
    }

    /// The oldest above a position.
    pub(super) async fn read_after(&self, room: &RoomId, after: u64) -> Result<ReadPage, Problem> {
        self.read(room, Direction::After(after), PAGE_MESSAGES_MAX).await
    }

    /// Who is in a room, or whether a user is connected.
    ///
    /// # Errors
    /// What is wrong with the question, or why it cannot be answered now.
    pub async fn presence(&self, key: &ApiKey, query: PresenceQuery) -> Result<Presence, Problem> {
        let PresenceQuery { room, user, after, limit } = query;
        let limit = page_limit(limit, 0)?;
        let of = match (room, user) {
            (Some(room), None) => {
                key.may_read(&RoomId::parse(&room)?)?;
                presence_request::Of::Room(room)
            }
            (None, Some(user)) => {
                // As for the room that addresses them: it is about this user alone.
                let own = RoomId::own_room_of(&UserId::parse(&user)?);
                key.may_read(&RoomId::parse(&own)?)?;
                presence_request::Of::User(user)
            }
            _ => return Err(Problem::bad("say of which room, or of which user: one of the two")),
        };
        let after = after.unwrap_or_default();
        // 0 would stand for as many as there may be.
        let asked = u32::try_from(limit.max(1)).unwrap_or(u32::MAX);
        let request = PresenceRequest { of: Some(of), limit: asked, after };
        let _turn = self.read_turn().await?;
        let mut reply = self.core()?.reports.present(request).await?;
        let more = reply.more || reply.users.len() > limit;
        reply.users.truncate(limit);
        let users = reply.users.into_iter().map(|present| PresentUser {
            user: present.user,
            connections: present.connections,
            since: present.since_ms,
            info: RawValue::from_string(present.info).ok(),
        });
        Ok(Presence { count: reply.count, connections: reply.connections, users: users.collect(), more })
    }

    /// Rooms by prefix.
    ///
    /// # Errors
    /// What is wrong with the question, or why it cannot be answered now.
    pub async fn rooms(&self, key: &ApiKey, query: RoomsQuery) -> Result<Rooms, Problem> {
        let RoomsQuery { prefix, after, limit } = query;
        let (prefix, after) = (prefix.unwrap_or_default(), after.unwrap_or_default());
        for (name, text) in [("prefix", &prefix), ("after", &after)] {
            if text.len() > ROOM_BYTES_MAX || text.chars().any(char::is_control) {
                return Err(Problem::bad(format!(
                    "{name} is no part of a room's name: at most {ROOM_BYTES_MAX} bytes, no control characters"
                )));
            }
        }
        let limit = u32::try_from(page_limit(limit, 1)?).unwrap_or(u32::MAX);
        key.may_list(&prefix)?;
        let list = {
            let _turn = self.read_turn().await?;
            self.core()?.reader.rooms(&RoomQuery { prefix, after, limit }).await?
        };
        let last = list.rooms.last().map(|summary| summary.room.to_string());
        // `*` covers all rooms but those of single users.
        let covered: Vec<_> =
            list.rooms.into_iter().filter(|summary| key.reads(summary.room.as_str())).collect();
        let names: Vec<RoomId> = covered.iter().map(|summary| summary.room.clone()).collect();
        let counts = self.core()?.reader.subscribers(&names).await;
        let room = |(at, summary): (usize, sluice_store::RoomSummary)| Room {
            room: summary.room.to_string(),
            head: summary.head,
            at: summary.at_ms,
            subscribers: counts.as_ref().and_then(|counts| counts.get(at).copied()),
        };
        Ok(Rooms {
            epoch: list.epoch.to_string(),
            rooms: covered.into_iter().enumerate().map(room).collect(),
            more: list.more,
            after: last.filter(|_| list.more),
        })
    }

    /// What waits in a room.
    ///
    /// # Errors
    /// What is wrong with the question, or why it cannot be answered now.
    pub async fn scheduled(&self, key: &ApiKey, query: ScheduledQuery) -> Result<WaitingMessages, Problem> {
        let ScheduledQuery { room, after_from, after_key, limit } = query;
        let room = RoomId::parse(&room)?;
        let limit = u32::try_from(page_limit(limit, 1)?).unwrap_or(u32::MAX);
        let after = match (after_from, after_key) {
            (Some(from), Some(key)) => Some((UserId::parse(&from)?, Key::parse(&key)?)),
            (None, None) => None,
            _ => return Err(Problem::bad("after_from and after_key need each other")),
        };
        // Whoever may schedule there may see what waits: nobody was sent it yet.
        key.may_publish(&room)?;
        let query = StoreQuery { room: room.clone(), after, limit, bytes_max: BATCH_BYTES_MAX };
        let list = {
            let _turn = self.read_turn().await?;
            self.core()?.reader.scheduled(&query).await?
        };
        let waiting = |message: sluice_store::ScheduledMessage| {
            Ok(WaitingMessage {
                from: message.sender.to_string(),
                key: message.key.to_string(),
                due: message.due_ms,
                data: raw(message.data)?,
            })
        };
        let messages = list.messages.into_iter().map(waiting).collect::<Result<_, Problem>>()?;
        Ok(WaitingMessages { room: room.to_string(), messages, more: list.more })
    }

    /// What answers here, and what the key may do.
    #[must_use]
    pub fn info(&self, key: &ApiKey) -> Info {
        let entry = key.entry();
        let mut instances: Vec<InstanceInfo> = Vec::new();
        for service in [Service::Gateway, Service::Logic, Service::Task] {
            instances.extend(self.view.borrow().of(service).map(|instance| InstanceInfo {
                instance: instance.id.to_string(),
                service: service.as_str(),
                state: match instance.state {
                    InstanceState::Serving => "serving",
                    InstanceState::Draining => "draining",
                },
                version: instance.version.clone(),
            }));
        }
        Info {
            version: env!("CARGO_PKG_VERSION"),
            instance: self.me.borrow().to_string(),
            epoch: format!("{:016x}", self.probe.epoch()),
            state: self.lifecycle.stage().state().as_str(),
            key: KeyInfo {
                name: entry.name.clone(),
                sub: entry.sub.clone(),
                publish: entry.publish.clone(),
                disconnect: entry.disconnect.clone(),
                expires: entry.expires_ms(),
            },
            limits: Limits {
                data_bytes: DATA_BYTES_MAX,
                batch_items: BATCH_ITEMS_MAX,
                batch_bytes: BATCH_BYTES_MAX,
                page: API_PAGE_MAX,
            },
            instances,
        }
    }

    /// A place among the reads of the API; in the order they came.
    async fn read_turn(&self) -> Result<SemaphorePermit<'_>, Problem> {
        match timeout(API_TURN_WITHIN, self.reads.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(Problem::new(Code::NotSent, "too many reads are under way")),
        }
    }
}

fn page_limit(limit: Option<u32>, min: u32) -> Result<usize, Problem> {
    let limit = limit.unwrap_or(API_PAGE);
    if !(min..=API_PAGE_MAX).contains(&limit) {
        return Err(Problem::bad(format!("limit is {limit}, it must be {min}…{API_PAGE_MAX}")));
    }
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// As a caller gets it: a key that a gateway minted is nobody's business.
pub(super) fn stored_message(message: Message) -> Result<StoredMessage, Problem> {
    Ok(StoredMessage {
        seq: message.seq,
        from: message.sender,
        key: Some(message.key).filter(|key| !key.starts_with(MINTED_KEY_PREFIX)),
        at: message.at_ms,
        data: raw(message.data)?,
    })
}

/// What was judged when it was stored.
fn raw(data: Bytes) -> Result<Box<RawValue>, Problem> {
    let broken = |error: &dyn std::fmt::Display| {
        Problem::new(Code::Internal, format!("a stored message is no JSON: {error}"))
    };
    let text = String::from_utf8(data.into()).map_err(|error| broken(&error))?;
    RawValue::from_string(text).map_err(|error| broken(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_a_size_and_minted_keys_are_not_shown() {
        assert_eq!((page_limit(None, 1), page_limit(Some(0), 0)), (Ok(100), Ok(0)));
        assert!(page_limit(Some(0), 1).is_err() && page_limit(Some(1_001), 0).is_err());
        let message = |key: &str, data: &'static str| {
            let (sender, key) = ("ann".to_owned(), key.to_owned());
            stored_message(Message {
                seq: 1,
                sender,
                key,
                at_ms: 2,
                data: Bytes::from_static(data.as_bytes()),
            })
        };
        assert_eq!(message("~0/1", "1").expect("good").key, None);
        let shown = serde_json::to_string(&message("k", r#"{"a": 1}"#).expect("good")).expect("JSON");
        assert_eq!(shown, r#"{"seq":1,"from":"ann","key":"k","at":2,"data":{"a": 1}}"#, "byte for byte");
        assert_eq!(message("k", "{").expect_err("broken").code, Code::Internal);
    }
}
