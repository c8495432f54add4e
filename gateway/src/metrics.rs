//! Names and numbers of a gateway: metrics for machines, [`Stats`] for `/status` and the drain. Shards add
//! to them once a tick, never per message.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use serde_json::{Value, json};
use sluice_lifecycle::Work;
use sluice_service::metrics::{LatencyHistogram, Registry, SECONDS};

/// The metrics of a gateway.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Upgrades accepted.
    pub accepted: Counter,
    /// Upgrades refused, by reason.
    pub refusals: Family<ReasonLabel, Counter>,
    /// Clients that were not read for a while, by what they did too often.
    pub throttled: Family<ReasonLabel, Counter>,
    /// Questions for a page of history that another one's read answers as well.
    pub history_shared: Counter,
    /// Counts questions about presence that another's call answers as well.
    pub presence_shared: Counter,
    /// Questions for a page of history that wait until their user or address has taken others.
    pub history_parked: Counter,
    /// Frames received.
    pub frames_in: Counter,
    /// Messages appended to queues of subscribers.
    pub deliveries: Counter,
    /// Bytes written to clients.
    pub bytes_out: Counter,
    /// Publishes accepted.
    pub publishes: Counter,
    /// From taking a publish to its `ok`, seconds.
    pub publish_seconds: LatencyHistogram,
    /// From when the store had a message to when its Live subscribers have it, seconds; one of
    /// [`DELIVERIES_PER_SAMPLE`](crate::defaults::DELIVERIES_PER_SAMPLE).
    pub delivery_seconds: LatencyHistogram,
    /// Publishes answered `retry:true`.
    pub retries: Counter,
    resumes: [Counter; 2],
    /// Times a subscriber was told that messages will not come.
    pub skips: Counter,
    /// Messages that subscribers were told will not come.
    pub skipped: Counter,
    departures: [Counter; DEPARTURES.len()],
    /// Connections closed because they took no byte in time.
    pub slow: Counter,
    /// Connections closed because a ping was not answered.
    pub silent: Counter,
    /// Connections that were told `bye`, by ending.
    pub endings: Family<ReasonLabel, Counter>,
    /// Freezes noticed.
    pub freezes: Counter,
    /// The longest turn of each shard in each tick.
    pub longest_turn: Histogram,
    /// Batches pushed by tasks.
    pub pushes: Counter,
    /// Positions of which two versions met.
    pub conflicts: Counter,
    /// Streams of events opened.
    pub event_streams_opened: Counter,
    /// Messages appended to queues of those who read them as events.
    pub event_deliveries: Counter,
    /// Tickets issued.
    pub tickets_issued: Counter,
    /// Connections now.
    pub connections: Gauge,
    /// As many as there may be.
    pub connections_max: Gauge,
    /// Those of them that read events.
    pub event_streams: Gauge,
    /// Subscriptions now.
    pub subscriptions: Gauge,
    /// Those of them that read the past.
    pub catching_up: Gauge,
    /// Connections when the drain began that is under way.
    pub drain_connections: Gauge,
}

/// How a client leaves a gateway that drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// By itself, before it was told `bye`.
    Moved,
    /// After `bye`.
    Closed,
    /// It was cut: no `bye`, or nobody took or answered it.
    Dropped,
}

/// Labels in the order of [`Departure`].
const DEPARTURES: [&str; 3] = ["moved", "closed", "dropped"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResumeLabels {
    recovered: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DepartureLabels {
    how: &'static str,
}

/// Why a connection was told `bye` ([`crate::ending::Ending::label`]), refused, or not read for a while.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// The ending, the refusal, the charge.
    pub reason: &'static str,
}

impl Metrics {
    /// For a gateway that may have so many connections.
    #[must_use]
    pub fn with_connections_max(self, connections: usize) -> Self {
        self.connections_max.set(i64::try_from(connections).unwrap_or(i64::MAX));
        self
    }

    /// A connection was told `bye`.
    pub fn ended(&self, reason: &'static str) {
        self.endings.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// An upgrade was refused.
    pub fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A client did something too often and is not read for a while.
    pub fn throttled(&self, reason: &'static str) {
        self.throttled.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts subscriptions that were to go on from a position: they did, or began anew.
    #[must_use]
    pub fn resumed(&self, recovered: bool) -> &Counter {
        &self.resumes[usize::from(recovered)]
    }

    /// Counts clients that left a gateway that drains.
    #[must_use]
    pub fn departed(&self, departure: Departure) -> &Counter {
        &self.departures[departure as usize]
    }

    /// Registers all metrics.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let resumes = registry.counters(
            "resumes",
            "Subscriptions that asked to go on from a position, by whether they could: true or false",
        );
        let departures = registry.counters(
            "departures",
            "Clients that left a gateway that drains, by how: moved, closed, dropped",
        );
        Self {
            // All of them from the start: of a series that is not there yet the first increase is not seen.
            resumes: ["false", "true"]
                .map(|recovered| resumes.get_or_create_owned(&ResumeLabels { recovered })),
            departures: DEPARTURES.map(|how| departures.get_or_create_owned(&DepartureLabels { how })),
            accepted: registry.counter("upgrades_accepted", "Upgrades accepted"),
            refusals: registry.counters("upgrades_refused", "Upgrades refused, by reason"),
            throttled: registry
                .counters("throttled", "Pauses in reading from clients above a rate, by what they did"),
            presence_shared: registry.counter(
                "presence_shared",
                "Questions about who is in a room that another's call answers as well",
            ),
            history_shared: registry.counter(
                "history_shared",
                "Questions for a page of history that another's read answers as well",
            ),
            history_parked: registry.counter(
                "history_parked",
                "Times that a page of history had to wait until its user or address may have more",
            ),
            skips: registry.counter("skips", "Times a subscriber was told that messages will not come"),
            skipped: registry
                .counter("messages_skipped", "Messages that subscribers were told will not come"),
            frames_in: registry.counter("frames_received", "Frames received from clients"),
            deliveries: registry.counter("deliveries", "Messages put into queues of subscribers"),
            bytes_out: registry.counter("written_bytes", "Bytes written to clients"),
            publishes: registry.counter("publishes", "Publishes accepted"),
            publish_seconds: registry.latency("publish_seconds", "From taking a publish to its ok"),
            delivery_seconds: registry.latency(
                "delivery_seconds",
                "From the at of a message, by the clock of the store, to its way to the sockets of live subscribers, \
                 by this one's; one of 64 messages per shard",
            ),
            retries: registry.counter("publishes_to_retry", "Publishes answered with retry true"),
            slow: registry.counter("slow_closed", "Connections closed because they took no byte in time"),
            silent: registry.counter("silent_closed", "Connections closed because a ping was not answered"),
            endings: registry.counters("connections_ended", "Connections that were told bye, by reason"),
            freezes: registry.counter("freezes", "Times the process stood still for longer than its lease"),
            longest_turn: registry.histogram(
                "turn_longest_seconds",
                "Longest time a shard worked without a pause, in each tenth of a second",
                &SECONDS,
            ),
            pushes: registry.counter("pushes", "Batches pushed by tasks"),
            conflicts: registry.counter(
                "message_conflicts",
                "Messages of which two versions met: one was forged, or a failover lost commits",
            ),
            event_streams_opened: registry.counter("event_streams_opened", "Streams of events opened"),
            event_deliveries: registry.counter(
                "event_deliveries",
                "Messages put into queues of subscribers who read events, of all deliveries",
            ),
            tickets_issued: registry.counter("tickets_issued", "Tickets issued"),
            connections: registry.gauge("connections", "Connections"),
            connections_max: registry.gauge("connections_max", "Connections that it may have, as configured"),
            event_streams: registry.gauge("event_streams", "Connections that read events"),
            subscriptions: registry.gauge("subscriptions", "Subscriptions"),
            catching_up: registry
                .gauge("subscriptions_catching_up", "Subscriptions that read the past at their own pace"),
            drain_connections: registry.gauge(
                "drain_connections",
                "Connections when the drain began that is under way; 0 without one",
            ),
        }
    }
}

/// Levels of the whole gateway, as sums over its shards.
#[derive(Debug, Default)]
pub struct Stats {
    /// Sockets, from accept to the end.
    pub connections: AtomicUsize,
    /// Those of them that read events.
    pub event_streams: AtomicI64,
    /// How many subscriptions there are.
    pub subscriptions: AtomicI64,
    /// Rooms in their home shards.
    pub rooms: AtomicI64,
    /// Publishes without outcome.
    pub publishes: AtomicI64,
    /// Bytes waiting for sockets.
    pub queued_bytes: AtomicI64,
    /// Publishes accepted since the start.
    pub accepted: AtomicU64,
    /// Publishes answered `ok`.
    pub completed: AtomicU64,
    /// Publishes refused for good.
    pub rejected: AtomicU64,
    /// Publishes answered "unknown, send again".
    pub unknown: AtomicU64,
    /// The longest turn of any shard since the start, microseconds.
    pub longest_turn_us: AtomicU64,
    /// Connections at the start of the drain.
    pub drain_total: AtomicUsize,
    /// [`Self::unknown`] at that time.
    pub drain_unknown: AtomicU64,
    /// Connections that ended since then before they were told `bye`: their clients moved by themselves.
    pub moved: AtomicU64,
    /// Connections that ended after `bye`.
    pub closed: AtomicU64,
    /// Connections that were cut: no `bye`, or nobody took it.
    pub dropped: AtomicU64,
}

impl Stats {
    /// How many clients there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// A shard's longest turn of late.
    pub fn turn(&self, took: Duration) {
        // Kept as a maximum: an average hides the one turn that clients felt.
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.longest_turn_us.fetch_max(micros, Ordering::Relaxed);
    }

    /// What a kill would do to clients.
    ///
    /// # Errors
    /// Somebody would notice.
    pub fn missed(&self) -> Result<(), String> {
        match self.connections() {
            0 => Ok(()),
            clients => Err(format!("cut {clients} connections, whose clients come back unasked")),
        }
    }

    /// Publishes answered "unknown, send again" since the drain began.
    #[must_use]
    pub fn unknown_at_stop(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed).saturating_sub(self.drain_unknown.load(Ordering::Relaxed))
    }

    /// What the gateway does, in publishes; `cancelled`: answered "send again".
    #[must_use]
    pub fn work(&self, cancelled: u64) -> Work {
        Work {
            // Shards add changes one after the other: for a moment the sum may be below zero.
            in_flight: u64::try_from(self.publishes.load(Ordering::Relaxed)).unwrap_or(0),
            accepted: self.accepted.load(Ordering::Relaxed),
            completed: self.completed.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            cancelled,
        }
    }

    /// What `/status` shows of it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let connections = self.connections.load(Ordering::Relaxed);
        let total = self.drain_total.load(Ordering::Relaxed);
        json!({
            "connections": connections,
            "event_streams": self.event_streams.load(Ordering::Relaxed),
            "subscriptions": self.subscriptions.load(Ordering::Relaxed),
            "rooms": self.rooms.load(Ordering::Relaxed),
            "publishes_in_flight": self.publishes.load(Ordering::Relaxed),
            "queued_bytes": self.queued_bytes.load(Ordering::Relaxed),
            "unknown": self.unknown.load(Ordering::Relaxed),
            "longest_turn_ms": self.longest_turn_us.load(Ordering::Relaxed) / 1_000,
            "moved": self.moved.load(Ordering::Relaxed),
            "closed": self.closed.load(Ordering::Relaxed),
            "dropped": self.dropped.load(Ordering::Relaxed),
            "drained": format!("{}/{total}", total.saturating_sub(connections)),
        })
    }
}
