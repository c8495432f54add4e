//! Ends connections and subscriptions of a user on every gateway, and revokes the user's tokens.
//!
//! What is revoked is committed first: from then on every logic refuses it soon, and every gateway finds it within two
//! looks, whether or not it is told. Then all registered gateways are told at once, again and again within a bound, and the
//! answer names those that were not reached. A logic that dies half-way leaves a call that can be made again: with the same
//! second it does no more than what is left to be done.

mod page;
mod read;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt as _, stream};
use sluice_proto::grpc::gateway_client::GatewayClient;
use sluice_proto::grpc::{DisconnectRequest, UnsubscribeRequest};
use sluice_proto::ids::{InstanceId, RoomId, SessionId, UserId};
use sluice_service::clock::Clock;
use sluice_service::grpc::channels::{CallerChannel, Channels, Pick};
use sluice_store::Store;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{Request, Status};

pub use self::page::{PAGE, routes};
use crate::defaults::{
    DISCONNECTS_MAX, LEEWAY_S, TELL_AGAIN, TELL_AT_ONCE_MAX, TELL_TRY_WITHIN, TELL_WITHIN,
};
use crate::error::CallError;
use crate::revocations::RevokedTokens;

/// What becomes of the tokens of who is disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens {
    /// They stay good: whoever was disconnected may come back.
    Keep,
    /// Those that were issued up to now are refused from now on, or up to this second since 1970, by the clock of who
    /// issues them. Whoever came with a later one stays.
    Revoke {
        /// At most half a minute ahead.
        issued_until_s: Option<u32>,
    },
}

/// Ends connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// Whose.
    pub user: UserId,
    /// This one alone; tokens are of users, so it keeps its own.
    pub session: Option<SessionId>,
    /// And the tokens.
    pub tokens: Tokens,
}

/// Ends subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Whose.
    pub user: UserId,
    /// Of this session alone.
    pub session: Option<SessionId>,
    /// To this room; `None`: to all.
    pub room: Option<RoomId>,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Up to which second tokens are refused, if they are.
    pub revoked_until_s: Option<u32>,
    /// Gateways that have done it, and how many connections or subscriptions each had.
    pub reached: BTreeMap<InstanceId, u32>,
    /// Gateways that are registered and could not be told, and why. What was revoked they find by themselves.
    pub unreached: BTreeMap<InstanceId, String>,
}

/// Answers calls that end something.
pub struct Disconnects {
    store: Arc<dyn Store>,
    revoked: RevokedTokens,
    gateways: Channels,
    clock: Clock,
    permits: Semaphore,
}

impl Disconnects {
    /// On the gateways of these channels.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, revoked: RevokedTokens, gateways: Channels, clock: Clock) -> Self {
        Self { store, revoked, gateways, clock, permits: Semaphore::new(DISCONNECTS_MAX) }
    }

    /// Ends connections of a user on all gateways, and revokes tokens if that is asked. May be made again.
    ///
    /// # Errors
    /// What is asked makes no sense, too many are under way, or the store: nothing was ended then, and nobody knows whether
    /// tokens were revoked.
    pub async fn disconnect(&self, call: Disconnect) -> Result<Told, CallError> {
        let _permit = self.permit()?;
        let Disconnect { user, session, tokens } = call;
        let revocation = match tokens {
            Tokens::Keep => None,
            Tokens::Revoke { .. } if session.is_some() => {
                let why = "a session has no tokens of its own: keep them, or disconnect the user";
                return Err(CallError::Invalid(why.to_owned()));
            }
            Tokens::Revoke { issued_until_s } => {
                self.check_second(issued_until_s)?;
                let revocation = self.store.revoke(&user, issued_until_s).await?;
                self.revoked.add(revocation.clone());
                Some(revocation)
            }
        };
        let revoked_until_s = revocation.as_ref().map(|revocation| revocation.issued_until_s);
        let request = DisconnectRequest {
            user: user.to_string(),
            session: text(session),
            revocation: revocation.map(Into::into),
        };
        let tell = |mut gateway: Client, request: Request<DisconnectRequest>| async move {
            gateway.disconnect(request).await.map(|reply| reply.into_inner().connections)
        };
        Ok(Told { revoked_until_s, ..self.tell_all(request, tell).await })
    }

    /// Ends subscriptions of a user on all gateways. May be made again.
    ///
    /// # Errors
    /// Too many are under way.
    pub async fn unsubscribe(&self, call: Unsubscribe) -> Result<Told, CallError> {
        let _permit = self.permit()?;
        let Unsubscribe { user, session, room } = call;
        let room = room.map(|room| room.to_string()).unwrap_or_default();
        let request = UnsubscribeRequest { user: user.to_string(), session: text(session), room };
        let tell = |mut gateway: Client, request: Request<UnsubscribeRequest>| async move {
            gateway.unsubscribe(request).await.map(|reply| reply.into_inner().subscriptions)
        };
        Ok(self.tell_all(request, tell).await)
    }

    fn permit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, CallError> {
        let why = || CallError::Full(format!("{DISCONNECTS_MAX} such calls are under way: ask again"));
        self.permits.try_acquire().map_err(|_| why())
    }

    /// A second that is far ahead would refuse the tokens that the user is given next.
    fn check_second(&self, issued_until_s: Option<u32>) -> Result<(), CallError> {
        let latest_s = self.clock.now_ms().div_euclid(1_000).saturating_add(LEEWAY_S);
        match issued_until_s {
            Some(until_s) if i64::from(until_s) > latest_s => Err(CallError::Invalid(format!(
                "issued_until is {until_s}, seconds since 1970; it may be at most {LEEWAY_S} s ahead, now {latest_s}"
            ))),
            Some(_) | None => Ok(()),
        }
    }

    /// Tells all that are registered, and those who register meanwhile; whoever leaves the registry needs not be told.
    async fn tell_all<Q, F>(&self, request: Q, tell: impl Fn(Client, Request<Q>) -> F) -> Told
    where
        Q: Clone,
        F: Future<Output = Result<u32, Status>>,
    {
        let by = Instant::now() + TELL_WITHIN;
        let mut told = Told::default();
        loop {
            let listed = self.gateways.all();
            told.unreached.retain(|id, _| listed.iter().any(|pick| pick.target().id == *id));
            let open = listed.into_iter().filter(|pick| !told.reached.contains_key(&pick.target().id));
            let calls: Vec<_> = open.map(|pick| one(pick, by, &request, &tell)).collect();
            let mut answers = stream::iter(calls).buffer_unordered(TELL_AT_ONCE_MAX);
            while let Some((id, answer)) = answers.next().await {
                match answer {
                    Ok(count) => {
                        told.unreached.remove(&id);
                        told.reached.insert(id, count);
                    }
                    Err(status) => {
                        told.unreached.insert(id, status.message().to_owned());
                    }
                }
            }
            let again = Instant::now() + TELL_AGAIN;
            if told.unreached.is_empty() || again >= by {
                return told;
            }
            sleep_until(again).await;
        }
    }
}

type Client = GatewayClient<CallerChannel>;

/// One try at one gateway.
async fn one<Q: Clone, F>(
    pick: Pick,
    by: Instant,
    request: &Q,
    tell: &impl Fn(Client, Request<Q>) -> F,
) -> (InstanceId, Result<u32, Status>)
where
    F: Future<Output = Result<u32, Status>>,
{
    // One that hangs must leave time for another try by a fresh connection.
    let try_by = by.min(Instant::now() + TELL_TRY_WITHIN);
    let mut request = Request::new(request.clone());
    request.set_timeout(try_by.saturating_duration_since(Instant::now()));
    let answer = timeout_at(try_by, tell(GatewayClient::new(pick.calls()), request)).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("it does not answer in time")));
    match &answer {
        Ok(_) => pick.succeeded(),
        Err(_) => pick.failed(),
    }
    (pick.target().id.clone(), answer)
}

fn text(session: Option<SessionId>) -> String {
    session.map(|session| session.to_string()).unwrap_or_default()
}
