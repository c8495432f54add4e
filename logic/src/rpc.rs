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
    ReapReply, ReapRequest, RevocationsReply, RevocationsRequest, StatusReply, StatusRequest, SubscribeReply,
    SubscribeRequest, SweepReply, SweepRequest, TakeTicketRequest, TellLeavesReply, TellLeavesRequest,
};
use sluice_proto::limits::{BATCH_BYTES_MAX, GRPC_BYTES_MAX, TOKENS_PER_CALL_MAX};
use sluice_proto::revocation::Standing;
use sluice_service::clock::Clock;
use sluice_service::tls::Role;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::auth::{Auth, AuthError, Identity};
use crate::defaults::{CALL_WITHIN, TICKET_FOR};
use crate::disconnect::Disconnects;
use crate::due::Firing;
use crate::error::CallError;
use crate::jwks::Jwks;
use crate::presence::PresenceService;
use crate::probe::Probe;
use crate::publish::Publisher;
use crate::read::Reader;
use crate::revocations::{Holder, RevokedTokens};
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
    /// Answers `Revocations`; every verdict on a token asks it.
    pub revoked: RevokedTokens,
    /// Ends connections and subscriptions of users.
    pub disconnects: Disconnects,
}

/// The gRPC service `Logic`.
pub struct Rpc {
    /// Empty until the store was reached.
    pub core: Arc<OnceLock<Core>>,
    /// Answers `Authenticate`.
    pub auth: Auth,
    /// Has keys that tokens name and nobody here knows.
    pub jwks: Option<Jwks>,
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

    /// Who holds a token, if it is good now.
    async fn judge(&self, token: String) -> Result<AuthenticateReply, CallError> {
        let revoked = &self.core()?.revoked;
        let tokens = [token];
        let all_known = self.knows_all_keys(&tokens).await;
        if !all_known && self.auth.lacks_key(&tokens[0]) {
            // Not `unavailable`, which is a word about this process.
            return Err(CallError::Full("the key of the token cannot be fetched now".into()));
        }
        let found = self.auth.authenticate(&tokens[0], self.clock.now_ms())?;
        let (looked_at, standings) = revoked.judge(&[holder(&found)]).await;
        match standings.first() {
            Some(Standing::Good) => Ok(AuthenticateReply { revocations: Some(looked_at), ..identity(found) }),
            Some(Standing::Revoked) => Err(AuthError::Revoked.into()),
            Some(Standing::Unknown) | None => Err(CallError::NotNow(IN_DOUBT.to_owned())),
        }
    }

    /// Whether tokens with a key that is unknown now may be refused for it: what is known was fetched after they came. Where
    /// one has such a key the set is asked for, and waited for a little.
    async fn knows_all_keys(&self, tokens: &[String]) -> bool {
        let Some(jwks) = &self.jwks else { return true };
        if !tokens.iter().any(|token| self.auth.lacks_key(token)) {
            return true;
        }
        jwks.newest().await
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
        let deadline = deadline_of(request.metadata());
        answer(deadline, self.judge(request.into_inner().token)).await
    }

    async fn authenticate_many(
        &self,
        request: Request<AuthenticateManyRequest>,
    ) -> Result<Response<AuthenticateManyReply>, Status> {
        let deadline = deadline_of(request.metadata());
        let tokens = request.into_inner().tokens;
        if tokens.is_empty() || tokens.len() > TOKENS_PER_CALL_MAX {
            let text = format!("{} tokens, 1 to {TOKENS_PER_CALL_MAX} are allowed", tokens.len());
            return Err(CallError::Invalid(text).into());
        }
        let call = async {
            let revoked = &self.core()?.revoked;
            let all_known = self.knows_all_keys(&tokens).await;
            let (mut reply, holders) = judge_all(&self.auth, &tokens, all_known, self.clock.now_ms()).await;
            let (looked_at, standings) = revoked.judge(&holders).await;
            take_revoked(&mut reply, looked_at, &standings);
            Ok(reply)
        };
        answer(deadline, call).await
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
            self.judge(token.clone()).await?;
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
            // Before it is taken, which is once.
            self.core()?;
            let taken = self.tickets.take(&request.into_inner().ticket).await;
            let token = taken.map_err(CallError::TicketsAway)?.ok_or(CallError::NoTicket)?;
            // Judged now, not when it was issued: it may have expired since.
            self.judge(token).await
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

    async fn revocations(
        &self,
        request: Request<RevocationsRequest>,
    ) -> Result<Response<RevocationsReply>, Status> {
        let deadline = deadline_of(request.metadata());
        answer(deadline, async { self.core()?.revoked.tell(request.into_inner()).await }).await
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

/// A verdict on each token, as far as a reply has room for them, none on one whose key may come yet; and who holds those
/// that are valid.
async fn judge_all(
    auth: &Auth,
    tokens: &[String],
    all_known: bool,
    now_ms: i64,
) -> (AuthenticateManyReply, Vec<Holder>) {
    let (mut reply, mut holders) = (AuthenticateManyReply::default(), Vec::new());
    let mut bytes = 0;
    for token in tokens {
        let found = auth.authenticate(token, now_ms);
        let held_by = found.as_ref().ok().map(holder);
        let verdict = match found {
            Ok(found) => Some(Verdict::Known(identity(found))),
            // A gateway takes that for "nobody could say": the client comes back, and is not sent away for good.
            Err(_) if !all_known && auth.lacks_key(token) => None,
            Err(error) => Some(Verdict::Invalid(error.to_string())),
        };
        let result = AuthenticateResult { result: verdict };
        // A signature costs a fraction of a millisecond, and a call has hundreds: publishes go on between them.
        yield_now().await;
        bytes += result.encoded_len();
        // Grants may be long: a reply that nobody can take would be asked for again for ever.
        if bytes > BATCH_BYTES_MAX && !reply.results.is_empty() {
            break;
        }
        reply.results.push(result);
        holders.extend(held_by);
    }
    (reply, holders)
}

/// What became of those that are valid when revocations were looked at, in their order. Who is in doubt has no verdict: a
/// gateway tells its client to come back.
fn take_revoked(reply: &mut AuthenticateManyReply, looked_at: u64, standings: &[Standing]) {
    let valid = reply.results.iter_mut().filter(|one| matches!(one.result, Some(Verdict::Known(_))));
    for (result, standing) in valid.zip(standings) {
        match (standing, &mut result.result) {
            (Standing::Good, Some(Verdict::Known(known))) => known.revocations = Some(looked_at),
            (Standing::Good | Standing::Unknown, _) => result.result = None,
            (Standing::Revoked, _) => result.result = Some(Verdict::Invalid(AuthError::Revoked.to_string())),
        }
    }
}

/// The store did not say whether an old token is among old revocations.
const IN_DOUBT: &str = "it is not known now whether the token is revoked";

fn holder(identity: &Identity) -> Holder {
    Holder { user: identity.user.clone(), issued_at_s: identity.issued_at_s }
}

fn identity(identity: Identity) -> AuthenticateReply {
    AuthenticateReply {
        user: identity.user.as_str().to_owned(),
        anonymous: identity.anonymous,
        token: identity.token.unwrap_or_default(),
        expires_at_ms: identity.expires_at_ms.unwrap_or(0),
        grants: Some(Grants { sub: identity.grants.sub, r#pub: identity.grants.publish }),
        info: identity.info,
        issued_at_s: identity.issued_at_s.unwrap_or(0),
        revocations: None,
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

    #[tokio::test]
    async fn each_token_has_a_verdict_of_its_own() {
        let auth = Auth::new("correct horse battery staple", None);
        let token =
            |user: &str| auth.sign(&Claims { sub: user.into(), ..Claims::default() }).expect("signed");
        let tokens = [token("ann"), "x.y.z".into(), String::new(), token("bob")];
        let (reply, holders) = judge_all(&auth, &tokens, true, NOW_MS).await;
        assert_eq!(holders.iter().map(|it| it.user.as_str()).collect::<Vec<_>>(), ["ann", "bob"]);
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

    #[tokio::test]
    async fn revocations_are_of_those_who_hold_a_valid_token() {
        let auth = Auth::new("correct horse battery staple", None);
        let token =
            |user: &str| auth.sign(&Claims { sub: user.into(), ..Claims::default() }).expect("signed");
        let tokens = ["x.y.z".into(), token("ann"), token("bob"), String::new(), token("carl")];
        let (mut reply, _) = judge_all(&auth, &tokens, true, NOW_MS).await;
        take_revoked(&mut reply, 7, &[Standing::Revoked, Standing::Unknown, Standing::Good]);
        let seen: Vec<_> = reply.results.into_iter().map(|one| one.result).collect();
        let invalid =
            |at: usize, why| matches!(&seen[at], Some(Verdict::Invalid(text)) if text.contains(why));
        assert!(invalid(0, "cannot be read") && invalid(1, "revoked") && invalid(3, "a token is needed"));
        assert_eq!(seen[2], None, "who is in doubt is told to come back");
        assert!(matches!(&seen[4], Some(Verdict::Known(carl)) if carl.revocations == Some(7)));
    }

    #[tokio::test]
    async fn a_reply_that_is_full_leaves_the_others_out_and_never_all() {
        let long = |n: usize| Grants { sub: vec!["r".repeat(100); n], publish: Vec::new() };
        let judged = async |each: usize, count: usize| {
            let auth = Auth::new("correct horse battery staple", Some(long(each)));
            judge_all(&auth, &vec![String::new(); count], true, NOW_MS).await.0.results.len()
        };
        assert_eq!(judged(1, 256).await, 256);
        assert!((90..110).contains(&judged(100, 256).await), "10 kB each");
        assert_eq!(judged(15_000, 2).await, 1, "one that is larger than a reply should be is answered alone");
    }

    #[tokio::test]
    async fn whose_key_may_come_yet_has_no_verdict_and_the_others_do() {
        let auth = Auth::new("correct horse battery staple", None);
        let good = auth.sign(&Claims { sub: "ann".into(), ..Claims::default() }).expect("signed");
        let (_, rest) = good.split_once('.').expect("three parts");
        // {"alg":"ES256","kid":"k"}
        let tokens = [format!("eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.{rest}"), good.clone(), "x.y.z".into()];
        let judged = async |all_known: bool| {
            let (reply, _) = judge_all(&auth, &tokens, all_known, NOW_MS).await;
            let one = |result: AuthenticateResult| match result.result {
                Some(Verdict::Known(_)) => "known",
                Some(Verdict::Invalid(_)) => "invalid",
                None => "open",
            };
            reply.results.into_iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(judged(false).await, ["open", "known", "invalid"]);
        assert_eq!(judged(true).await, ["invalid", "known", "invalid"]);
    }

    #[test]
    fn what_is_for_tasks_is_for_nobody_else() {
        let may = |method: &str| may_call(&format!("/sluice.v1.Logic/{method}"));
        for method in [
            "Publish",
            "Read",
            "Subscribe",
            "Heads",
            "ReportStatus",
            "Presence",
            "Authenticate",
            "Revocations",
        ] {
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
