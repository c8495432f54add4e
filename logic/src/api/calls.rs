//! The calls that send: what each says, in one answer or one for each message.

use bytes::Bytes;
use sluice_proto::ids::{Epoch, Key};
use sluice_proto::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX};
use sluice_trace::Parent;

use super::Api;
use super::keys::ApiKey;
use super::problem::{Code, Problem};
use super::send::{Draft, Sent, SentItem, When, unknown};
use super::types::{Cancelled, FailedItem, ItemError, ItemResult, Published, Results, Scheduled};

/// A message for many rooms.
#[derive(Debug)]
pub struct Broadcast {
    /// The rooms, each once.
    pub rooms: Vec<String>,
    /// The JSON text.
    pub data: Bytes,
    /// The idempotency key, in each of the rooms.
    pub key: Option<String>,
    /// Who sends it.
    pub from: Option<String>,
    /// What it is a part of.
    pub parent: Parent,
}

impl Api {
    /// Publishes a message.
    ///
    /// # Errors
    /// Why it is not stored, or that nobody knows.
    pub async fn publish(&self, key: &ApiKey, draft: Draft) -> Result<Published, Problem> {
        let room = draft.room.clone();
        published(room, self.one(key, draft).await?)
    }

    /// Publishes a message to many rooms, each by itself.
    ///
    /// # Errors
    /// Nothing was stored.
    pub async fn broadcast(&self, key: &ApiKey, broadcast: Broadcast) -> Result<Results, Problem> {
        let Broadcast { rooms, data, key: idempotency_key, from, parent } = broadcast;
        count_of("rooms", rooms.len())?;
        let mut names: Vec<&String> = rooms.iter().collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Problem::bad(format!("the room {:?} is there twice", twice[0])));
        }
        // The call itself was counted as one.
        key.charge(rooms.len() - 1)?;
        let draft = |room: &String| Draft {
            room: room.clone(),
            data: data.clone(),
            key: idempotency_key.clone(),
            from: from.clone(),
            when: When::Now,
            parent,
        };
        let sent = self.send(key, rooms.iter().map(draft).collect()).await?;
        Ok(results(rooms, sent))
    }

    /// Publishes many messages, each by itself, now or later.
    ///
    /// # Errors
    /// Nothing was stored.
    pub async fn batch(&self, key: &ApiKey, drafts: Vec<Draft>) -> Result<Results, Problem> {
        count_of("messages", drafts.len())?;
        let bytes: usize = drafts.iter().map(|draft| draft.data.len()).sum();
        if bytes > BATCH_BYTES_MAX {
            let detail =
                format!("the messages have {bytes} bytes of data, at most {BATCH_BYTES_MAX} are allowed");
            return Err(Problem::new(Code::TooLarge, detail));
        }
        key.charge(drafts.len() - 1)?;
        let rooms = drafts.iter().map(|draft| draft.room.clone()).collect();
        let sent = self.send(key, drafts).await?;
        Ok(results(rooms, sent))
    }

    /// Keeps a message until it is due.
    ///
    /// # Errors
    /// Why it is not kept, or that nobody knows.
    pub async fn schedule(&self, key: &ApiKey, draft: Draft) -> Result<Scheduled, Problem> {
        if draft.when == When::Now {
            return Err(Problem::bad("say when: delay_ms from now, or at, milliseconds since 1970"));
        }
        let room = draft.room.clone();
        let (used, sent) = self.one(key, draft).await?;
        Ok(scheduled(room, used.to_string(), &sent))
    }

    /// Takes a message back.
    ///
    /// # Errors
    /// Why that was not done, or that nobody knows.
    pub async fn cancel(
        &self,
        key: &ApiKey,
        room: String,
        of: String,
        from: Option<String>,
    ) -> Result<Cancelled, Problem> {
        let draft = Draft {
            room: room.clone(),
            data: Bytes::new(),
            key: Some(of),
            from,
            when: When::Never,
            parent: Parent::default(),
        };
        let (used, sent) = self.one(key, draft).await?;
        Ok(Cancelled { room, key: used.to_string(), cancelled: sent == Sent::Cancelled(true) })
    }

    /// The answer to one draft.
    async fn one(&self, key: &ApiKey, draft: Draft) -> SentItem {
        self.send(key, vec![draft]).await?.pop().unwrap_or_else(|| Err(unknown()))
    }
}

/// As many as one call may hold; counted before anything is done.
fn count_of(what: &str, count: usize) -> Result<(), Problem> {
    if (1..=BATCH_ITEMS_MAX).contains(&count) {
        return Ok(());
    }
    Err(Problem::bad(format!("{count} {what}, it must be 1…{BATCH_ITEMS_MAX}")))
}

fn published(room: String, (key, sent): (Key, Sent)) -> Result<Published, Problem> {
    let Sent::Published { seq, duplicate, epoch } = sent else { return Err(unknown()) };
    let key = Some(key).filter(|key| !key.is_minted()).map(|key| key.to_string());
    Ok(Published { room, seq, epoch: Epoch(epoch).to_string(), key, duplicate })
}

fn scheduled(room: String, key: String, sent: &Sent) -> Scheduled {
    let (due, seq) = match sent {
        Sent::Scheduled { due_ms } => (Some(*due_ms), None),
        Sent::Published { seq, .. } => (None, Some(*seq)),
        Sent::Cancelled(_) => (None, None),
    };
    Scheduled { room, due, seq, key }
}

fn results(rooms: Vec<String>, sent: Vec<SentItem>) -> Results {
    let result = |(room, sent): (String, SentItem)| match sent {
        Ok((key, sent @ Sent::Published { .. })) => match published(room.clone(), (key, sent)) {
            Ok(published) => ItemResult::Published(published),
            Err(problem) => failed(room, problem),
        },
        Ok((key, sent)) => ItemResult::Scheduled(scheduled(room, key.to_string(), &sent)),
        Err(problem) => failed(room, problem),
    };
    Results { results: rooms.into_iter().zip(sent).map(result).collect() }
}

fn failed(room: String, problem: Problem) -> ItemResult {
    let Problem { code, detail, .. } = problem;
    ItemResult::Failed(FailedItem { room, error: ItemError { code, detail, retry: code.retry() } })
}
