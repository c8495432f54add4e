//! A gateway as task sees it: a real gRPC server that keeps what it was pushed, and can be wedged or cut.

use std::sync::{Arc, Mutex};

use sluice_proto::grpc::gateway_server::{self, GatewayServer};
use sluice_proto::grpc::{
    DisconnectReply, DisconnectRequest, GatewayState, PushReply, PushRequest, RoomRun, UnsubscribeReply,
    UnsubscribeRequest, push_reply, push_request,
};
use sluice_proto::ids::InstanceId;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

#[derive(Debug, Clone, PartialEq)]
pub enum Got {
    Opened,
    Resync,
    Run(RoomRun),
}

#[derive(Clone)]
struct Inner {
    state: watch::Sender<GatewayState>,
    wedged: watch::Sender<bool>,
    /// Another number ends the streams that began under this one.
    life: watch::Sender<u64>,
    got: Arc<Mutex<Vec<Got>>>,
    streams: Arc<Mutex<JoinSet<()>>>,
}

pub struct Gateway {
    pub address: String,
    inner: Inner,
    _server: JoinSet<()>,
}

impl Gateway {
    pub async fn start(id: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let inner = Inner {
            state: watch::Sender::new(GatewayState { instance: id.into(), draining: false }),
            wedged: watch::Sender::new(false),
            life: watch::Sender::new(0),
            got: Arc::default(),
            streams: Arc::default(),
        };
        let server = tonic::transport::Server::builder().add_service(GatewayServer::new(inner.clone()));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, inner, _server: tasks }
    }

    pub fn id(&self) -> InstanceId {
        InstanceId::parse(&self.inner.state.borrow().instance).unwrap()
    }

    pub fn says(&self, id: &str, draining: bool) {
        self.inner.state.send_replace(GatewayState { instance: id.into(), draining });
    }

    /// From now on it takes what is pushed and acknowledges nothing, until told otherwise.
    pub fn wedge(&self, wedged: bool) {
        self.inner.wedged.send_replace(wedged);
    }

    /// Ends all streams.
    pub fn cut(&self) {
        self.inner.life.send_modify(|life| *life += 1);
    }

    pub fn got(&self) -> Vec<Got> {
        self.inner.got.lock().unwrap().clone()
    }

    pub fn runs(&self) -> Vec<RoomRun> {
        let run = |got| if let Got::Run(run) = got { Some(run) } else { None };
        self.got().into_iter().filter_map(run).collect()
    }

    pub fn count(&self, what: &Got) -> usize {
        self.got().iter().filter(|got| *got == what).count()
    }
}

impl Inner {
    fn take(&self, got: Got) {
        self.got.lock().unwrap().push(got);
    }

    async fn stream(
        self,
        mut requests: Streaming<PushRequest>,
        replies: mpsc::Sender<Result<PushReply, Status>>,
    ) {
        let reply = |kind| Ok(PushReply { kind: Some(kind) });
        let (mut state, mut wedged, mut life) =
            (self.state.subscribe(), self.wedged.subscribe(), self.life.subscribe());
        let mut owed = None;
        state.mark_changed();
        self.take(Got::Opened);
        loop {
            if let Some(id) = owed.filter(|_| !*wedged.borrow_and_update()) {
                replies.send(reply(push_reply::Kind::Acked(id))).await.ok();
                owed = None;
            }
            tokio::select! {
                biased;
                _ = state.changed() => {
                    let state = state.borrow_and_update().clone();
                    replies.send(reply(push_reply::Kind::State(state))).await.ok();
                }
                _ = life.changed() => return,
                _ = wedged.changed() => {}
                request = requests.next() => match request {
                    Some(Ok(PushRequest { kind: Some(push_request::Kind::Batch(batch)) })) => {
                        batch.runs.into_iter().for_each(|run| self.take(Got::Run(run)));
                        owed = Some(batch.id);
                    }
                    Some(Ok(PushRequest { kind: Some(push_request::Kind::Resync(_)) })) => self.take(Got::Resync),
                    Some(Ok(PushRequest { kind: None })) => panic!("nothing was pushed"),
                    Some(Err(_)) | None => return,
                },
            }
        }
    }
}

#[tonic::async_trait]
impl gateway_server::Gateway for Inner {
    type PushStream = ReceiverStream<Result<PushReply, Status>>;

    async fn push(
        &self,
        request: Request<Streaming<PushRequest>>,
    ) -> Result<Response<Self::PushStream>, Status> {
        let (replies, stream) = mpsc::channel(64);
        self.streams.lock().unwrap().spawn(self.clone().stream(request.into_inner(), replies));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn disconnect(&self, _: Request<DisconnectRequest>) -> Result<Response<DisconnectReply>, Status> {
        Err(Status::unimplemented("a task never ends connections"))
    }

    async fn unsubscribe(
        &self,
        _: Request<UnsubscribeRequest>,
    ) -> Result<Response<UnsubscribeReply>, Status> {
        Err(Status::unimplemented("a task never ends subscriptions"))
    }
}
