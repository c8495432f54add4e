//! Sends ended spans to the collector, a batch at a time. A collector that is away, slow or frozen costs spans and nothing
//! else; a stop waits [`FLUSH_WITHIN`] for it and no longer.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::Trace;

/// Spans that may wait for the collector: about 2 MiB, and two seconds of 100 traced publishes a second.
pub(crate) const SPANS_QUEUED_MAX: usize = 2_048;
/// Spans of one call.
const BATCH_MAX: usize = 512;
/// From the first span of a batch to its call.
const GATHER_FOR: Duration = Duration::from_secs(1);
/// Longest call, with what the library tries again.
const EXPORT_WITHIN: Duration = Duration::from_secs(5);
/// What a stop waits for the collector: less than the stage `release` of every service, which it is a part of.
const FLUSH_WITHIN: Duration = Duration::from_millis(300);

/// The way to the collector.
pub(crate) struct Export {
    exporter: SpanExporter,
    sent: Counter,
    dropped: Counter,
    /// The last call failed: said once.
    failing: bool,
}

impl Export {
    pub(crate) fn new(settings: &Trace, service: &str, instance: &str) -> Result<Self, ExporterBuildError> {
        let builder = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(settings.endpoint.as_str())
            .with_timeout(EXPORT_WITHIN);
        let builder = if settings.endpoint.starts_with("https:") {
            // Without roots the library trusts nobody.
            builder.with_tls_config(ClientTlsConfig::new().with_native_roots())
        } else {
            builder
        };
        let mut exporter = builder.build()?;
        exporter.set_resource(
            &Resource::builder_empty()
                .with_service_name(format!("sluice-{service}"))
                .with_attributes([
                    KeyValue::new("service.instance.id", instance.to_owned()),
                    KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                ])
                .build(),
        );
        Ok(Self { exporter, sent: Counter::default(), dropped: Counter::default(), failing: false })
    }

    pub(crate) fn counting(self, sent: Counter, dropped: Counter) -> Self {
        Self { sent, dropped, ..self }
    }

    /// Sends until `stop`, then what is left.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<SpanData>, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = self.send_all(&mut queue, &stop) => {}
            // Also a call that was under way: nothing outside may hold a stop up.
            () = late(&stop) => {
                tracing::info!(within = ?FLUSH_WITHIN, "The collector did not take the last spans in time.");
            }
        }
    }

    async fn send_all(&mut self, queue: &mut mpsc::Receiver<SpanData>, stop: &CancellationToken) {
        while let Some(first) = stop.run_until_cancelled(queue.recv()).await.flatten() {
            let mut batch = vec![first];
            let until = Instant::now() + GATHER_FOR;
            let gather = async {
                while batch.len() < BATCH_MAX
                    && let Ok(Some(span)) = timeout_at(until, queue.recv()).await
                {
                    batch.push(span);
                }
            };
            stop.run_until_cancelled(gather).await;
            self.send(batch).await;
        }
        // Nobody is left to end a span, and the task has to live until its stage.
        stop.cancelled().await;
        loop {
            let batch: Vec<_> = std::iter::from_fn(|| queue.try_recv().ok()).take(BATCH_MAX).collect();
            if batch.is_empty() {
                return;
            }
            self.send(batch).await;
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let spans = batch.len() as u64;
        let failed = match timeout(EXPORT_WITHIN, self.exporter.export(batch)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {EXPORT_WITHIN:?}")),
        };
        match failed {
            None => {
                self.sent.inc_by(spans);
                if std::mem::take(&mut self.failing) {
                    tracing::info!("The collector takes spans again.");
                }
            }
            Some(error) => {
                self.dropped.inc_by(spans);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(error, "The collector does not take spans: they are dropped.");
                }
            }
        }
    }
}

async fn late(stop: &CancellationToken) {
    stop.cancelled().await;
    sleep(FLUSH_WITHIN).await;
}
