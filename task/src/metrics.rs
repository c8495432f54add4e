//! The names of task's metrics. Base units; never a user or a room as a label.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use sluice_lifecycle::Work;
use sluice_service::metrics::{ITEMS, Registry, SECONDS};

/// All metrics of one task; clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Instruments>);

/// The metrics by name.
pub struct Instruments {
    /// Notices brought to their end.
    pub notices: Counter,
    /// Notices that could not be read; acknowledged, so that they do not come again.
    pub notices_bad: Counter,
    /// Notices in hand.
    pub notices_in_flight: Gauge,
    /// From taking a notice to its acknowledgement, seconds.
    pub notice_seconds: Histogram,
    /// Pipelines of lookups that Redis did not answer: everybody got everything.
    pub lookups_failed: Counter,
    /// Notices whose interest was asked for together.
    pub lookup_items: Histogram,
    /// Notices handed to an outlet.
    pub pushes: Counter,
    /// Notices not handed to an outlet that lags or has no stream; it is told to ask for heads.
    pub pushes_dropped: Counter,
    /// Room runs in one push.
    pub push_runs: Histogram,
    /// From queueing the oldest notice of a push to its acknowledgement, seconds.
    pub push_seconds: Histogram,
    /// Open push streams.
    pub streams: Gauge,
    /// Times a gateway began to lag.
    pub lags: Counter,
    /// Times a gateway was told to ask for heads.
    pub resyncs: Counter,
    /// Sweeps done.
    pub sweeps: Counter,
    /// Delayed messages that logic published.
    pub messages_fired: Counter,
    /// Calls of duties that failed.
    pub duties_failed: Counter,
    /// Fields of gone instances removed.
    pub fields_reaped: Counter,
}

impl std::ops::Deref for Metrics {
    type Target = Instruments;

    fn deref(&self) -> &Instruments {
        &self.0
    }
}

impl Metrics {
    /// What task does, in notices; `dropped`: what it has in hand is given up.
    #[must_use]
    pub fn work(&self, dropped: bool) -> Work {
        let in_hand = u64::try_from(self.notices_in_flight.get()).unwrap_or(0);
        let (in_flight, cancelled) = if dropped { (0, in_hand) } else { (in_hand, 0) };
        let (completed, rejected) = (self.notices.get(), self.notices_bad.get());
        Work { in_flight, accepted: in_hand + completed + rejected, completed, rejected, cancelled }
    }

    /// Registers everything, as `sluice_task_…`.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        Self(Arc::new(Instruments {
            notices: registry.counter("notices", "Notices delivered and acknowledged"),
            notices_bad: registry.counter("notices_bad", "Notices that could not be read"),
            notices_in_flight: registry
                .gauge("notices_in_flight", "Notices taken from NATS and not acknowledged yet"),
            notice_seconds: registry.histogram(
                "notice_seconds",
                "From taking a notice to its acknowledgement",
                &SECONDS,
            ),
            lookups_failed: registry.counter("lookups_failed", "Lookups that Redis did not answer"),
            lookup_items: registry.histogram("lookup_items", "Notices of one lookup", &ITEMS),
            pushes: registry.counter("pushes", "Notices handed to an outlet"),
            pushes_dropped: registry.counter(
                "pushes_dropped",
                "Notices dropped for a gateway that lags or has no stream: it asks for heads",
            ),
            push_runs: registry.histogram("push_runs", "Room runs in one push", &ITEMS),
            push_seconds: registry.histogram(
                "push_seconds",
                "From queueing the oldest notice of a push to the gateway's acknowledgement",
                &SECONDS,
            ),
            streams: registry.gauge("streams", "Open push streams"),
            lags: registry.counter("lags", "Times a gateway began to lag"),
            resyncs: registry.counter("resyncs", "Times a gateway was told to ask for heads"),
            sweeps: registry.counter("sweeps", "Sweeps done"),
            messages_fired: registry
                .counter("messages_fired", "Delayed messages published when they were due"),
            duties_failed: registry.counter("duties_failed", "Calls of duties that failed"),
            fields_reaped: registry.counter("fields_reaped", "Fields of gone instances removed"),
        }))
    }
}
