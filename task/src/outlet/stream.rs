//! The life of one push stream: open, send what gathers, hear acknowledgements, open again. Decides nothing; the
//! [`OutletQueue`](super::queue::OutletQueue) does.

use std::sync::Arc;

use sluice_proto::grpc::{GatewayState, PushReply, push_reply};
use sluice_proto::ids::InstanceId;
use sluice_service::grpc::channels::{Caller, dial};
use sluice_service::grpc::peers::{Peer, Peers};
use sluice_service::tls::Role;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::Outlet;
use super::registry::OutletRegistry;
use super::wire::{self, PushRequest};
use crate::defaults::{GOODBYE, OPEN_WITHIN, PUSHES_IN_FLIGHT_MAX, REOPEN_MAX, REOPEN_MIN};

/// Room for all that may be in flight and a resync before it; more would be a mistake of ours.
const SENDS_MAX: usize = PUSHES_IN_FLIGHT_MAX + 4;

/// What all streams share.
#[derive(Clone)]
pub(super) struct StreamParts {
    /// Hears who is at the other end.
    pub registry: Arc<OutletRegistry>,
    /// What is said of us.
    pub caller: Caller,
    /// Who is connected, for a stop that waits for draining gateways.
    pub peers: Peers,
}

/// An open push stream.
struct PushStream<'a> {
    outlet: &'a Outlet,
    registry: &'a OutletRegistry,
    peer: Peer,
    sends: mpsc::Sender<PushRequest>,
    replies: Streaming<PushReply>,
}

/// Keeps a stream open until `stop`, or until the address is listed no more and the stream has ended.
pub(super) async fn keep(outlet: Arc<Outlet>, parts: StreamParts, stop: CancellationToken) {
    let mut pause = REOPEN_MIN;
    loop {
        // Pushes wait for a first attempt, so it is bounded like a push.
        match stop.run_until_cancelled(timeout(OPEN_WITHIN, open(&outlet, &parts))).await {
            None => {}
            Some(Ok(Ok(stream))) => {
                // It worked: the next loss begins with a short pause again.
                pause = REOPEN_MIN;
                stream.run(&stop).await;
            }
            Some(Ok(Err(error))) => {
                tracing::debug!(gateway = &*outlet.address, %error, "A gateway cannot be reached.");
            }
            Some(Err(_)) => tracing::debug!(gateway = &*outlet.address, "A gateway does not answer."),
        }
        parts.registry.silent(&outlet);
        outlet.ended();
        // Many tasks lose a gateway at once, and all have lost it when it is back.
        let wait = pause.mul_f64(rand::random_range(0.5..=1.0));
        if parts.registry.leave(&outlet) || stop.run_until_cancelled(sleep(wait)).await.is_none() {
            return;
        }
        pause = (pause * 2).min(REOPEN_MAX);
    }
}

/// Dials and waits for the gateway's first word.
async fn open<'a>(outlet: &'a Outlet, parts: &'a StreamParts) -> Result<PushStream<'a>, Status> {
    let calls = dial(&outlet.address, Role::Gateway, &parts.caller)
        .map_err(|error| Status::internal(error.to_string()))?;
    // Bounded by what may be in flight: a full channel is a mistake of ours and ends the stream.
    let (sends, requests) = mpsc::channel(SENDS_MAX);
    let mut replies = wire::push(calls, requests).await?;
    let peer = parts.peers.connect(outlet.address.to_string());
    // Who is there must be known before anything is sent: pushes are addressed to instances.
    let first = replies.message().await?.and_then(|reply| reply.kind);
    let stream = PushStream { outlet, registry: &parts.registry, peer, sends, replies };
    match first {
        Some(push_reply::Kind::State(state)) => stream.says(&state)?,
        Some(push_reply::Kind::Acked(_)) | None => return Err(Status::internal("it did not say who it is")),
    }
    // Last: from here on pushes are sent.
    outlet.opened();
    Ok(stream)
}

impl PushStream<'_> {
    /// Sends and hears until the stream ends, or until `stop` and nobody waits for anything.
    async fn run(mut self, stop: &CancellationToken) {
        self.outlet.metrics.streams.inc();
        let end = self.exchange(stop).await;
        self.outlet.metrics.streams.dec();
        match end {
            Ok(()) => self.goodbye().await,
            Err(error) => {
                tracing::debug!(gateway = &*self.outlet.address, %error, "A push stream has ended.");
            }
        }
    }

    async fn exchange(&mut self, stop: &CancellationToken) -> Result<(), Status> {
        let mut stopping = false;
        loop {
            while let Some(next) = self.outlet.next() {
                let sent = self.sends.try_send(next.into());
                sent.map_err(|_| Status::unavailable("nothing more can be sent"))?;
            }
            // After what waits was sent: the stage before has stopped the supply.
            if stopping && self.outlet.is_settled() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => stopping = true,
                reply = self.replies.message() => {
                    let reply = reply?.ok_or_else(|| Status::unavailable("the gateway ended it"))?;
                    self.hear(reply)?;
                }
                () = self.outlet.wake.notified() => {}
                () = until(self.outlet.deadline()) => self.outlet.tick(),
            }
        }
    }

    fn hear(&self, reply: PushReply) -> Result<(), Status> {
        match reply.kind {
            Some(push_reply::Kind::State(state)) => self.says(&state)?,
            Some(push_reply::Kind::Acked(id)) => self.outlet.acked(id),
            // Of a later version.
            None => {}
        }
        Ok(())
    }

    fn says(&self, state: &GatewayState) -> Result<(), Status> {
        let instance =
            InstanceId::parse(&state.instance).map_err(|error| Status::internal(error.to_string()))?;
        self.peer.says(&instance, state.draining);
        self.registry.says(self.outlet, instance);
        Ok(())
    }

    /// Ends the stream from our side, so that the gateway sees an end and not a reset.
    async fn goodbye(self) {
        let Self { sends, mut replies, .. } = self;
        drop(sends);
        let end = async { while let Ok(Some(_)) = replies.message().await {} };
        // It ends with us at the latest.
        let _ = timeout(GOODBYE, end).await;
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
