//! Begins traces: decides which publishes are traced, and takes what has ended.

use std::fmt;
use std::sync::Arc;

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;
use prometheus_client::metrics::counter::Counter;
use sluice_lifecycle::Scope;
use sluice_service::metrics::Registry;
use tokio::sync::mpsc;

use crate::export::{Export, SPANS_QUEUED_MAX};
use crate::parent::{Context, Parent};
use crate::span::{Begun, Span};
use crate::{Kind, Trace};

/// Begins traces; clones share what collects them.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Collecting>>);

/// Takes what has ended.
pub(crate) struct Collecting {
    sample: f64,
    ended: mpsc::Sender<SpanData>,
    dropped: Counter,
    scope: InstrumentationScope,
}

impl Tracer {
    /// Traces as it is set, until the stage of `scope`: then what has ended is sent, in a bounded time. `who` is the service
    /// and its instance.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn start(
        settings: &Trace,
        (service, instance): (&'static str, &str),
        scope: &Scope,
        registry: &Registry,
    ) -> Self {
        if settings.endpoint.is_empty() {
            return Self::default();
        }
        let lost = "Spans that were dropped: the collector did not take them, or took them too slowly";
        let dropped = registry.counter("trace_spans_dropped", lost);
        let sent = registry.counter("trace_spans", "Spans that the collector took");
        let export = match Export::new(settings, service, instance) {
            Ok(export) => export.counting(sent, dropped.clone()),
            Err(error) => {
                // Looked at by `check`; whatever else it may be is no reason not to serve.
                tracing::error!(%error, "Nothing is traced: trace.endpoint cannot be used.");
                return Self::default();
            }
        };
        let (ended, queue) = mpsc::channel(SPANS_QUEUED_MAX);
        scope.spawn("traces", export.run(queue, scope.token()));
        let version = env!("CARGO_PKG_VERSION");
        let scope = InstrumentationScope::builder("sluice").with_version(version).build();
        Self(Some(Arc::new(Collecting { sample: settings.sample, ended, dropped, scope })))
    }

    /// Where a publish comes in: whether it is traced is decided here, by its parent where there is one.
    #[must_use]
    pub fn entry(&self, name: &'static str, kind: Kind, parent: Parent) -> Span {
        let Some(collecting) = &self.0 else { return Span::default() };
        if parent.0.is_some() {
            return self.child(name, kind, parent);
        }
        if rand::random::<f64>() >= collecting.sample {
            return Span::default();
        }
        let trace = TraceId::from_bytes(rand::random());
        let context = Context { trace, span: fresh(), sampled: true };
        Span::begin(collecting, Begun { name, kind, context, parent: None, remote: false })
    }

    /// A part of what came in elsewhere.
    #[must_use]
    pub fn child(&self, name: &'static str, kind: Kind, parent: Parent) -> Span {
        match (&self.0, parent.0) {
            (Some(collecting), Some(context)) if context.sampled => {
                collecting.child(name, kind, context, true)
            }
            _ => Span::default(),
        }
    }
}

impl Collecting {
    pub(crate) fn child(self: &Arc<Self>, name: &'static str, kind: Kind, of: Context, remote: bool) -> Span {
        let context = Context { span: fresh(), ..of };
        Span::begin(self, Begun { name, kind, context, parent: Some(of.span), remote })
    }

    pub(crate) const fn scope(&self) -> &InstrumentationScope {
        &self.scope
    }

    /// Never waits: whoever drops a span is on its way to a client.
    pub(crate) fn ended(&self, span: SpanData) {
        if self.ended.try_send(span).is_err() {
            self.dropped.inc();
        }
    }
}

impl fmt::Debug for Collecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collecting").field("sample", &self.sample).finish_non_exhaustive()
    }
}

fn fresh() -> SpanId {
    SpanId::from_bytes(rand::random())
}
