//! A logic as task sees it: sweeps and reaps, and keeps whom it was told to reap.

use std::sync::{Arc, Mutex};

use sluice_proto::grpc::logic_server::{Logic as Service, LogicServer};
use sluice_proto::grpc::*;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
struct Inner {
    sweeps: Arc<Mutex<u64>>,
    reaped: Arc<Mutex<Vec<String>>>,
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
}
