//! Building a [`History`] from lines, in any order of files. It refuses lines that contradict each other: whoever wrote
//! them is broken, not what was drilled.

mod finish;

use std::collections::HashMap;

use super::{
    ClientHistory, ClientStep, Fate, History, HistoryPage, MessageIdentity, NONE, PublishAnswer, Sending,
    SentMessage, SkippedRange, StepKind, SubAnswered, SubSent,
};
use crate::record::{
    ClientEvent, DelayedRecord, FaultRecord, Leftovers, PublishOutcome, RecordEntry, RevocationRecord,
    RunRecord, StoreRow,
};

/// Kinds of clients whose connections are the business of a library, or that have none.
const LIBRARIES: [&str; 5] = ["library", "js", "tab", "python", "api"];

/// A history that is being read.
#[derive(Debug, Default)]
pub struct Loading {
    history: History,
    /// Index of a client by its number.
    clients: HashMap<u32, u32>,
    messages: HashMap<(u32, u32, u64), u32>,
    /// By index of the client and its `n`.
    sent: HashMap<(u32, u64), u32>,
    /// Epochs as told, when first.
    epochs: HashMap<u32, u64>,
}

impl Loading {
    /// Begins with what was asked for.
    #[must_use]
    pub fn new(run: RunRecord) -> Self {
        Self { history: History { run, ..History::default() }, ..Self::default() }
    }

    /// A fault.
    pub fn fault(&mut self, fault: FaultRecord) {
        self.history.faults.push(fault);
    }

    /// What was left at rest.
    pub fn leftovers(&mut self, leftovers: Leftovers) {
        for (room, head) in &leftovers.heads {
            let room = self.history.rooms.number(room);
            self.history.heads.insert(room, *head);
        }
        self.history.leftovers = Some(leftovers);
    }

    /// A message that was to be published later.
    pub fn delayed(&mut self, delayed: DelayedRecord) {
        let history = &mut self.history;
        let (room, user) = (history.rooms.number(&delayed.room), history.users.number(&delayed.user));
        let name = (room, user, history.keys.number(&delayed.key));
        history.delayed.insert(name, delayed);
    }

    /// A user who was disconnected.
    pub fn revocation(&mut self, revocation: RevocationRecord) {
        self.history.revocations.push(revocation);
    }

    /// There is a store; its rows follow.
    pub fn store(&mut self) {
        self.history.has_store = true;
    }

    /// A row of the store.
    pub fn row(&mut self, row: &StoreRow) {
        self.history.has_store = true;
        // The publisher does not know a minted key: its message is looked for by user and data.
        let chosen = (!row.key.starts_with('~')).then_some(&*row.key);
        let message = self.message(&row.sender, chosen, row.hash);
        let (room, key) = (self.history.rooms.number(&row.room), self.history.keys.number(&row.key));
        let (seq, at_ms) = (row.seq, row.at_ms);
        let row = super::StoredRow { room, seq, message, key, at_ms, known_us: u64::MAX, next: NONE };
        self.history.rows.push(row);
    }

    /// A file ended in the middle of a line.
    pub fn cut_file(&mut self, name: String) {
        self.history.cut_files.push(name);
    }

    /// A line of a client.
    ///
    /// # Errors
    /// When it contradicts what came before it: a client that did not begin, one `n` for two messages.
    pub fn entry(&mut self, RecordEntry(at_us, id, what): RecordEntry) -> Result<(), String> {
        self.history.end_us = self.history.end_us.max(at_us);
        // Before the look-up: it is the line that makes the number known.
        if let ClientEvent::Client { user, role, kind } = &what {
            self.begin(id, user, role, LIBRARIES.contains(&&**kind))?;
        }
        let Some(client) = self.clients.get(&id).copied() else {
            return Err(format!("client {id} has no first line: begin each with its name and role"));
        };
        let act = self.act(at_us, client, what)?;
        self.history.clients[client as usize].steps.push(ClientStep { at_us, act });
        Ok(())
    }

    fn begin(&mut self, id: u32, user: &str, role: &str, library: bool) -> Result<(), String> {
        let index = number(self.history.clients.len());
        if self.clients.insert(id, index).is_some() {
            return Err(format!("client {id} begins twice: give each its own number"));
        }
        let user = self.history.users.number(user);
        self.history.clients.push(ClientHistory {
            id,
            user,
            role: role.to_owned(),
            library,
            steps: Vec::new(),
        });
        Ok(())
    }

    fn act(&mut self, at_us: u64, client: u32, what: ClientEvent) -> Result<StepKind, String> {
        let names = &mut self.history;
        Ok(match what {
            ClientEvent::Got { conn, room, seq, from, key, hash } => {
                let room = names.rooms.number(&room);
                StepKind::Got { seq, room, message: self.message(&from, key.as_deref(), hash), conn }
            }
            ClientEvent::Send { conn, n, room, key, hash, bytes } => {
                let user = self.history.clients[client as usize].user;
                let key = self.history.keys.number_of(key.as_deref());
                let message = self.message_of(user, key, hash);
                let room = self.history.rooms.number(&room);
                let sent = self.sent(at_us, client, n, room, message)?;
                StepKind::Send(self.sending(client, sent, conn, bytes))
            }
            ClientEvent::Answer { conn, n, outcome } => self.answer(at_us, client, conn, n, outcome),
            ClientEvent::Sub { conn, room, after, epoch } => {
                let (room, epoch) = (names.rooms.number(&room), names.words.number_of(epoch.as_deref()));
                StepKind::Sub(Box::new(SubSent { conn, room, after, epoch }))
            }
            ClientEvent::Subscribed { conn, room, after, head, epoch, recovered, asked } => {
                let room = names.rooms.number(&room);
                let epoch = self.told(at_us, &epoch);
                StepKind::Subscribed(Box::new(SubAnswered {
                    conn,
                    room,
                    after,
                    head,
                    epoch,
                    recovered,
                    asked,
                }))
            }
            ClientEvent::Skipped { conn, room, from, to } => {
                StepKind::Skipped(Box::new(SkippedRange { conn, room: names.rooms.number(&room), from, to }))
            }
            ClientEvent::Unsubscribed { conn, room } => {
                StepKind::Unsubscribed { conn, room: names.rooms.number(&room) }
            }
            ClientEvent::History { conn, room, before, messages } => {
                let room = names.rooms.number(&room);
                let seen = messages.iter();
                let seen = seen.map(|it| (it.seq, self.message(&it.from, it.key.as_deref(), it.hash)));
                let messages = seen.collect();
                StepKind::Page(Box::new(HistoryPage { conn, room, before, messages }))
            }
            ClientEvent::Open { ref epoch, .. } => {
                self.told(at_us, epoch);
                StepKind::Other(Box::new(what))
            }
            ClientEvent::Client { .. }
            | ClientEvent::Failed { .. }
            | ClientEvent::Drain { .. }
            | ClientEvent::Bye { .. }
            | ClientEvent::Closed { .. }
            | ClientEvent::Paused { .. }
            | ClientEvent::Unpaused { .. }
            | ClientEvent::Error { .. }
            | ClientEvent::UserJoined { .. }
            | ClientEvent::UserLeft { .. }
            | ClientEvent::Stale { .. }
            | ClientEvent::End => StepKind::Other(Box::new(what)),
        })
    }

    fn message(&mut self, user: &str, key: Option<&str>, hash: u64) -> u32 {
        let (user, key) = (self.history.users.number(user), self.history.keys.number_of(key));
        self.message_of(user, key, hash)
    }

    fn message_of(&mut self, user: u32, key: u32, hash: u64) -> u32 {
        let next = number(self.history.messages.len());
        let index = *self.messages.entry((user, key, hash)).or_insert(next);
        if index == next {
            self.history.messages.push(MessageIdentity { user, key, hash, sent: NONE, row: NONE });
        }
        index
    }

    fn told(&mut self, at_us: u64, epoch: &str) -> u32 {
        let epoch = self.history.words.number(epoch);
        let first = self.epochs.entry(epoch).or_insert(at_us);
        // Files are read one after the other: an epoch may be seen again earlier.
        *first = (*first).min(at_us);
        epoch
    }

    fn sent(&mut self, at_us: u64, client: u32, n: u64, room: u32, message: u32) -> Result<u32, String> {
        let index = number(self.history.sent.len());
        if let Some(known) = self.sent.get(&(client, n)) {
            let sent = &self.history.sent[*known as usize];
            if (sent.room, sent.message) == (room, message) {
                return Ok(*known);
            }
            return Err(format!("message {n} is sent again as another one: give each message its own n"));
        }
        self.sent.insert((client, n), index);
        let first = &mut self.history.messages[message as usize].sent;
        let next = std::mem::replace(first, index);
        let (first_us, gave_up_us, last) = (at_us, 0, NONE);
        self.history.sent.push(SentMessage { client, n, room, message, first_us, gave_up_us, last, next });
        Ok(index)
    }

    fn sending(&mut self, client: u32, sent: u32, conn: u32, bytes: u32) -> u32 {
        let index = number(self.history.sendings.len());
        let step = number(self.history.clients[client as usize].steps.len());
        let before = std::mem::replace(&mut self.history.sent[sent as usize].last, index);
        self.history.sendings.push(Sending { sent, conn, step, bytes, answer: NONE, before });
        index
    }

    fn answer(&mut self, at_us: u64, client: u32, conn: u32, n: u64, how: PublishOutcome) -> StepKind {
        let step = number(self.history.clients[client as usize].steps.len());
        let Some(sent) = self.sent.get(&(client, n)).copied() else {
            // Kept, not refused: to answer what was never sent is a fault of the drilled, not of records.
            self.history.strays.push((client, step, n));
            return StepKind::Other(Box::new(ClientEvent::Answer { conn, n, outcome: how }));
        };
        let fate = match how {
            PublishOutcome::Ok(seq) => Fate::Ok(seq),
            PublishOutcome::Refused(code) => Fate::Refused(self.history.words.number(&code)),
            PublishOutcome::Again(code) => Fate::Again(self.history.words.number(&code)),
            PublishOutcome::GaveUp => Fate::GaveUp,
        };
        let index = number(self.history.answers.len());
        self.history.answers.push(PublishAnswer { sent, conn, step, at_us, fate });
        let it = &mut self.history.sent[sent as usize];
        // The client's own decision: it answers no sending.
        if fate == Fate::GaveUp {
            it.gave_up_us = at_us;
            return StepKind::Answer(index);
        }
        // the oldest sending over that connection without an answer
        let (mut at, mut open) = (it.last, NONE);
        while let Some(sending) = self.history.sendings.get(at as usize) {
            if sending.conn == conn && sending.answer == NONE {
                open = at;
            }
            at = sending.before;
        }
        if let Some(sending) = self.history.sendings.get_mut(open as usize) {
            sending.answer = index;
        }
        StepKind::Answer(index)
    }
}

fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(NONE)
}
