//! Calls on logic: each with a deadline, on the channel its lane prefers, and an outcome that says whether
//! the request may have been executed. Nothing here decides what a reply means.

mod authenticate;
mod tickets;

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_proto::grpc::logic_client::LogicClient;
use sluice_proto::grpc::{
    HeadsReply, HeadsRequest, PresenceReply, PresenceRequest, PublishReply, PublishRequest, ReadReply,
    ReadRequest, RevocationsReply, RevocationsRequest, StatusReply, StatusRequest, SubscribeReply,
    SubscribeRequest,
};
use sluice_proto::ids::{Epoch, InstanceId, RoomId};
use sluice_proto::limits::GRPC_BYTES_MAX;
use sluice_service::clock::Clock;
use sluice_service::clock::skew::{Clocks, Exchange};
use sluice_service::grpc::channels::{CallerChannel, Channels, Pick};
use sluice_service::grpc::time_of;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

pub use self::authenticate::Authenticated;
pub use self::tickets::Issued;
use crate::defaults::{CALL_WITHIN, HEARD_WITHIN};
use crate::uplink::lane::CallFailed;

/// Redis' marker as last seen in any reply: another value means that Redis forgot, or started anew.
#[derive(Debug, Default)]
pub struct Marker {
    value: AtomicU64,
    changed: Notify,
}

impl Marker {
    /// A reply brought this marker; 0 = logic could not read it.
    pub fn saw(&self, marker: u64) {
        if marker != 0 && self.value.swap(marker, Ordering::Relaxed) != marker {
            self.changed.notify_one();
        }
    }

    /// The last one; 0 = none yet.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    /// Ends when another one was seen. Cancel-safe; one waiter.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// The epoch of the store as last heard, 0 before.
#[derive(Debug, Default)]
pub struct LastEpoch(AtomicU64);

impl LastEpoch {
    /// A reply carried this epoch.
    pub fn saw(&self, epoch: u64) {
        if epoch != 0 {
            self.0.store(epoch, Ordering::Relaxed);
        }
    }

    /// The last epoch that an answer named.
    #[must_use]
    pub fn get(&self) -> Option<Epoch> {
        Epoch::from_wire(self.0.load(Ordering::Relaxed))
    }
}

/// All calls of this gateway.
#[derive(Debug)]
pub struct Calls {
    channels: Channels,
    me: watch::Receiver<InstanceId>,
    marker: Marker,
    epoch: LastEpoch,
    began: Instant,
    /// When a logic last answered, milliseconds after `began`; 0 = never.
    heard_ms: AtomicU64,
    traces: Traces,
    /// Ours, and how far those of logics are from it.
    clocks: Option<(Clock, Clocks)>,
}

/// Calls that told interest or presence, which Redis may hold since: all but those that certainly never left this
/// process. One that is under way counts, or given up, as it may have been executed.
#[derive(Debug, Default)]
struct Traces(AtomicU64);

impl Traces {
    async fn of<R>(&self, call: impl Future<Output = Result<R, Status>>) -> Result<R, Status> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let result = call.await;
        if result.as_ref().err().is_some_and(never_connected) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
        result
    }
}

type Client = LogicClient<CallerChannel>;

impl Calls {
    /// Calls on whatever logics `channels` knows.
    #[must_use]
    pub fn new(channels: Channels, me: watch::Receiver<InstanceId>) -> Self {
        Self {
            channels,
            me,
            marker: Marker::default(),
            epoch: LastEpoch::default(),
            began: Instant::now(),
            heard_ms: AtomicU64::new(0),
            traces: Traces::default(),
            clocks: None,
        }
    }

    /// Compares the clock of whoever answers with `clock`.
    #[must_use]
    pub fn comparing(mut self, clock: Clock, clocks: Clocks) -> Self {
        self.clocks = Some((clock, clocks));
        self
    }

    /// Whether our clock is near enough to that of the logics.
    ///
    /// # Errors
    /// By how much it is not.
    pub fn clock_agrees(&self) -> Result<(), String> {
        self.clocks.as_ref().map_or(Ok(()), |(_, clocks)| clocks.verdict())
    }

    /// Reads the clock of who answered.
    fn compare(&self, peer: &str, asked_ms: Option<i64>, metadata: &MetadataMap) {
        if let (Some((clock, clocks)), Some(asked_ms), Some(theirs_ms)) =
            (&self.clocks, asked_ms, time_of(metadata))
        {
            clocks.compared(peer, Exchange { asked_ms, theirs_ms, answered_ms: clock.now_ms() });
        }
    }

    /// The marker of Redis, as logic last told it.
    #[must_use]
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    /// The store's epoch as last heard.
    #[must_use]
    pub fn epoch(&self) -> &LastEpoch {
        &self.epoch
    }

    /// The channels to logics.
    #[must_use]
    pub fn channels(&self) -> &Channels {
        &self.channels
    }

    /// This gateway's instance id now.
    #[must_use]
    pub fn me(&self) -> InstanceId {
        self.me.borrow().clone()
    }

    /// Whether a logic answered a moment ago.
    #[must_use]
    pub fn heard_lately(&self) -> bool {
        let heard = self.heard_ms.load(Ordering::Relaxed);
        let ago = self.began.elapsed().saturating_sub(Duration::from_millis(heard));
        heard != 0 && ago < HEARD_WITHIN
    }

    fn heard(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(now.max(1), Ordering::Relaxed);
    }

    /// One try of a batch.
    ///
    /// # Errors
    /// Whether it may have been executed.
    pub async fn publish(
        &self,
        lane: u8,
        request: PublishRequest,
        within: Duration,
    ) -> Result<PublishReply, CallFailed> {
        let by = Instant::now() + within;
        let call = |mut client: Client, request| async move { client.publish(request).await };
        self.once(lane, request, by, call).await
    }

    /// Stores interest in `rooms`, then reads their heads.
    ///
    /// # Errors
    /// No answer in time.
    pub async fn subscribe(&self, lane: u8, rooms: &[RoomId]) -> Result<SubscribeReply, CallFailed> {
        let request = SubscribeRequest { instance: self.me().to_string(), rooms: texts(rooms) };
        let call =
            |mut client: Client, request| async move { self.traces.of(client.subscribe(request)).await };
        let reply = self.within(lane, request, CALL_WITHIN, call).await?;
        self.marker.saw(reply.marker);
        self.epoch.saw(reply.epoch);
        whole(reply.heads.len(), rooms.len())?;
        Ok(reply)
    }

    /// Reads the heads of `rooms`.
    ///
    /// # Errors
    /// No answer in time.
    pub async fn heads(&self, lane: u8, rooms: &[RoomId]) -> Result<HeadsReply, CallFailed> {
        let request = HeadsRequest { rooms: texts(rooms) };
        let call = |mut client: Client, request| async move { client.heads(request).await };
        let reply = self.within(lane, request, CALL_WITHIN, call).await?;
        self.marker.saw(reply.marker);
        self.epoch.saw(reply.epoch);
        whole(reply.heads.len(), rooms.len())?;
        Ok(reply)
    }

    /// Reads pages.
    ///
    /// # Errors
    /// No answer in time.
    pub async fn read(&self, lane: u8, request: ReadRequest) -> Result<ReadReply, CallFailed> {
        let asked = request.ranges.len();
        let call = |mut client: Client, request| async move { client.read(request).await };
        let reply = self.within(lane, request, CALL_WITHIN, call).await?;
        self.epoch.saw(reply.epoch);
        whole(reply.pages.len(), asked)?;
        Ok(reply)
    }

    /// Asks who is in a room.
    ///
    /// # Errors
    /// No answer in time.
    pub async fn presence(&self, lane: u8, request: PresenceRequest) -> Result<PresenceReply, CallFailed> {
        let call = |mut client: Client, request| async move { client.presence(request).await };
        self.within(lane, request, CALL_WITHIN, call).await
    }

    /// Reports changes of connections.
    ///
    /// # Errors
    /// No answer in time.
    pub async fn report(&self, request: StatusRequest, within: Duration) -> Result<StatusReply, CallFailed> {
        let tells = !request.changes.is_empty() || request.full.is_some();
        let call = |mut client: Client, request| async move {
            let call = client.report_status(request);
            if tells { self.traces.of(call).await } else { call.await }
        };
        let reply = self.within(0, request, within, call).await?;
        self.marker.saw(reply.marker);
        self.epoch.saw(reply.epoch);
        Ok(reply)
    }

    /// Asks for revocations after a position, or only where they end. `None`: the logic that was asked is of a version
    /// that knows none.
    ///
    /// # Errors
    /// No answer in time.
    pub async fn revocations(&self, after: Option<u64>) -> Result<Option<RevocationsReply>, CallFailed> {
        let by = Instant::now() + CALL_WITHIN;
        // Any logic will do, and another one each time: one may be behind.
        let lane = rand::random();
        let Ok(pick) = timeout_at(by, self.channels.pick_or_wait(lane)).await else {
            return Err(CallFailed::NotSent);
        };
        let call = |mut client: Client, request| async move { client.revocations(request).await };
        match self.on(&pick, RevocationsRequest { after }, by, call).await {
            Ok(reply) => Ok(Some(reply)),
            Err(status) if status.code() == Code::Unimplemented => Ok(None),
            Err(_) => Err(CallFailed::Unknown),
        }
    }

    /// Whether Redis may hold anything of this gateway.
    #[must_use]
    pub fn left_traces(&self) -> bool {
        self.traces.0.load(Ordering::Relaxed) > 0
    }

    /// Tells every logic we have a connection to that we drain, at once and in parallel: the last of them
    /// has to know whom it waits for.
    pub async fn tell_draining(&self, within: Duration) {
        let by = Instant::now() + within;
        let calls = self.channels.connected().into_iter().map(|pick| {
            let request =
                StatusRequest { instance: self.me().to_string(), draining: true, ..Default::default() };
            async move {
                let call = |mut client: Client, request| async move { client.report_status(request).await };
                self.on(&pick, request, by, call).await.is_ok()
            }
        });
        let told = futures::future::join_all(calls).await;
        tracing::debug!(
            told = told.iter().filter(|told| **told).count(),
            of = told.len(),
            "Logics know that we drain."
        );
    }

    /// Whether a logic answers: what makes a gateway ready.
    pub async fn answers(&self, within: Duration) -> bool {
        let call = |mut client: Client, request| async move { client.heads(request).await };
        let reply = self.within(0, HeadsRequest::default(), within, call).await;
        let Ok(reply) = reply else { return false };
        self.marker.saw(reply.marker);
        self.epoch.saw(reply.epoch);
        true
    }

    /// A call that may be made twice: tried again once, elsewhere if possible, inside one deadline.
    async fn within<Q: Clone, R, F>(
        &self,
        lane: u8,
        request: Q,
        within: Duration,
        call: impl Fn(Client, Request<Q>) -> F,
    ) -> Result<R, CallFailed>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let by = Instant::now() + within;
        match self.once(lane, request.clone(), by, &call).await {
            Ok(reply) => Ok(reply),
            // No time for a second try: what the first one did is not known.
            Err(_) if Instant::now() >= by => Err(CallFailed::Unknown),
            Err(_) => self.once(lane, request, by, call).await,
        }
    }

    async fn once<Q, R, F>(
        &self,
        lane: u8,
        request: Q,
        by: Instant,
        call: impl FnOnce(Client, Request<Q>) -> F,
    ) -> Result<R, CallFailed>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let Ok(pick) = timeout_at(by, self.channels.pick_or_wait(lane)).await else {
            return Err(CallFailed::NotSent);
        };
        let result = self.on(&pick, request, by, call).await;
        // Only where no connection was made is it certain that nothing was executed.
        result.map_err(
            |status| if never_connected(&status) { CallFailed::NotSent } else { CallFailed::Unknown },
        )
    }

    /// One call on one logic, and what it says about that logic.
    async fn on<Q, R, F>(
        &self,
        pick: &Pick,
        request: Q,
        by: Instant,
        call: impl FnOnce(Client, Request<Q>) -> F,
    ) -> Result<R, Status>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let client = LogicClient::new(pick.calls())
            .max_decoding_message_size(GRPC_BYTES_MAX)
            .max_encoding_message_size(GRPC_BYTES_MAX);
        let mut request = Request::new(request);
        request.set_timeout(by.saturating_duration_since(Instant::now()));
        let peer = pick.target().id.as_str();
        let due = self.clocks.as_ref().filter(|(_, clocks)| clocks.due(peer));
        let asked_ms = due.map(|(clock, _)| clock.now_ms());
        let result = match timeout_at(by, call(client, request)).await {
            Ok(result) => result.map(|answer| {
                self.compare(peer, asked_ms, answer.metadata());
                answer.into_inner()
            }),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        };
        match &result {
            Ok(_) => {
                self.heard();
                pick.succeeded();
            }
            Err(status) if is_of_the_way(status.code()) => {
                tracing::debug!(logic = %pick.target().id, %status, "A call on logic failed.");
                pick.failed();
            }
            // A refusal is about the request: the logic that gave it is as good as before.
            Err(_) => {}
        }
        result
    }
}

/// Whether a status speaks of the instance or the way to it rather than of the request.
fn is_of_the_way(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown | Code::Internal
    )
}

/// Whether the failure is that no connection could be made.
fn never_connected(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A reply of another shape answers nothing.
fn whole(got: usize, asked: usize) -> Result<(), CallFailed> {
    if got == asked { Ok(()) } else { Err(CallFailed::Unknown) }
}

fn texts(rooms: &[RoomId]) -> Vec<String> {
    rooms.iter().map(|room| room.as_str().to_owned()).collect()
}
