//! The gRPC face of logic: deadlines and statuses, nothing else. Decides nothing.

use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prost::Message;
use sluice_proto::grpc::authenticate_result::Result as Verdict;
use sluice_proto::grpc::logic_server::{Logic, LogicServer};
use sluice_proto::grpc::{
    AuthenticateManyReply, AuthenticateManyRequest, AuthenticateReply, AuthenticateRequest,
    AuthenticateResult, FireDueReply, FireDueRequest, Grants, HeadsReply, HeadsRequest, IssueTicketReply,
    IssueTicketRequest, PresenceReply, PresenceRequest, PublishReply, PublishRequest, ReadReply, ReadRequest,
    ReapReply, ReapRequest, StatusReply, StatusRequest, SubscribeReply, SubscribeRequest, SweepReply,
    SweepRequest, TakeTicketRequest, TellLeavesReply, TellLeavesRequest,
};
use sluice_proto::limits::{BATCH_BYTES_MAX, GRPC_BYTES_MAX, TOKENS_PER_CALL_MAX};
use sluice_service::clock::Clock;
use sluice_service::tls::Role;
use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::auth::{Auth, AuthError, Identity};
use crate::defaults::{CALL_WITHIN, TICKET_FOR};
use crate::due::Firing;
use crate::error::CallError;
use crate::presence::PresenceService;
use crate::probe::Probe;
use crate::publish::Publisher;
use crate::read::Reader;
use crate::sweep::Sweeper;
use crate::tickets::Tickets;

/// What answers calls once the store was reached.
pub struct Core {
    /// Answers `Publish`.
    pub publisher: Arc<Publisher>,
    /// Answers `Read`, `Heads` and `Subscribe`.
    pub reader: Reader,
    /// Answers `ReportStatus`, `Presence`, `Reap` and `TellLeaves`.
    pub reports: PresenceService,
    /// Answers `Sweep`.
    pub sweeper: Sweeper,
    /// Answers `FireDue`.
    pub firing: Firing,
}

/// The gRPC service `Logic`.
pub struct Rpc {
    /// Empty until the store was reached.
    pub core: Arc<OnceLock<Core>>,
    /// Answers `Authenticate`.
    pub auth: Auth,
    /// Answers `IssueTicket` and `TakeTicket`.
    pub tickets: Tickets,
    /// Says why there is no core yet.
    pub probe: Probe,
    /// Judges tokens.
    pub clock: Clock,
}

impl Rpc {
    /// The service with our message sizes.
    #[must_use]
    pub fn into_server(self) -> LogicServer<Self> {
        LogicServer::new(self)
            .max_decoding_message_size(GRPC_BYTES_MAX)
            .max_encoding_message_size(GRPC_BYTES_MAX)
    }

    fn core(&self) -> Result<&Core, CallError> {
        self.core.get().ok_or_else(|| {
            let reason = self.probe.store().err().unwrap_or_default();
            CallError::NotNow(format!("logic is starting: {reason}"))
        })
    }
}

/// Whose certificate is good for a method of this service.
pub fn may_call(path: &str) -> &'static [Role] {
    match path {
        "/sluice.v1.Logic/Sweep"
        | "/sluice.v1.Logic/Reap"
        | "/sluice.v1.Logic/FireDue"
        | "/sluice.v1.Logic/TellLeaves" => &[Role::Task],
        _ => &[Role::Gateway],
    }
}

#[tonic::async_trait]
impl Logic for Rpc {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishReply>, Status> {
        let deadline = deadline_of(request.metadata());
        let call = async { Ok(self.core()?.publisher.publish(request.into_inner(), Some(deadline)).await?) };
        answer(deadline, call).await
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadReply>, Status> {
        let deadline = deadline_of(request.metadata());
        answer(deadline, async { self.core()?.reader.read(request.into_inner()).await }).await
    }

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<SubscribeReply>, Status> {
        let deadline = deadline_of(request.metadata());
        answer(deadline, async { self.core()?.reader.subscribe(request.into_inner()).await }).await
    }

    async fn heads(&self, request: Request<HeadsRequest>) -> Result<Response<HeadsReply>, Status> {
        let deadline = deadline_of(request.metadata());
        answer(deadline, async { self.core()?.reader.heads(&request.into_inner().rooms).await }).await
    }

    async fn report_status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let deadline = deadline_of(request.metadata());
        answer(deadline, async { self.core()?.reports.report(request.into_inner()).await }).await
    }

    async fn presence(&self, request: Request<PresenceRequest>) -> Result<Response<PresenceReply>, Status> {
        let deadline = deadline_of(request.metadata());
        answer(deadline, async { self.core()?.reports.present(request.into_inner()).await }).await
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateReply>, Status> {
        let found = self.auth.authenticate(&request.into_inner().token, self.clock.now_ms());
        Ok(Response::new(found.map(identity).map_err(CallError::from)?))
    }

    async fn authenticate_many(
        &self,
        request: Request<AuthenticateManyRequest>,
    ) -> Result<Response<AuthenticateManyReply>, Status> {
        let tokens = request.into_inner().tokens;
        if tokens.is_empty() || tokens.len() > TOKENS_PER_CALL_MAX {
            let text = format!("{} tokens, 1 to {TOKENS_PER_CALL_MAX} are allowed", tokens.len());
            return Err(CallError::Invalid(text).into());
        }
        Ok(Response::new(judge_all(&self.auth, &tokens, self.clock.now_ms())))
    }

    async fn issue_ticket(
        &self,
        request: Request<IssueTicketRequest>,
    ) -> Result<Response<IssueTicketReply>, Status> {
        let deadline = deadline_of(request.metadata());
        let token = request.into_inner().token;
        answer(deadline, async {
            // A new anonymous user needs no ticket: its stream opens without.
            if token.is_empty() {
                return Err(AuthError::Missing.into());
            }
            self.auth.authenticate(&token, self.clock.now_ms())?;
            let ticket = self.tickets.issue(&token).await.map_err(CallError::TicketsAway)?;
            Ok(IssueTicketReply { ticket, expires_in_s: u32::try_from(TICKET_FOR.as_secs()).unwrap_or(0) })
        })
        .await
    }

    async fn take_ticket(
        &self,
        request: Request<TakeTicketRequest>,
    ) -> Result<Response<AuthenticateReply>, Status> {
        let deadline = deadline_of(request.metadata());
        answer(deadline, async {
            let taken = self.tickets.take(&request.into_inner().ticket).await;
            let token = taken.map_err(CallError::TicketsAway)?.ok_or(CallError::NoTicket)?;
            // Judged now, not when it was issued: it may have expired since.
            Ok(identity(self.auth.authenticate(&token, self.clock.now_ms())?))
        })
        .await
    }

    async fn sweep(&self, request: Request<SweepRequest>) -> Result<Response<SweepReply>, Status> {
        let deadline = deadline_of(request.metadata());
        answer(deadline, async { self.core()?.sweeper.sweep().await }).await
    }

    async fn fire_due(&self, request: Request<FireDueRequest>) -> Result<Response<FireDueReply>, Status> {
        let deadline = deadline_of(request.metadata());
        answer(deadline, async { self.core()?.firing.fire(request.into_inner()).await }).await
    }

    async fn reap(&self, request: Request<ReapRequest>) -> Result<Response<ReapReply>, Status> {
        let deadline = deadline_of(request.metadata());
        answer(deadline, async { self.core()?.reports.reap(request.into_inner()).await }).await
    }

    async fn tell_leaves(
        &self,
        request: Request<TellLeavesRequest>,
    ) -> Result<Response<TellLeavesReply>, Status> {
        let deadline = deadline_of(request.metadata());
        answer(deadline, async { self.core()?.reports.tell_leaves().await }).await
    }
}

/// Ends a call when its caller has stopped waiting. What it was doing is dropped with it, as when the caller takes its call
/// back: a read ends in the store too, a group of publishes goes on, as it is not the call's.
async fn answer<T>(
    deadline: Instant,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<Response<T>, Status> {
    // tonic tells nobody that a deadline has passed until the client has gone.
    match timeout_at(deadline, call).await {
        Ok(Ok(reply)) => Ok(Response::new(reply)),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Status::deadline_exceeded("the call's deadline has passed")),
    }
}

/// When the caller stops waiting: `grpc-timeout` from now, at most [`CALL_WITHIN`].
fn deadline_of(metadata: &MetadataMap) -> Instant {
    // Read by hand: tonic's own handling would answer in its words.
    let asked = metadata.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(grpc_timeout);
    Instant::now() + asked.unwrap_or(CALL_WITHIN).min(CALL_WITHIN)
}

/// At most eight digits and a unit, as gRPC writes durations.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value = u64::from_str(digits).ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3_600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// A verdict on each token, as far as a reply has room for them.
fn judge_all(auth: &Auth, tokens: &[String], now_ms: i64) -> AuthenticateManyReply {
    let mut reply = AuthenticateManyReply::default();
    let mut bytes = 0;
    for token in tokens {
        let verdict = match auth.authenticate(token, now_ms) {
            Ok(found) => Verdict::Known(identity(found)),
            Err(error) => Verdict::Invalid(error.to_string()),
        };
        let result = AuthenticateResult { result: Some(verdict) };
        bytes += result.encoded_len();
        // Grants may be long: a reply that nobody can take would be asked for again for ever.
        if bytes > BATCH_BYTES_MAX && !reply.results.is_empty() {
            break;
        }
        reply.results.push(result);
    }
    reply
}

fn identity(identity: Identity) -> AuthenticateReply {
    AuthenticateReply {
        user: identity.user.as_str().to_owned(),
        anonymous: identity.anonymous,
        token: identity.token.unwrap_or_default(),
        expires_at_ms: identity.expires_at_ms.unwrap_or(0),
        grants: Some(Grants { sub: identity.grants.sub, r#pub: identity.grants.publish }),
        info: identity.info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Claims, Grants};

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(grpc_timeout("2000000u"), Some(Duration::from_secs(2)));
        assert_eq!(grpc_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(grpc_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for bad in ["", "S", "5", "-5S", "123456789m", "5é", "1.5S"] {
            assert_eq!(grpc_timeout(bad), None, "{bad}");
        }
    }

    const NOW_MS: i64 = 1_763_719_200_000;

    #[test]
    fn each_token_has_a_verdict_of_its_own() {
        let auth = Auth::new("correct horse battery staple", None);
        let token =
            |user: &str| auth.sign(&Claims { sub: user.into(), ..Claims::default() }).expect("signed");
        let reply = judge_all(&auth, &[token("ann"), "x.y.z".into(), String::new(), token("bob")], NOW_MS);
        let seen: Vec<_> =
            reply.results.into_iter().map(|result| result.result.expect("a verdict")).collect();
        let [Verdict::Known(ann), Verdict::Invalid(read), Verdict::Invalid(missing), Verdict::Known(bob)] =
            seen.as_slice()
        else {
            panic!("{seen:?}")
        };
        assert_eq!((ann.user.as_str(), bob.user.as_str()), ("ann", "bob"));
        assert!(
            read.contains("cannot be read") && missing.contains("a token is needed"),
            "{read}, {missing}"
        );
    }

    #[test]
    fn a_reply_that_is_full_leaves_the_others_out_and_never_all() {
        let long = |n: usize| Grants { sub: vec!["r".repeat(100); n], publish: Vec::new() };
        let judged = |each: usize, count: usize| {
            let auth = Auth::new("correct horse battery staple", Some(long(each)));
            judge_all(&auth, &vec![String::new(); count], NOW_MS).results.len()
        };
        assert_eq!(judged(1, 256), 256);
        assert!((90..110).contains(&judged(100, 256)), "10 kB each");
        assert_eq!(judged(15_000, 2), 1, "one that is larger than a reply should be is answered alone");
    }

    #[test]
    fn what_is_for_tasks_is_for_nobody_else() {
        let may = |method: &str| may_call(&format!("/sluice.v1.Logic/{method}"));
        for method in ["Publish", "Read", "Subscribe", "Heads", "ReportStatus", "Presence", "Authenticate"] {
            assert_eq!(may(method), [Role::Gateway], "{method}");
        }
        for method in ["Sweep", "Reap", "TellLeaves"] {
            assert_eq!(may(method), [Role::Task], "{method}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_caller_waits_longer_than_we_allow() {
        let mut metadata = MetadataMap::new();
        let now = Instant::now();
        assert_eq!(deadline_of(&metadata), now + CALL_WITHIN);
        metadata.insert("grpc-timeout", "250m".parse().expect("valid"));
        assert_eq!(deadline_of(&metadata), now + Duration::from_millis(250));
        metadata.insert("grpc-timeout", "1H".parse().expect("valid"));
        assert_eq!(deadline_of(&metadata), now + CALL_WITHIN);
    }
}
