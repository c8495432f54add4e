//! Back to lines of the records, for people: a finding shows what was written, not our numbers.

use super::{ClientHistory, ClientStep, Fate, History, StepKind};
use crate::record::{ClientEvent, PageMessage, PublishOutcome, RecordEntry, StoreRow};

/// A line of some record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordLine {
    /// Of a client: its index, and which of its steps.
    Step(u32, u32),
    /// Of the faults.
    Fault(u32),
    /// Of the store.
    Row(u32),
}

impl History {
    /// When a line was written; rows are read at the end.
    #[must_use]
    pub fn time_of(&self, line: RecordLine) -> u64 {
        match line {
            RecordLine::Step(client, step) => self.step(client, step).map_or(0, |(_, step)| step.at_us),
            RecordLine::Fault(fault) => self.faults.get(fault as usize).map_or(0, |fault| fault.began_us),
            RecordLine::Row(_) => u64::MAX,
        }
    }

    /// The line as JSON.
    #[must_use]
    pub fn text_of(&self, line: RecordLine) -> String {
        let text = match line {
            RecordLine::Step(client, step) => self.step(client, step).map(|(client, step)| {
                serde_json::to_string(&RecordEntry(step.at_us, client.id, self.what(step)))
            }),
            RecordLine::Fault(fault) => self.faults.get(fault as usize).map(serde_json::to_string),
            RecordLine::Row(row) => self.rows.get(row as usize).map(|row| {
                let message = &self.messages[row.message as usize];
                serde_json::to_string(&StoreRow {
                    room: self.rooms.name(row.room).to_owned(),
                    seq: row.seq,
                    sender: self.users.name(message.user).to_owned(),
                    key: self.keys.name(row.key).to_owned(),
                    hash: message.hash,
                    at_ms: row.at_ms,
                })
            }),
        };
        text.and_then(Result::ok).unwrap_or_default()
    }

    /// The message in a sentence: `message 7 of client 3 (alice)`, or what it is when nobody sent it.
    #[must_use]
    pub fn called(&self, message: u32) -> String {
        let Some(it) = self.messages.get(message as usize) else { return "a message".to_owned() };
        let user = self.users.name(it.user);
        match self.sent.get(it.sent as usize) {
            Some(sent) => {
                format!("message {} of client {} ({user})", sent.n, self.clients[sent.client as usize].id)
            }
            None => match self.keys.owned(it.key) {
                Some(key) => format!("a message of {user} with key {key:?} and hash {}", it.hash),
                None => format!("a message of {user} without key, hash {}", it.hash),
            },
        }
    }

    fn step(&self, client: u32, step: u32) -> Option<(&ClientHistory, &ClientStep)> {
        let client = self.clients.get(client as usize)?;
        Some((client, client.steps.get(step as usize)?))
    }

    /// What a step was in the records.
    #[must_use]
    pub fn what(&self, step: &ClientStep) -> ClientEvent {
        let room = |room: u32| self.rooms.name(room).to_owned();
        match &step.act {
            StepKind::Got { seq, room, message, conn } => {
                let PageMessage { seq, from, key, hash } = self.seen(*seq, *message);
                ClientEvent::Got {
                    conn: *conn,
                    room: self.rooms.name(*room).to_owned(),
                    seq,
                    from,
                    key,
                    hash,
                }
            }
            StepKind::Send(sending) => self.what_was_sent(*sending),
            StepKind::Answer(answer) => {
                let answer = &self.answers[*answer as usize];
                let n = self.sent[answer.sent as usize].n;
                ClientEvent::Answer { conn: answer.conn, n, outcome: self.outcome(answer.fate) }
            }
            StepKind::Sub(sub) => {
                let epoch = self.words.owned(sub.epoch);
                ClientEvent::Sub { conn: sub.conn, room: room(sub.room), after: sub.after, epoch }
            }
            StepKind::Subscribed(at) => ClientEvent::Subscribed {
                conn: at.conn,
                room: room(at.room),
                after: at.after,
                head: at.head,
                epoch: self.words.name(at.epoch).to_owned(),
                recovered: at.recovered,
                asked: at.asked,
            },
            StepKind::Skipped(gap) => {
                ClientEvent::Skipped { conn: gap.conn, room: room(gap.room), from: gap.from, to: gap.to }
            }
            StepKind::Unsubscribed { conn, room: of } => {
                ClientEvent::Unsubscribed { conn: *conn, room: room(*of) }
            }
            StepKind::Page(page) => ClientEvent::History {
                conn: page.conn,
                room: room(page.room),
                before: page.before,
                messages: page.messages.iter().map(|(seq, message)| self.seen(*seq, *message)).collect(),
            },
            StepKind::Other(what) => (**what).clone(),
        }
    }

    fn what_was_sent(&self, sending: u32) -> ClientEvent {
        let sending = &self.sendings[sending as usize];
        let sent = &self.sent[sending.sent as usize];
        let message = &self.messages[sent.message as usize];
        ClientEvent::Send {
            conn: sending.conn,
            n: sent.n,
            room: self.rooms.name(sent.room).to_owned(),
            key: self.keys.owned(message.key),
            hash: message.hash,
            bytes: sending.bytes,
        }
    }

    fn seen(&self, seq: u64, message: u32) -> PageMessage {
        let message = &self.messages[message as usize];
        PageMessage {
            seq,
            from: self.users.name(message.user).to_owned(),
            key: self.keys.owned(message.key),
            hash: message.hash,
        }
    }

    fn outcome(&self, fate: Fate) -> PublishOutcome {
        match fate {
            Fate::Ok(seq) => PublishOutcome::Ok(seq),
            Fate::Refused(code) => PublishOutcome::Refused(self.words.name(code).to_owned()),
            Fate::Again(code) => PublishOutcome::Again(self.words.name(code).to_owned()),
            Fate::GaveUp => PublishOutcome::GaveUp,
        }
    }
}
