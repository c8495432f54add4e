//! What the scripted logic answers.

use sluice_proto::grpc::authenticate_result::Result as Verdict;
use sluice_proto::grpc::logic_server::Logic;
use sluice_proto::grpc::{
    AuthenticateManyReply, AuthenticateManyRequest, AuthenticateReply, AuthenticateRequest,
    AuthenticateResult, FireDueReply, FireDueRequest, Grants, HeadsReply, HeadsRequest, IssueTicketReply,
    IssueTicketRequest, Message, Outcome, PresenceReply, PresenceRequest, PublishReply, PublishRequest,
    PublishResult, ReadReply, ReadRequest, ReapReply, ReapRequest, RevocationsReply, RevocationsRequest,
    RoomPage, StatusReply, StatusRequest, SubscribeReply, SubscribeRequest, SweepReply, SweepRequest,
    TakeTicketRequest, TellLeavesReply, TellLeavesRequest,
};
use sluice_proto::limits::BATCH_BYTES_MAX;
use sluice_service::clock::Clock;
use sluice_service::grpc::TIME_HEADER;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{EPOCH, ISSUED_AT_S, Scripted, Tokens};

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

impl Scripted {
    fn has_started(&self) -> Result<(), Status> {
        match self.book.lock().unwrap().starts {
            true => Err(Status::unavailable("logic is starting")),
            false => Ok(()),
        }
    }

    fn has_store(&self) -> Result<(), Status> {
        self.has_started()?;
        match self.book.lock().unwrap().store_away {
            true => Err(Status::unavailable("the store is away")),
            false => Ok(()),
        }
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
        self.has_store()?;
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
        self.has_store()?;
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
        self.presences.send_modify(|(now, most, all)| {
            (*now, *most, *all) = (*now + 1, (*now + 1).max(*most), *all + 1);
        });
        self.hold.subscribe().wait_for(|hold| !hold).await.unwrap();
        self.presences.send_modify(|(now, ..)| *now -= 1);
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
        self.has_started()?;
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
        self.has_started()?;
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
        self.has_started()?;
        let book = self.book.lock().unwrap();
        let position = book.revocations.len() as u64;
        let after = request.into_inner().after.unwrap_or(position);
        let revocations = book.revocations.iter().filter(|one| one.position > after).cloned().collect();
        Ok(Response::new(RevocationsReply { epoch: EPOCH, position, revocations, more: false }))
    }
}
