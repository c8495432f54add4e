//! A logic as task sees it: sweeps, reaps, tells who left and fires, and keeps whom it was told to reap.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use sluice_proto::grpc::logic_server::{Logic as Service, LogicServer};
use sluice_proto::grpc::*;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
struct Inner {
    sweeps: Arc<Mutex<u64>>,
    reaped: Arc<Mutex<Vec<String>>>,
    fires: Arc<Mutex<(usize, BTreeSet<u32>)>>,
    held: watch::Sender<bool>,
    leaves: Arc<Mutex<u64>>,
}

pub struct Logic {
    pub address: String,
    inner: Inner,
    _server: JoinSet<()>,
}

impl Logic {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let inner = Inner::default();
        let server = tonic::transport::Server::builder().add_service(LogicServer::new(inner.clone()));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, inner, _server: tasks }
    }

    pub fn sweeps(&self) -> u64 {
        *self.inner.sweeps.lock().unwrap()
    }

    /// How often it was asked to publish what is due.
    pub fn fires(&self) -> usize {
        self.inner.fires.lock().unwrap().0
    }

    /// The parts it was asked about.
    pub fn parts_fired(&self) -> BTreeSet<u32> {
        self.inner.fires.lock().unwrap().1.clone()
    }

    /// Such calls are not answered.
    pub fn hold_fires(&self, hold: bool) {
        self.inner.held.send_replace(hold);
    }

    /// How often it was asked to tell who left.
    pub fn leaves(&self) -> u64 {
        *self.inner.leaves.lock().unwrap()
    }

    pub fn reaped(&self) -> Vec<String> {
        self.inner.reaped.lock().unwrap().clone()
    }
}

macro_rules! not_asked {
    ($($name:ident: $request:ty => $reply:ty),* $(,)?) => {
        #[tonic::async_trait]
        impl Service for Inner {
            $(async fn $name(&self, _: Request<$request>) -> Result<Response<$reply>, Status> {
                Err(Status::unimplemented("a task does not ask for this"))
            })*

            async fn sweep(&self, _: Request<SweepRequest>) -> Result<Response<SweepReply>, Status> {
                *self.sweeps.lock().unwrap() += 1;
                Ok(Response::new(SweepReply::default()))
            }

            async fn reap(&self, request: Request<ReapRequest>) -> Result<Response<ReapReply>, Status> {
                self.reaped.lock().unwrap().extend(request.into_inner().gone);
                Ok(Response::new(ReapReply { fields_removed: 1 }))
            }

            async fn fire_due(
                &self,
                request: Request<FireDueRequest>,
            ) -> Result<Response<FireDueReply>, Status> {
                {
                    let mut fires = self.fires.lock().unwrap();
                    fires.0 += 1;
                    fires.1.insert(request.into_inner().part);
                }
                self.held.subscribe().wait_for(|held| !held).await.unwrap();
                Ok(Response::new(FireDueReply { fired: 1, next_in_ms: Some(20) }))
            }

            async fn tell_leaves(
                &self,
                _: Request<TellLeavesRequest>,
            ) -> Result<Response<TellLeavesReply>, Status> {
                *self.leaves.lock().unwrap() += 1;
                Ok(Response::new(TellLeavesReply::default()))
            }
        }
    };
}

not_asked! {
    publish: PublishRequest => PublishReply,
    read: ReadRequest => ReadReply,
    subscribe: SubscribeRequest => SubscribeReply,
    heads: HeadsRequest => HeadsReply,
    report_status: StatusRequest => StatusReply,
    presence: PresenceRequest => PresenceReply,
    authenticate: AuthenticateRequest => AuthenticateReply,
    authenticate_many: AuthenticateManyRequest => AuthenticateManyReply,
    revocations: RevocationsRequest => RevocationsReply,
    issue_ticket: IssueTicketRequest => IssueTicketReply,
    take_ticket: TakeTicketRequest => AuthenticateReply,
}
