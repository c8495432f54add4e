//! A scripted logic: keeps messages in memory and does what a test tells it. This is the script; `service` plays it.

mod service;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_proto::grpc::logic_server::LogicServer;
use sluice_proto::grpc::{Message, Revocation, StatusRequest};
use tokio::sync::watch;
use tokio::time::timeout;

pub const EPOCH: u64 = 7;

#[derive(Debug, Default)]
struct Book {
    /// Rooms that were read, in order.
    read: Vec<String>,
    rooms: HashMap<String, Vec<Message>>,
    reports: Vec<StatusRequest>,
    users: u64,
    expires_at_ms: i64,
    no_anonymous: bool,
    /// It is of a version that knows no goodbye of a whole instance.
    no_goodbyes: bool,
    /// Tokens of each call about many.
    asked: Vec<Vec<String>>,
    asked_singly: Vec<String>,
    tokens: Tokens,
    revocations: Vec<Revocation>,
    /// What it says of tokens is of before any revocation.
    behind: bool,
    /// What tickets stand for, until they are taken.
    tickets: HashMap<String, String>,
    /// Where tickets are kept nobody answers.
    tickets_away: bool,
    /// It has not reached its store yet.
    starts: bool,
    /// It has reached its store, which does not answer any more.
    store_away: bool,
    /// What tokens grant to read; none: everything.
    readable: Option<Vec<String>>,
    /// The oldest position that is kept of each room.
    oldest: u64,
    /// When tokens were issued, if it is not [`ISSUED_AT_S`].
    issued_at_s: Option<u32>,
}

/// When every token was issued, unless it is said.
pub const ISSUED_AT_S: u32 = 100;

/// How it takes questions about many tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tokens {
    /// All of them.
    #[default]
    Together,
    /// So many at once, as if a reply had room for no more.
    AtMost(usize),
    /// Not at all: it is of the version before.
    Singly,
    /// It is busy with something else.
    Failing,
}

/// The script; clones share it.
#[derive(Debug, Clone)]
pub struct Scripted {
    book: Arc<Mutex<Book>>,
    hold: watch::Sender<bool>,
    hold_subscribes: watch::Sender<bool>,
    hold_reads: watch::Sender<bool>,
    hold_tokens: watch::Sender<bool>,
    hold_slow: watch::Sender<bool>,
    /// Reads begun, and those that were executed or dropped since.
    reads: watch::Sender<(usize, usize)>,
    /// Questions about presence now, the most at once, and all of them.
    presences: watch::Sender<(usize, usize, usize)>,
    called: watch::Sender<u64>,
    marker: watch::Sender<u64>,
    epoch: watch::Sender<u64>,
    reported: watch::Sender<u64>,
    /// How far its clock is off, milliseconds, if it tells its time.
    pub clock: watch::Sender<Option<i64>>,
}

impl Default for Scripted {
    fn default() -> Self {
        Self {
            book: Arc::default(),
            hold: watch::Sender::new(false),
            hold_subscribes: watch::Sender::new(false),
            hold_reads: watch::Sender::new(false),
            hold_tokens: watch::Sender::new(false),
            hold_slow: watch::Sender::new(false),
            reads: watch::Sender::new((0, 0)),
            presences: watch::Sender::new((0, 0, 0)),
            called: watch::Sender::new(0),
            marker: watch::Sender::new(1),
            epoch: watch::Sender::new(EPOCH),
            reported: watch::Sender::new(0),
            clock: watch::Sender::new(None),
        }
    }
}

impl Scripted {
    pub fn service(&self) -> LogicServer<Self> {
        LogicServer::new(self.clone())
    }

    /// The most questions about presence at once, and all of them.
    pub fn presence_calls(&self) -> (usize, usize) {
        let (_, most, all) = *self.presences.borrow();
        (most, all)
    }

    /// Publishes are stored, and their outcomes withheld; questions about presence are not answered.
    pub fn hold(&self, hold: bool) {
        self.hold.send_replace(hold);
    }

    /// Subscriptions are not answered.
    pub fn hold_subscribes(&self, hold: bool) {
        self.hold_subscribes.send_replace(hold);
    }

    /// Whoever comes without a token is nobody.
    pub fn refuse_anonymous(&self) {
        self.book.lock().unwrap().no_anonymous = true;
    }

    /// A goodbye for a whole instance is a report without changes to it.
    pub fn know_no_goodbyes(&self) {
        self.book.lock().unwrap().no_goodbyes = true;
    }

    /// Questions about many tokens are not answered.
    pub fn hold_tokens(&self, hold: bool) {
        self.hold_tokens.send_replace(hold);
    }

    /// A question about the token `slow` alone is not answered.
    pub fn hold_slow(&self, hold: bool) {
        self.hold_slow.send_replace(hold);
    }

    /// How it takes such questions from now on.
    pub fn take_tokens(&self, tokens: Tokens) {
        self.book.lock().unwrap().tokens = tokens;
    }

    /// Tokens of a user that were issued up to this second are revoked; no gateway is told.
    pub fn revoke(&self, user: &str, issued_until_s: u32) {
        let revocations = &mut self.book.lock().unwrap().revocations;
        let position = revocations.len() as u64 + 1;
        revocations.push(Revocation { user: user.into(), issued_until_s, position });
    }

    /// It has not read yet what was revoked, when it is asked about tokens.
    pub fn is_behind(&self, behind: bool) {
        self.book.lock().unwrap().behind = behind;
    }

    /// Tokens of each call about many, in order; of which it was asked singly.
    pub fn asked(&self) -> (Vec<Vec<String>>, Vec<String>) {
        let book = self.book.lock().unwrap();
        (book.asked.clone(), book.asked_singly.clone())
    }

    /// Redis does not answer, or does again.
    pub fn tickets_away(&self, away: bool) {
        self.book.lock().unwrap().tickets_away = away;
    }

    /// It begins anew, and has not reached its store; or it has.
    pub fn starts(&self, starts: bool) {
        self.book.lock().unwrap().starts = starts;
    }

    /// Its store does not answer, or does again; tickets and tokens need none. Nobody hears of an epoch meanwhile.
    pub fn store_away(&self, away: bool) {
        self.book.lock().unwrap().store_away = away;
    }

    /// All tickets that were not taken have expired.
    pub fn expire_tickets(&self) {
        self.book.lock().unwrap().tickets.clear();
    }

    /// Whoever comes from now on may read these rooms.
    pub fn grant(&self, rooms: &[&str]) {
        self.book.lock().unwrap().readable = Some(rooms.iter().map(|room| (*room).to_owned()).collect());
    }

    /// Retention has removed what is before this position.
    pub fn trim(&self, oldest: u64) {
        self.book.lock().unwrap().oldest = oldest;
    }

    /// A backup is restored: the same messages, another history.
    pub fn restore(&self) {
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    fn epoch(&self) -> u64 {
        *self.epoch.borrow()
    }

    /// Reads are not answered.
    pub fn hold_reads(&self, hold: bool) {
        self.hold_reads.send_replace(hold);
    }

    /// Reads begun, and ended, in any way.
    pub fn reads(&self) -> (usize, usize) {
        *self.reads.borrow()
    }

    /// Rooms that were read, in order.
    pub fn rooms_read(&self) -> Vec<String> {
        self.book.lock().unwrap().read.clone()
    }

    /// Until so many reads have begun, and ended.
    pub async fn until_reads(&self, begun: usize, ended: usize) {
        let mut reads = self.reads.subscribe();
        let wanted = reads.wait_for(|reads| reads.0 >= begun && reads.1 >= ended);
        timeout(Duration::from_secs(5), wanted).await.expect("reads").unwrap();
    }

    /// Redis forgets.
    pub fn forget(&self) {
        self.marker.send_modify(|marker| *marker += 1);
    }

    /// Until a publish has arrived here.
    pub async fn until_called(&self) {
        let mut called = self.called.subscribe();
        timeout(Duration::from_secs(5), called.wait_for(|called| *called > 0)).await.unwrap().unwrap();
    }

    /// Until a report like this has come.
    pub async fn until_report(&self, wanted: impl Fn(&StatusRequest) -> bool) {
        let mut reported = self.reported.subscribe();
        let look = async {
            while !self.book.lock().unwrap().reports.iter().any(&wanted) {
                reported.changed().await.unwrap();
            }
        };
        let found = timeout(Duration::from_secs(10), look).await;
        assert!(found.is_ok(), "not reported: {:#?}", self.book.lock().unwrap().reports);
    }

    /// When tokens end, as told from now on.
    pub fn expire_at(&self, at_ms: i64) {
        self.book.lock().unwrap().expires_at_ms = at_ms;
    }

    /// When tokens were issued, as told from now on.
    pub fn issued_at(&self, at_s: u32) {
        self.book.lock().unwrap().issued_at_s = Some(at_s);
    }

    /// All reports so far.
    pub fn reports(&self) -> Vec<StatusRequest> {
        self.book.lock().unwrap().reports.clone()
    }

    /// So many messages come into a room by another gateway: what is stored now.
    pub fn store(&self, room: &str, count: u64) -> Vec<Message> {
        let mut book = self.book.lock().unwrap();
        let kept = book.rooms.entry(room.to_owned()).or_default();
        for _ in 0..count {
            let seq = kept.len() as u64 + 1;
            let (sender, key, data) = ("other".to_owned(), format!("k{seq}"), format!("{seq}").into());
            kept.push(Message { seq, sender, key, at_ms: 1, data });
        }
        kept.clone()
    }
}
