//! The push stream on the wire. Its runs are passed on as logic encoded them: a nested message and bytes look
//! the same there, so no message is copied, once for each gateway or at all.

use bytes::Bytes;
use sluice_proto::grpc::{PushReply, Resync};
use sluice_service::grpc::channels::CallerChannel;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::queue::Next;

/// The message `PushRequest`, with runs that are encoded already.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PushRequest {
    #[prost(oneof = "PushKind", tags = "1, 2")]
    kind: Option<PushKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum PushKind {
    #[prost(message, tag = "1")]
    Batch(PushBatch),
    #[prost(message, tag = "2")]
    Resync(Resync),
}

/// The message `PushBatch`, with runs that are encoded already.
#[derive(Clone, PartialEq, prost::Message)]
struct PushBatch {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(fixed64, tag = "2")]
    epoch: u64,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    runs: Vec<Bytes>,
}

impl From<Next> for PushRequest {
    fn from(next: Next) -> Self {
        let kind = match next {
            Next::Resync => PushKind::Resync(Resync {}),
            Next::Batch { id, epoch, runs } => PushKind::Batch(PushBatch { id, epoch, runs }),
        };
        Self { kind: Some(kind) }
    }
}

/// Calls `Gateway.Push`.
pub async fn push(
    calls: CallerChannel,
    requests: mpsc::Receiver<PushRequest>,
) -> Result<Streaming<PushReply>, Status> {
    let mut client = tonic::client::Grpc::new(calls);
    // tonic panics when it is called before it is ready.
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static("/sluice.v1.Gateway/Push");
    let codec = ProstCodec::<PushRequest, PushReply>::default();
    let request = Request::new(ReceiverStream::new(requests));
    Ok(client.streaming(request, path, codec).await?.into_inner())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use sluice_proto::grpc;

    use super::*;

    #[test]
    fn it_reads_as_the_schema_says() {
        let run = grpc::RoomRun { room: "news".into(), first: 1, last: 2, ..Default::default() };
        let next = Next::Batch { id: 3, epoch: 9, runs: vec![run.encode_to_vec().into()] };
        let read = grpc::PushRequest::decode(&*PushRequest::from(next).encode_to_vec());
        let batch = grpc::PushBatch { id: 3, epoch: 9, runs: vec![run] };
        assert_eq!(read, Ok(grpc::PushRequest { kind: Some(grpc::push_request::Kind::Batch(batch)) }));
        let read = grpc::PushRequest::decode(&*PushRequest::from(Next::Resync).encode_to_vec());
        let resync = grpc::push_request::Kind::Resync(Resync {});
        assert_eq!(read, Ok(grpc::PushRequest { kind: Some(resync) }));
    }
}
