//! Publishing for callers of the API: judged like what a client sends, then committed where gateways' publishes are, by
//! the same lanes and groups. Nothing is tried again here: callers have the keys that make that safe.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::join_all;
use sluice_proto::grpc::delayed_item::When as GrpcWhen;
use sluice_proto::grpc::{DelayedItem, ItemTrace, Outcome, PublishItem, PublishRequest, PublishResult};
use sluice_proto::ids::{Key, RoomId, SessionId, UserId};
use sluice_proto::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, DELAY_MS_MAX};
use sluice_store::WaitingLimit;
use sluice_trace::{Kind, Parent, ROOM, SEQ, Span};
use tokio::time::{Instant, timeout};

use super::Api;
use super::keys::ApiKey;
use super::problem::{Code, Problem, code_of_wire};
use crate::defaults::{API_LANE_ITEMS_MAX, API_TURN_WITHIN, CALL_WITHIN, ITEM_COST_MIN};
use crate::rpc::Core;

/// When a message is to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At once.
    Now,
    /// So many milliseconds after it is stored.
    In(u64),
    /// Then, milliseconds since 1970.
    At(i64),
    /// Not at all: it is taken back.
    Never,
}

impl When {
    /// By what a call says.
    ///
    /// # Errors
    /// Both are said.
    pub fn of(delay_ms: Option<u64>, at: Option<i64>) -> Result<Self, Problem> {
        match (delay_ms, at) {
            (None, None) => Ok(Self::Now),
            (Some(ms), None) => Ok(Self::In(ms)),
            (None, Some(ms)) => Ok(Self::At(ms)),
            (Some(_), Some(_)) => Err(Problem::bad("say either delay_ms or at, not both")),
        }
    }

    fn judge(self, now_ms: i64) -> Result<(), Problem> {
        let far = |ms: u64| ms > DELAY_MS_MAX;
        let wrong = match self {
            Self::In(ms) => far(ms),
            Self::At(ms) => ms < 0 || u64::try_from(ms.saturating_sub(now_ms)).is_ok_and(far),
            Self::Now | Self::Never => false,
        };
        if wrong {
            return Err(Problem::bad(format!(
                "the time is out of range: at most {DELAY_MS_MAX} ms (30 days) ahead are allowed"
            )));
        }
        Ok(())
    }
}

/// A message as a caller has it.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The room.
    pub room: String,
    /// The JSON text.
    pub data: Bytes,
    /// The idempotency key.
    pub key: Option<String>,
    /// Who sends it.
    pub from: Option<String>,
    /// When.
    pub when: When,
    /// What it is a part of.
    pub parent: Parent,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// It is committed.
    Published {
        /// Its position.
        seq: u64,
        /// Whether it was there before.
        duplicate: bool,
        /// What the position belongs to.
        epoch: u64,
    },
    /// It waits.
    Scheduled {
        /// Until then.
        due_ms: i64,
    },
    /// It was taken back, or there is nothing to take back.
    Cancelled(bool),
}

/// The answer to one draft, with the key it was sent with.
pub type SentItem = Result<(Key, Sent), Problem>;

/// A draft that is valid, with its place among those of the call.
struct Judged {
    place: usize,
    room: RoomId,
    sender: UserId,
    key: Key,
    data: Bytes,
    when: When,
    /// Until it is answered, if it is traced.
    span: Span,
}

impl Api {
    /// Answers each of the drafts, in order.
    ///
    /// # Errors
    /// Nothing of it was looked at.
    pub async fn send(&self, key: &ApiKey, drafts: Vec<Draft>) -> Result<Vec<SentItem>, Problem> {
        let core = self.core()?;
        let (session, now_ms) = (SessionId::fresh(), self.clock.now_ms());
        let mut answers: Vec<SentItem> = Vec::with_capacity(drafts.len());
        let mut lanes = BTreeMap::<u8, Vec<Judged>>::new();
        for (place, draft) in drafts.into_iter().enumerate() {
            let parent = draft.parent;
            match judge(key, draft, place, session, now_ms) {
                Ok(mut judged) => {
                    judged.span = self.tracer.entry("api publish", Kind::Server, parent);
                    judged.span.text(ROOM, judged.room.as_str());
                    // What nobody answers is unknown.
                    answers.push(Err(unknown()));
                    lanes.entry(judged.room.lane()).or_default().push(judged);
                }
                Err(problem) => answers.push(Err(problem)),
            }
        }
        let limit = WaitingLimit { max: self.scheduled_max, api_key: Some(key.name().into()) };
        let sent = lanes.into_iter().map(|(lane, items)| self.send_lane(core, &limit, lane, items));
        for (place, answer) in join_all(sent).await.into_iter().flatten() {
            answers[place] = answer;
        }
        Ok(answers)
    }

    /// In order, in calls that fit into a commit group; after one that is to be sent again nothing more is stored, or
    /// the rest would overtake it.
    async fn send_lane(
        &self,
        core: &Core,
        limit: &WaitingLimit,
        lane: u8,
        items: Vec<Judged>,
    ) -> Vec<(usize, SentItem)> {
        let deadline = Instant::now() + CALL_WITHIN;
        let (mut answers, mut fenced) = (Vec::with_capacity(items.len()), false);
        for items in groups(items) {
            if fenced {
                answers.extend(items.iter().map(|item| (item.place, Err(not_sent()))));
                continue;
            }
            // One group at once, so that gateways' publishes never wait for many of ours; first come, first served, and
            // no key has more than its calls among them.
            let turn = self.lanes[usize::from(lane)].acquire_many(weight(&items));
            let Ok(Ok(_turn)) = timeout(API_TURN_WITHIN, turn).await else {
                answers.extend(items.iter().map(|item| (item.place, Err(not_sent()))));
                fenced = true;
                continue;
            };
            let results = self.call(core, limit, &items, deadline).await;
            fenced = results.iter().any(|answer| answer.as_ref().is_err_and(|problem| problem.code.retry()));
            answers.extend(items.iter().map(|item| item.place).zip(results));
        }
        answers
    }

    async fn call(
        &self,
        core: &Core,
        limit: &WaitingLimit,
        items: &[Judged],
        deadline: Instant,
    ) -> Vec<SentItem> {
        let within_ms = i64::try_from(CALL_WITHIN.as_millis()).unwrap_or(i64::MAX);
        let mut request =
            PublishRequest { not_after_ms: self.clock.now_ms() + within_ms, ..PublishRequest::default() };
        for item in items {
            let input = PublishItem {
                room: item.room.to_string(),
                sender: item.sender.to_string(),
                key: item.key.to_string(),
                data: item.data.clone(),
            };
            match item.when.to_grpc() {
                None => {
                    if let Some(traceparent) = item.span.traceparent() {
                        let place = u32::try_from(request.items.len()).unwrap_or(u32::MAX);
                        request.traces.push(ItemTrace { item: place, traceparent });
                    }
                    request.items.push(input);
                }
                Some(when) => request.delayed.push(DelayedItem { item: Some(input), when: Some(when) }),
            }
        }
        let reply = match core.publisher.publish_within(limit, request, Some(deadline)).await {
            Ok(reply) => reply,
            Err(error) => return items.iter().map(|_| Err(Problem::bad(error.to_string()))).collect(),
        };
        let (epoch, mut now, mut later) = (reply.epoch, reply.results.into_iter(), reply.delayed.into_iter());
        let mut answer = |item: &Judged| {
            let result = if item.when == When::Now { now.next() } else { later.next() };
            let answer = answer(item, result.unwrap_or_default(), epoch, limit);
            match &answer {
                Ok((_, Sent::Published { seq, .. })) => item.span.number(SEQ, *seq),
                Ok((_, Sent::Scheduled { .. } | Sent::Cancelled(_))) => {}
                Err(_) => item.span.fail("not stored"),
            }
            answer
        };
        items.iter().map(&mut answer).collect()
    }
}

impl When {
    fn to_grpc(self) -> Option<GrpcWhen> {
        match self {
            Self::Now => None,
            Self::In(ms) => Some(GrpcWhen::DelayMs(i64::try_from(ms).unwrap_or(i64::MAX))),
            Self::At(ms) => Some(GrpcWhen::DueMs(ms)),
            Self::Never => Some(GrpcWhen::Cancel(true)),
        }
    }
}

/// As a gateway judges what a client sends; what is left is judged where it is committed.
fn judge(
    api_key: &ApiKey,
    draft: Draft,
    place: usize,
    session: SessionId,
    now_ms: i64,
) -> Result<Judged, Problem> {
    let Draft { room, data, key, from, when, parent: _ } = draft;
    let is_cancel = when == When::Never;
    // Rooms with a star are from earlier; what waits in them can still be taken back.
    let room = if is_cancel { RoomId::parse(&room) } else { RoomId::parse_from_client(&room) }?;
    let sender = from.as_deref().map_or_else(|| Ok(api_key.sender().clone()), UserId::parse)?;
    let key = match key.as_deref() {
        Some(key) if is_cancel => Key::parse(key)?,
        Some(key) => Key::parse_from_client(key)?,
        None => Key::mint(session, place as u64),
    };
    api_key.may_publish(&room)?;
    when.judge(now_ms)?;
    Ok(Judged { place, room, sender, key, data, when, span: Span::default() })
}

/// Parts that fit into a commit group each.
fn groups(items: Vec<Judged>) -> Vec<Vec<Judged>> {
    let (mut groups, mut bytes) = (Vec::<Vec<Judged>>::new(), 0);
    for item in items {
        bytes += item.data.len();
        match groups.last_mut() {
            Some(group) if group.len() < BATCH_ITEMS_MAX && bytes <= BATCH_BYTES_MAX => group.push(item),
            Some(_) | None => {
                bytes = item.data.len();
                groups.push(vec![item]);
            }
        }
    }
    groups
}

/// What a group takes of a lane: its items, or its bytes where they are many.
fn weight(items: &[Judged]) -> u32 {
    let bytes = items.iter().map(|item| item.data.len()).sum::<usize>();
    let weight = items.len().max(bytes.div_ceil(ITEM_COST_MIN)).min(API_LANE_ITEMS_MAX);
    u32::try_from(weight).unwrap_or(u32::MAX)
}

fn answer(item: &Judged, result: PublishResult, epoch: u64, limit: &WaitingLimit) -> SentItem {
    let sent = match result.outcome() {
        Outcome::Stored => Sent::Published { seq: result.seq, duplicate: false, epoch },
        Outcome::Duplicate => Sent::Published { seq: result.seq, duplicate: true, epoch },
        Outcome::Scheduled => Sent::Scheduled { due_ms: result.due_ms },
        Outcome::Cancelled => Sent::Cancelled(true),
        Outcome::TooLate => Sent::Cancelled(false),
        Outcome::Conflict => {
            let detail = format!(
                "the key {:?} was used by {:?} in room {:?} for other data; that is final, choose another key",
                item.key.as_str(),
                item.sender.as_str(),
                item.room.as_str()
            );
            return Err(Problem::new(Code::Conflict, detail));
        }
        Outcome::Refused if code_of_wire(&result.code) == Code::TooManyScheduled => {
            return Err(too_many_scheduled(limit));
        }
        Outcome::Refused => return Err(Problem::new(code_of_wire(&result.code), result.message)),
        Outcome::NotStored => return Err(not_sent()),
        Outcome::Unknown => return Err(unknown()),
    };
    Ok((item.key.clone(), sent))
}

fn too_many_scheduled(limit: &WaitingLimit) -> Problem {
    let detail = format!(
        "the key {} has {} scheduled messages that wait, as many as api.scheduled_per_key allows: cancel some, or wait \
         until some are published",
        limit.api_key.as_deref().unwrap_or_default(),
        limit.max
    );
    Problem::new(Code::TooManyScheduled, detail)
}

fn not_sent() -> Problem {
    Problem::new(Code::NotSent, "nothing was stored: send it again, with the same key")
}

/// No answer in time.
pub(super) fn unknown() -> Problem {
    Problem::new(
        Code::Unavailable,
        "no answer in time, so it may or may not be stored: send it again with the same key; without one it may be \
         stored twice",
    )
}

#[cfg(test)]
mod tests {
    use sluice_access::ApiKeyEntry;

    use super::*;
    use crate::api::keys::Keys;

    fn draft(room: &str, key: Option<&str>, from: Option<&str>, when: When) -> Draft {
        let (key, from) = (key.map(str::to_owned), from.map(str::to_owned));
        let (data, parent) = (Bytes::from_static(b"1"), Parent::default());
        Draft { room: room.into(), data, key, from, when, parent }
    }

    fn judged(draft: Draft) -> Result<Judged, Code> {
        let entry =
            ApiKeyEntry { publish: vec!["a*".into(), "@ann".into()], ..ApiKeyEntry::of("backend", "k") };
        let key = Keys::new(vec![entry], 0).of("k", 0).expect("good");
        judge(&key, draft, 3, SessionId(7), 1_000).map_err(|problem| problem.code)
    }

    #[test]
    fn what_a_caller_sends_is_judged_like_what_a_client_sends() {
        let good = judged(draft("a", None, None, When::Now)).map_err(|_| ()).expect("valid");
        assert_eq!((good.sender.as_str(), good.key.is_minted(), good.place), ("backend", true, 3));
        let long = "k".repeat(129);
        for (bad, expected) in [
            (draft("", None, None, When::Now), Code::BadRequest),
            (draft("a*", None, None, When::Now), Code::BadRequest),
            (draft("a", Some("~1"), None, When::Now), Code::BadRequest),
            (draft("a", Some(&long), None, When::Now), Code::BadRequest),
            (draft("a", None, Some("a\nb"), When::Now), Code::BadRequest),
            (draft("b", None, None, When::Now), Code::Forbidden),
            (draft("@bob", None, None, When::Now), Code::Forbidden),
            (draft("a", None, None, When::In(DELAY_MS_MAX + 1)), Code::BadRequest),
            (draft("a", None, None, When::At(-1)), Code::BadRequest),
            (draft("a", None, None, When::At(2_592_002_000)), Code::BadRequest),
        ] {
            assert_eq!(judged(bad.clone()).err(), Some(expected), "{bad:?}");
        }
        for good in [
            draft("@ann", Some("k"), Some("bob"), When::At(0)),
            draft("a*", Some("~1/2"), None, When::Never),
            draft("a", None, None, When::In(DELAY_MS_MAX)),
        ] {
            assert!(judged(good.clone()).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_lane_is_cut_into_groups_that_fit() {
        let item = |bytes: usize| Judged {
            place: 0,
            room: RoomId::parse("a").expect("valid"),
            sender: UserId::parse("u").expect("valid"),
            key: Key::mint(SessionId(1), 0),
            data: vec![b'1'; bytes].into(),
            when: When::Now,
            span: Span::default(),
        };
        let cut = |bytes: usize, count: usize| -> Vec<usize> {
            groups((0..count).map(|_| item(bytes)).collect()).iter().map(Vec::len).collect()
        };
        assert_eq!(cut(1, 0), Vec::<usize>::new());
        assert_eq!(cut(1, 300), [256, 44]);
        assert_eq!(cut(65_536, 33), [16, 16, 1]);
        let weigh = |bytes: usize, count: usize| weight(&(0..count).map(|_| item(bytes)).collect::<Vec<_>>());
        assert_eq!((weigh(1, 3), weigh(65_536, 1), weigh(65_536, 16), weigh(65_536, 99)), (3, 16, 256, 256));
    }
}
