//! A scripted logic: keeps messages in memory and does what a test tells it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_proto::grpc::authenticate_result::Result as Verdict;
use sluice_proto::grpc::logic_server::{Logic, LogicServer};
use sluice_proto::grpc::{
    AuthenticateManyReply, AuthenticateManyRequest, AuthenticateReply, AuthenticateRequest,
    AuthenticateResult, FireDueReply, FireDueRequest, Grants, HeadsReply, HeadsRequest, IssueTicketReply,
    IssueTicketRequest, Message, Outcome, PresenceReply, PresenceRequest, PublishReply, PublishRequest,
    PublishResult, ReadReply, ReadRequest, ReapReply, ReapRequest, Revocation, RevocationsReply,
    RevocationsRequest, RoomPage, StatusReply, StatusRequest, SubscribeReply, SubscribeRequest, SweepReply,
    SweepRequest, TakeTicketRequest, TellLeavesReply, TellLeavesRequest,
};
use sluice_proto::limits::BATCH_BYTES_MAX;
use sluice_service::clock::Clock;
use sluice_service::grpc::TIME_HEADER;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

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
    /// Questions about presence now, and the most at once.
    presences: watch::Sender<(usize, usize)>,
    called: watch::Sender<u64>,
    marker: watch::Sender<u64>,
    epoch: watch::Sender<u64>,
    reported: watch::Sender<u64>,
    /// How far its clock is off, milliseconds, if it tells its time.
    pub clock: watch::Sender<Option<i64>>,
}

/// A read, also one that is dropped before its end.
struct Read(watch::Sender<(usize, usize)>);

impl Read {
    fn begin(reads: &watch::Sender<(usize, usize)>) -> Self {
        reads.send_modify(|reads| reads.0 += 1);
        Self(reads.clone())
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        self.0.send_modify(|reads| reads.1 += 1);
    }
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
            presences: watch::Sender::new((0, 0)),
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

    /// The most questions about presence at once.
    pub fn most_presence_calls(&self) -> usize {
        self.presences.borrow().1
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

    fn who(&self, token: String) -> Result<AuthenticateReply, &'static str> {
        let mut book = self.book.lock().unwrap();
        if token.starts_with("bad") {
            return Err("the token is bad");
        }
        if book.no_anonymous {
            return Err("a token is needed");
        }
        book.users += 1;
        let all = vec!["*".to_owned()];
        let readable = book.readable.clone().unwrap_or_else(|| all.clone());
        // A token that was not given out here names its user, and behind # the rooms to read, if those are not all.
        let named = !["", "t"].contains(&token.as_str());
        let (token, sub) = match token.split_once('#') {
            Some((user, rooms)) => (user.to_owned(), rooms.split(',').map(str::to_owned).collect()),
            None => (token, readable),
        };
        Ok(AuthenticateReply {
            user: if named { token } else { format!("anon-{}", book.users) },
            anonymous: !named,
            token: "t".into(),
            expires_at_ms: book.expires_at_ms,
            grants: Some(Grants { sub, r#pub: all }),
            info: String::new(),
            issued_at_s: book.issued_at_s.unwrap_or(ISSUED_AT_S),
            revocations: Some(if book.behind { 0 } else { book.revocations.len() as u64 }),
        })
    }

    fn head(&self, room: &str) -> u64 {
        self.book.lock().unwrap().rooms.get(room).map_or(0, |messages| messages.len() as u64)
    }
}

#[tonic::async_trait]
impl Logic for Scripted {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishReply>, Status> {
        let mut results = Vec::new();
        for item in request.into_inner().items {
            let mut book = self.book.lock().unwrap();
            let room = book.rooms.entry(item.room).or_default();
            let known = room.iter().find(|kept| kept.key == item.key).map(|kept| kept.seq);
            let (outcome, seq) = match known {
                Some(seq) => (Outcome::Duplicate, seq),
                None => {
                    let seq = room.len() as u64 + 1;
                    room.push(Message { seq, sender: item.sender, key: item.key, at_ms: 1, data: item.data });
                    (Outcome::Stored, seq)
                }
            };
            results.push(PublishResult {
                outcome: outcome.into(),
                seq,
                at_ms: 1,
                ..PublishResult::default()
            });
        }
        self.called.send_modify(|called| *called += 1);
        self.hold.subscribe().wait_for(|hold| !hold).await.unwrap();
        Ok(Response::new(PublishReply { results, epoch: self.epoch(), delayed: Vec::new() }))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadReply>, Status> {
        let rooms = request.get_ref().ranges.iter().map(|range| range.room.clone());
        self.book.lock().unwrap().read.extend(rooms);
        let _read = Read::begin(&self.reads);
        self.hold_reads.subscribe().wait_for(|hold| !hold).await.unwrap();
        let page = |range: sluice_proto::grpc::ReadRange| {
            let book = self.book.lock().unwrap();
            let all = book.rooms.get(&range.room).cloned().unwrap_or_default();
            let head = all.len() as u64;
            let messages = all.into_iter().filter(|message| message.seq > range.after);
            let oldest = book.oldest.max(1);
            let mut bytes = 0;
            let messages = messages.filter(|message| message.seq >= oldest).take(256).take_while(|message| {
                bytes += message.data.len();
                bytes <= BATCH_BYTES_MAX
            });
            let messages = messages.collect();
            RoomPage { room: range.room, after: range.after, oldest, head, messages, deferred: false }
        };
        let pages = request.into_inner().ranges.into_iter().map(page).collect();
        Ok(Response::new(ReadReply { epoch: self.epoch(), pages }))
    }

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<SubscribeReply>, Status> {
        self.hold_subscribes.subscribe().wait_for(|hold| !hold).await.unwrap();
        let heads = request.into_inner().rooms.iter().map(|room| self.head(room)).collect();
        let marker = *self.marker.borrow();
        Ok(Response::new(SubscribeReply { epoch: self.epoch(), marker, heads, interest_stored: true }))
    }

    async fn heads(&self, request: Request<HeadsRequest>) -> Result<Response<HeadsReply>, Status> {
        let heads = request.into_inner().rooms.iter().map(|room| self.head(room)).collect();
        let mut answer =
            Response::new(HeadsReply { epoch: self.epoch(), marker: *self.marker.borrow(), heads });
        if let Some(off_ms) = *self.clock.borrow() {
            let now = (Clock::system().now_ms() + off_ms).to_string().parse().unwrap();
            answer.metadata_mut().insert(TIME_HEADER, now);
        }
        Ok(answer)
    }

    async fn report_status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let report = request.into_inner();
        let gone = {
            let mut book = self.book.lock().unwrap();
            let gone = report.gone && !book.no_goodbyes;
            book.reports.push(report);
            gone
        };
        self.reported.send_modify(|reported| *reported += 1);
        Ok(Response::new(StatusReply {
            epoch: self.epoch(),
            marker: *self.marker.borrow(),
            stored: true,
            gone,
        }))
    }

    async fn presence(&self, _: Request<PresenceRequest>) -> Result<Response<PresenceReply>, Status> {
        self.presences.send_modify(|(now, most)| (*now, *most) = (*now + 1, (*now + 1).max(*most)));
        self.hold.subscribe().wait_for(|hold| !hold).await.unwrap();
        self.presences.send_modify(|(now, _)| *now -= 1);
        Ok(Response::new(PresenceReply::default()))
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateReply>, Status> {
        let token = request.into_inner().token;
        self.book.lock().unwrap().asked_singly.push(token.clone());
        if token == "slow" {
            self.hold_slow.subscribe().wait_for(|hold| !hold).await.unwrap();
        }
        self.who(token).map(Response::new).map_err(Status::unauthenticated)
    }

    async fn authenticate_many(
        &self,
        request: Request<AuthenticateManyRequest>,
    ) -> Result<Response<AuthenticateManyReply>, Status> {
        let tokens = request.into_inner().tokens;
        self.book.lock().unwrap().asked.push(tokens.clone());
        self.hold_tokens.subscribe().wait_for(|hold| !hold).await.unwrap();
        let taken = self.book.lock().unwrap().tokens;
        let count = match taken {
            Tokens::Together => tokens.len(),
            Tokens::AtMost(count) => count,
            Tokens::Singly => return Err(Status::unimplemented("of the version before")),
            Tokens::Failing => return Err(Status::unavailable("busy")),
        };
        let result = |token: String| match self.who(token.clone()) {
            // Its key may come yet.
            _ if token.starts_with("late") => AuthenticateResult { result: None },
            Ok(reply) => AuthenticateResult { result: Some(Verdict::Known(reply)) },
            Err(text) => AuthenticateResult { result: Some(Verdict::Invalid(text.into())) },
        };
        let results = tokens.into_iter().take(count).map(result).collect();
        Ok(Response::new(AuthenticateManyReply { results }))
    }

    async fn issue_ticket(
        &self,
        request: Request<IssueTicketRequest>,
    ) -> Result<Response<IssueTicketReply>, Status> {
        let token = request.into_inner().token;
        self.who(token.clone()).map_err(Status::unauthenticated)?;
        let mut book = self.book.lock().unwrap();
        if book.tickets_away {
            return Err(Status::failed_precondition("Redis is away"));
        }
        let ticket = format!("ticket-{}", book.tickets.len());
        book.tickets.insert(ticket.clone(), token);
        Ok(Response::new(IssueTicketReply { ticket, expires_in_s: 60 }))
    }

    async fn take_ticket(
        &self,
        request: Request<TakeTicketRequest>,
    ) -> Result<Response<AuthenticateReply>, Status> {
        let taken = {
            let mut book = self.book.lock().unwrap();
            if book.tickets_away {
                return Err(Status::failed_precondition("Redis is away"));
            }
            book.tickets.remove(&request.into_inner().ticket)
        };
        let token = taken.ok_or_else(|| Status::unauthenticated("this ticket was used"))?;
        self.who(token).map(Response::new).map_err(Status::unauthenticated)
    }

    async fn sweep(&self, _: Request<SweepRequest>) -> Result<Response<SweepReply>, Status> {
        Err(Status::unimplemented("a gateway never sweeps"))
    }

    async fn reap(&self, _: Request<ReapRequest>) -> Result<Response<ReapReply>, Status> {
        Err(Status::unimplemented("a gateway never reaps"))
    }

    async fn fire_due(&self, _: Request<FireDueRequest>) -> Result<Response<FireDueReply>, Status> {
        Err(Status::unimplemented("a gateway never fires"))
    }

    async fn tell_leaves(&self, _: Request<TellLeavesRequest>) -> Result<Response<TellLeavesReply>, Status> {
        Err(Status::unimplemented("a gateway never asks for leaves"))
    }

    async fn revocations(
        &self,
        request: Request<RevocationsRequest>,
    ) -> Result<Response<RevocationsReply>, Status> {
        let book = self.book.lock().unwrap();
        let position = book.revocations.len() as u64;
        let after = request.into_inner().after.unwrap_or(position);
        let revocations = book.revocations.iter().filter(|one| one.position > after).cloned().collect();
        Ok(Response::new(RevocationsReply { epoch: EPOCH, position, revocations, more: false }))
    }
}
