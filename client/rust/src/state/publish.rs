//! What is sent again until it has a final answer: publishes, those for later, and their cancels.

use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;

use super::Reply;
use crate::error::Error;
use crate::event::{Due, Scheduled, Stored};
use crate::frame::{OutgoingFrame, ServerFrame};

/// A publish without a final answer.
#[derive(Debug)]
pub(crate) struct Publish {
    pub room: String,
    pub key: String,
    pub ask: Ask,
    /// Its place in the outbox, given back with the answer.
    pub _place: OwnedSemaphorePermit,
}

/// What is asked for under a key, and who waits for the answer.
#[derive(Debug)]
pub(crate) enum Ask {
    Publish(Box<RawValue>, Reply<Stored>),
    Schedule(Box<RawValue>, Due, Reply<Scheduled>),
    Cancel(Reply<bool>),
}

impl Publish {
    pub(crate) fn frame(&self, id: u64) -> String {
        let (room, key) = (Some(&*self.room), Some(&*self.key));
        let frame = OutgoingFrame { key, id, ..OutgoingFrame::default() };
        match &self.ask {
            Ask::Publish(data, _) => OutgoingFrame { publish: room, data: Some(data), ..frame },
            Ask::Schedule(data, due, _) => {
                let (delay_ms, at) = match due {
                    Due::In(delay) => (Some(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)), None),
                    Due::At(at) => (None, Some(*at)),
                };
                OutgoingFrame { publish: room, data: Some(data), delay_ms, at, ..frame }
            }
            Ask::Cancel(_) => OutgoingFrame { cancel: room, ..frame },
        }
        .text()
    }

    pub(crate) fn answer(self, frame: ServerFrame) {
        if let Some(error) = frame.error {
            return self.fail(&Error::Answer(error));
        }
        let stored = Stored { seq: frame.seq.unwrap_or_default(), key: self.key };
        // nobody may be waiting: then nobody cares
        match self.ask {
            Ask::Publish(_, reply) => reply.send(Ok(stored)).ok(),
            Ask::Schedule(_, _, reply) => {
                let scheduled = match frame.due {
                    Some(due_ms) => Scheduled::Waits { due_ms, key: stored.key },
                    None => Scheduled::Published(stored),
                };
                reply.send(Ok(scheduled)).ok()
            }
            Ask::Cancel(reply) => reply.send(Ok(frame.cancelled.unwrap_or_default())).ok(),
        };
    }

    pub(crate) fn fail(self, error: &Error) {
        match self.ask {
            Ask::Publish(_, reply) => reply.send(Err(error.clone())).ok(),
            Ask::Schedule(_, _, reply) => reply.send(Err(error.clone())).ok(),
            Ask::Cancel(reply) => reply.send(Err(error.clone())).ok(),
        };
    }
}
