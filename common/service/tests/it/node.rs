//! A small gRPC node under a real lifecycle: health, and a push stream that acknowledges.

use std::pin::Pin;
use std::time::{Duration, Instant};

use sluice_lifecycle::{Lifecycle, Plan, Report, Stage, StopReason};
use sluice_proto::grpc::gateway_server::{Gateway, GatewayServer};
use sluice_proto::grpc::{
    DisconnectReply, DisconnectRequest, PushReply, PushRequest, UnsubscribeReply, UnsubscribeRequest,
    push_reply, push_request,
};
use sluice_proto::ids::InstanceId;
use sluice_service::grpc::access::Access;
use sluice_service::grpc::channels::Target;
use sluice_service::grpc::health::Health;
use sluice_service::grpc::peers::Peers;
use sluice_service::grpc::server::GrpcServer;
use sluice_service::listen;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

pub const GRACE: Duration = Duration::from_millis(2_000);

pub struct Node {
    pub address: String,
    pub lifecycle: Lifecycle,
    pub peers: Peers,
    pub health: Health,
    engine: JoinSet<Report>,
}

impl Node {
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0", true).await
    }

    /// With `polite`, push streams end at GOAWAY; else only when the client ends them.
    pub async fn start_at(address: &str, polite: bool) -> Self {
        Self::starting(address, polite, Access::default()).await
    }

    /// For whom this lets in.
    pub async fn start_with(access: Access) -> Self {
        Self::starting("127.0.0.1:0", true, access).await
    }

    async fn starting(address: &str, polite: bool, access: Access) -> Self {
        let plan = Plan::new(Duration::from_secs(4))
            .stage(Stage::Notify, Duration::from_millis(100))
            .stage(Stage::Drain, Duration::from_secs(3));
        let (lifecycle, engine) = Lifecycle::new(plan);
        let bound = listen::bind(address).await.unwrap();
        let address = bound.address().to_string();
        let (health, service) = Health::new().await;
        let peers = Peers::new();
        let goaway = lifecycle.scope(Stage::Notify).token();
        let push = Push { end: if polite { goaway.clone() } else { CancellationToken::new() } };
        let server = GrpcServer {
            routes: Routes::new(service).add_service(GatewayServer::new(push)),
            health: health.clone(),
            access,
            peers: peers.clone(),
            goaway,
            grace: GRACE,
        };
        server.serve(bound, &lifecycle.scope(Stage::Drain));
        health.serving().await;
        lifecycle.ready();
        let mut running = JoinSet::new();
        running.spawn(engine.run());
        Self { address, lifecycle, peers, health, engine: running }
    }

    pub fn target(&self, id: &str) -> Target {
        Target { id: InstanceId::parse(id).unwrap(), address: self.address.clone(), draining: false }
    }

    /// Stops it and says how long that took.
    pub async fn stop(mut self) -> (Report, Duration) {
        let start = Instant::now();
        self.lifecycle.stop(StopReason::Manual("test".into()));
        let report = self.engine.join_next().await.unwrap().unwrap();
        (report, start.elapsed())
    }
}

/// Acknowledges every batch; ends when `end` is cancelled, or the client ends the stream.
struct Push {
    end: CancellationToken,
}

#[tonic::async_trait]
impl Gateway for Push {
    type PushStream = Pin<Box<dyn Stream<Item = Result<PushReply, Status>> + Send>>;

    async fn push(
        &self,
        request: Request<Streaming<PushRequest>>,
    ) -> Result<Response<Self::PushStream>, Status> {
        assert!(request.remote_addr().is_some());
        let (end, pushes) = (self.end.clone(), request.into_inner());
        let replies = pushes.filter_map(|push| match push.ok()?.kind? {
            push_request::Kind::Batch(batch) => {
                Some(Ok(PushReply { kind: Some(push_reply::Kind::Acked(batch.id)) }))
            }
            push_request::Kind::Resync(_) => None,
        });
        let replies = futures::StreamExt::take_until(replies, end.cancelled_owned());
        Ok(Response::new(Box::pin(replies)))
    }

    async fn disconnect(&self, _: Request<DisconnectRequest>) -> Result<Response<DisconnectReply>, Status> {
        Err(Status::unimplemented("nobody is connected"))
    }

    async fn unsubscribe(
        &self,
        _: Request<UnsubscribeRequest>,
    ) -> Result<Response<UnsubscribeReply>, Status> {
        Err(Status::unimplemented("nobody is subscribed"))
    }
}

/// The client's half of a push stream.
pub fn pushes() -> (mpsc::Sender<PushRequest>, ReceiverStream<PushRequest>) {
    let (sender, receiver) = mpsc::channel(8);
    (sender, ReceiverStream::new(receiver))
}

pub fn batch(id: u64) -> PushRequest {
    let batch = sluice_proto::grpc::PushBatch { id, epoch: 1, runs: Vec::new() };
    PushRequest { kind: Some(push_request::Kind::Batch(batch)) }
}

/// Waits, within two seconds, until `holds`.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
