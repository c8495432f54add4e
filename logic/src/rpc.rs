//! The gRPC face of logic: deadlines and statuses, nothing else. Decides nothing.

use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sluice_proto::grpc::logic_server::{Logic, LogicServer};
use sluice_proto::grpc::{
    AuthenticateReply, AuthenticateRequest, Grants, HeadsReply, HeadsRequest, PresenceReply, PresenceRequest,
    PublishReply, PublishRequest, ReadReply, ReadRequest, ReapReply, ReapRequest, StatusReply, StatusRequest,
    SubscribeReply, SubscribeRequest, SweepReply, SweepRequest,
};
use sluice_proto::limits::GRPC_BYTES_MAX;
use sluice_service::clock::Clock;
use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::auth::{Auth, Identity};
use crate::defaults::CALL_WITHIN;
use crate::error::CallError;
use crate::presence::PresenceService;
use crate::probe::Probe;
use crate::publish::Publisher;
use crate::read::Reader;
use crate::sweep::Sweeper;

/// What answers calls once the store was reached.
pub struct Core {
    /// Answers `Publish`.
    pub publisher: Arc<Publisher>,
    /// Answers `Read`, `Heads` and `Subscribe`.
    pub reader: Reader,
    /// Answers `ReportStatus`, `Presence` and `Reap`.
    pub reports: PresenceService,
    /// Answers `Sweep`.
    pub sweeper: Sweeper,
}

/// The gRPC service `Logic`.
pub struct Rpc {
    /// Empty until the store was reached.
    pub core: Arc<OnceLock<Core>>,
    /// Answers `Authenticate`.
    pub auth: Auth,
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

    async fn sweep(&self, request: Request<SweepRequest>) -> Result<Response<SweepReply>, Status> {
        let deadline = deadline_of(request.metadata());
        answer(deadline, async { self.core()?.sweeper.sweep().await }).await
    }

    async fn reap(&self, request: Request<ReapRequest>) -> Result<Response<ReapReply>, Status> {
        let deadline = deadline_of(request.metadata());
        answer(deadline, async { self.core()?.reports.reap(request.into_inner()).await }).await
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

fn identity(identity: Identity) -> AuthenticateReply {
    AuthenticateReply {
        user: identity.user.as_str().to_owned(),
        anonymous: identity.anonymous,
        token: identity.token.unwrap_or_default(),
        expires_at_ms: identity.expires_at_ms.unwrap_or(0),
        grants: Some(Grants { sub: identity.grants.sub, r#pub: identity.grants.publish }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(grpc_timeout("2000000u"), Some(Duration::from_secs(2)));
        assert_eq!(grpc_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(grpc_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for bad in ["", "S", "5", "-5S", "123456789m", "5é", "1.5S"] {
            assert_eq!(grpc_timeout(bad), None, "{bad}");
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
