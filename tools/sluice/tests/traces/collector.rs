//! A collector of our own: takes spans over OTLP as any other does, and shows them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::SOON;

/// A span as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub service: String,
    pub name: String,
    /// In hexadecimal digits, as all ids.
    pub trace: String,
    pub id: String,
    /// Empty: it is the first of its trace.
    pub parent: String,
    pub attributes: BTreeMap<String, String>,
    pub began_ns: u64,
    pub ended_ns: u64,
    pub failed: bool,
}

/// Ended when dropped.
pub struct Collector {
    seen: Arc<Mutex<Vec<Seen>>>,
    pub url: String,
    server: AbortHandle,
}

struct Taking(Arc<Mutex<Vec<Seen>>>);

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let service = TraceServiceServer::new(Taking(Arc::clone(&seen)));
        let serve = Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(serve).abort_handle();
        Self { seen, url, server }
    }

    /// All that arrived so far.
    pub fn all(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The spans of a trace, when there are as many of each name as are wanted.
    pub async fn trace(&self, trace: &str, wanted: &[(&str, usize)]) -> Vec<Seen> {
        let begun = Instant::now();
        loop {
            let spans: Vec<Seen> = self.all().into_iter().filter(|span| span.trace == trace).collect();
            let count = |name: &str| spans.iter().filter(|span| span.name == name).count();
            if wanted.iter().all(|(name, wanted)| count(name) >= *wanted) {
                return spans;
            }
            assert!(begun.elapsed() < SOON, "not in time: {wanted:?} of {trace} in {:#?}", self.all());
            sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

#[tonic::async_trait]
impl TraceService for Taking {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let of = attributes(&resource.resource.map(|of| of.attributes).unwrap_or_default());
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| seen(&of["service.name"], &span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn seen(service: &str, span: &Span) -> Seen {
    Seen {
        service: service.to_owned(),
        name: span.name.clone(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        attributes: attributes(&span.attributes),
        began_ns: span.start_time_unix_nano,
        ended_ns: span.end_time_unix_nano,
        failed: span.status.as_ref().is_some_and(|status| status.code == 2),
    }
}

fn attributes(all: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |one: &KeyValue| match one.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    all.iter().map(|one| (one.key.clone(), text(one))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
