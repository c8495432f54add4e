//! The gRPC server of a gateway: tasks push committed messages here, logics end connections of users. A batch is acknowledged when the home
//! shards of its rooms have accepted it. First of all and at every change the stream is told who we are.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use sluice_proto::grpc::gateway_server::{Gateway, GatewayServer};
use sluice_proto::grpc::{
    DisconnectReply, DisconnectRequest, GatewayState, PushReply, PushRequest, RoomRun, UnsubscribeReply,
    UnsubscribeRequest, push_reply, push_request,
};
use sluice_proto::ids::{Epoch, InstanceId};
use sluice_proto::limits::GRPC_BYTES_MAX;
use sluice_service::grpc::caller_of;
use sluice_service::tls::Role;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::disconnect::Disconnects;
use crate::metrics::Metrics;
use crate::pushers::{PusherId, Pushers};
use crate::repair::Missed;
use crate::shard::handle::Shards;
use crate::shard::watchers::RoomTelling;

/// The gRPC service `Gateway`.
#[derive(Debug, Clone)]
pub struct Push {
    /// The shards that pushes go to.
    pub shards: Shards,
    /// The instance id of this gateway.
    pub me: watch::Receiver<InstanceId>,
    /// Whether this gateway drains.
    pub draining: watch::Receiver<bool>,
    /// What homes have to know.
    pub missed: watch::Sender<Missed>,
    /// When cancelled, streams end.
    pub stop: CancellationToken,
    /// Whose streams these are.
    pub pushers: Pushers,
    /// The metrics of pushes.
    pub metrics: Metrics,
    /// Permits for streams.
    pub streams: Arc<Semaphore>,
    /// Ends connections of users.
    pub disconnects: Disconnects,
}

impl Push {
    /// As a service for the gRPC server.
    #[must_use]
    pub fn service(self) -> GatewayServer<Self> {
        GatewayServer::new(self)
            .max_decoding_message_size(GRPC_BYTES_MAX)
            .max_encoding_message_size(GRPC_BYTES_MAX)
    }
}

/// One stream of a task.
struct Pushing {
    push: Push,
    requests: Streaming<PushRequest>,
    by: PusherId,
    told: Option<(InstanceId, bool)>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Pushing {
    fn drop(&mut self) {
        // However it ended: what its task had in hand comes again after 2 s, or is found by asking (C5).
        self.push.missed.send_modify(|missed| missed.ended += 1);
    }
}

impl Pushing {
    /// The next reply; `None` ends the stream.
    async fn next(&mut self) -> Option<Result<PushReply, Status>> {
        loop {
            let now = (self.push.me.borrow_and_update().clone(), *self.push.draining.borrow_and_update());
            if self.told.as_ref() != Some(&now) {
                let state = GatewayState { instance: now.0.to_string(), draining: now.1 };
                self.told = Some(now);
                return Some(Ok(PushReply { kind: Some(push_reply::Kind::State(state)) }));
            }
            let Push { me, draining, stop, .. } = &mut self.push;
            // Who we are before what is pushed: an ack under the old id would be for an instance that is gone.
            let request = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                Ok(()) = me.changed() => continue,
                Ok(()) = draining.changed() => continue,
                request = self.requests.message() => request,
            };
            match request {
                Ok(Some(PushRequest { kind: Some(kind) })) => {
                    if let Some(reply) = self.take(kind).await {
                        return Some(Ok(reply));
                    }
                }
                // A kind that a later version has: this one owes no answer to it.
                Ok(Some(PushRequest { kind: None })) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Who came and left, to whoever watches in any shard.
    fn tell(&self, runs: &[RoomRun]) {
        let tellings: Arc<[RoomTelling]> = runs.iter().filter_map(RoomTelling::encode).collect();
        if !tellings.is_empty() && !self.push.shards.tell(&tellings) {
            self.push.missed.send_modify(|missed| missed.told += 1);
        }
    }

    async fn take(&mut self, kind: push_request::Kind) -> Option<PushReply> {
        match kind {
            push_request::Kind::Batch(batch) => {
                self.push.metrics.pushes.inc();
                // Acknowledged when the homes have it in their queues, not when clients have: a slow shard must not stop NATS (D3).
                let (presence, runs): (Vec<RoomRun>, _) =
                    batch.runs.into_iter().partition(|run| !run.presence.is_empty());
                self.tell(&presence);
                if let Some(epoch) = Epoch::from_wire(batch.epoch).filter(|_| !runs.is_empty()) {
                    self.push.shards.push(epoch, self.by, runs).await;
                }
                Some(PushReply { kind: Some(push_reply::Kind::Acked(batch.id)) })
            }
            push_request::Kind::Resync(_) => {
                // Counted, not flagged: two that come before a shard looks are still seen by each shard.
                self.push.missed.send_modify(|missed| missed.resync += 1);
                None
            }
        }
    }
}

/// Who opens a stream: what it calls itself, which anybody may, and where it is.
fn who<T>(request: &Request<T>) -> String {
    let name = caller_of(request.metadata());
    let name = name.map_or_else(|| "a task without a name".to_owned(), |name| name.to_string());
    match request.remote_addr() {
        Some(from) => format!("{name} at {from}"),
        None => name,
    }
}

/// Whose certificate is good for a method of this service.
pub fn may_call(path: &str) -> &'static [Role] {
    match path {
        "/sluice.v1.Gateway/Disconnect" | "/sluice.v1.Gateway/Unsubscribe" => &[Role::Logic],
        _ => &[Role::Task],
    }
}

#[tonic::async_trait]
impl Gateway for Push {
    type PushStream = Pin<Box<dyn Stream<Item = Result<PushReply, Status>> + Send>>;

    async fn push(
        &self,
        request: Request<Streaming<PushRequest>>,
    ) -> Result<Response<Self::PushStream>, Status> {
        // Refused at once: waiting for a place, a task would believe that it has a stream.
        let place = Arc::clone(&self.streams).try_acquire_owned();
        let _place = place.map_err(|_| Status::resource_exhausted("too many push streams"))?;
        let by = self.pushers.opened(who(&request));
        let pushing = Pushing { push: self.clone(), requests: request.into_inner(), by, told: None, _place };
        let replies = futures::stream::unfold(pushing, |mut pushing| async move {
            let reply = pushing.next().await?;
            Some((reply, pushing))
        });
        Ok(Response::new(Box::pin(replies)))
    }
    async fn disconnect(
        &self,
        request: Request<DisconnectRequest>,
    ) -> Result<Response<DisconnectReply>, Status> {
        self.disconnects.disconnect(request.into_inner()).await.map(Response::new)
    }

    async fn unsubscribe(
        &self,
        request: Request<UnsubscribeRequest>,
    ) -> Result<Response<UnsubscribeReply>, Status> {
        self.disconnects.unsubscribe(request.into_inner()).await.map(Response::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_logics_is_for_nobody_else() {
        let may = |method: &str| may_call(&format!("/sluice.v1.Gateway/{method}"));
        assert_eq!(["Disconnect", "Unsubscribe"].map(may), [&[Role::Logic]; 2]);
        assert_eq!(may("Push"), [Role::Task]);
    }
}
