//! The names of logic's metrics. Base units; never a user or a room as a label.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use sluice_lifecycle::Work;
use sluice_service::metrics::{ITEMS, Registry, SECONDS};
use sluice_store::{Class, Trouble};

/// Labels in the order of [`OutcomeLabel`].
const OUTCOMES: [&str; 6] = ["stored", "duplicate", "conflict", "refused", "not_stored", "unknown"];
/// Labels in the order of [`Metrics::store_failed`].
const CLASSES: [&str; 4] = ["retry", "reject", "unknown", "too_late"];

/// What a read is for; each kind has permits of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadKind {
    /// Subscriptions, heads, and pages for who catches up.
    Room,
    /// A client leafs through what was.
    History,
}

/// Labels of fetches of a JWK set: it failed, or brought one.
const FETCHES: [&str; 2] = ["failed", "good"];

/// Labels in the order of [`ReadKind`].
const READ_KINDS: [&str; 2] = ["room", "history"];

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeLabel {
    /// This call stored it.
    Stored,
    /// An earlier call stored it.
    Duplicate,
    /// Key used for other data.
    Conflict,
    /// Can never be stored.
    Refused,
    /// Certainly not stored by this call.
    NotStored,
    /// Nobody knows whether it is stored.
    Unknown,
}

/// What became of a message that is for later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelayedLabel {
    /// It waits, since now or before.
    Scheduled,
    /// It was taken back.
    Cancelled,
    /// A cancel found nothing that waits.
    TooLate,
    /// It was published when it was due.
    Fired,
    /// It was not: its sender had used the key for other data.
    Conflict,
    /// It was not kept: as many of its sender wait as may.
    TooMany,
}

/// Labels in the order of [`DelayedLabel`].
const DELAYED: [&str; 6] = ["scheduled", "cancelled", "too_late", "fired", "conflict", "too_many"];

/// What became of a call of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// It was answered.
    Completed,
    /// It was refused, and nothing done.
    Rejected,
    /// It was given up: by its caller, or because there was no answer in time.
    Cancelled,
}

impl CallOutcome {
    /// In the order of their labels.
    pub const ALL: [Self; 3] = [Self::Completed, Self::Rejected, Self::Cancelled];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
        }
    }
}

/// `key`: its name in the file, which bounds how many there are; empty where none was good.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    key: String,
    method: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PublishLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TroubleLabels {
    reason: &'static str,
}

/// All metrics of one logic; clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Instruments>);

/// The metrics by name.
pub struct Instruments {
    publishes: [Counter; 6],
    delayed: [Counter; DELAYED.len()],
    store_failures: [Counter; 4],
    store_refusals: [Counter; Trouble::ALL.len()],
    reads_refused: [Counter; 2],
    api_calls: Family<CallLabels, Counter>,
    /// From when a call of the API was read to its answer, seconds.
    pub api_seconds: Histogram,
    /// Items of a committed group.
    pub group_items: Histogram,
    /// Time from taking a group to its answers, seconds.
    pub group_seconds: Histogram,
    /// Rooms that somebody kept locked when something of theirs was due.
    pub due_rooms_locked: Counter,
    /// Groups handed to NATS.
    pub notices_sent: Counter,
    /// Groups not handed to NATS; the sweep announces them.
    pub notices_dropped: Counter,
    /// Subscribes and status reports that Redis did not take.
    pub presence_failures: Counter,
    /// Joins and leaves handed to NATS.
    pub presence_events: Counter,
    /// Joins and leaves that nobody is told of, as too much waited.
    pub presence_dropped: Counter,
    /// Changes of a status report that made no sense.
    pub changes_ignored: Counter,
    /// Outbox rows announced again.
    pub renoticed: Counter,
    /// Messages deleted by retention.
    pub trimmed: Counter,
    /// Revocations in memory.
    pub revocations: Gauge,
    /// 1 while the store answers and takes commits.
    pub store_up: Gauge,
    /// Keys of the JWK set in force.
    pub token_keys: Gauge,
    token_key_fetches: [Counter; 2],
}

impl std::ops::Deref for Metrics {
    type Target = Instruments;

    fn deref(&self) -> &Instruments {
        &self.0
    }
}

impl Metrics {
    /// Registers everything, as `sluice_logic_…`.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let outcomes = registry.counters("publishes", "Publishes answered, by outcome");
        let failures = registry.counters("store_failures", "Commit groups that failed, by class");
        let publishes = OUTCOMES.map(|outcome| outcomes.get_or_create_owned(&PublishLabels { outcome }));
        let delayed = registry
            .counters("delayed_messages", "Delayed messages, by what became of them or of their cancel");
        let delayed = DELAYED.map(|outcome| delayed.get_or_create_owned(&PublishLabels { outcome }));
        let store_failures = CLASSES.map(|class| failures.get_or_create_owned(&FailureLabels { class }));
        let refusals = registry
            .counters("store_refusals", "Commit groups and probes that the store did not take, by reason");
        let store_refusals = Trouble::ALL
            .map(|trouble| refusals.get_or_create_owned(&TroubleLabels { reason: trouble.as_str() }));
        let refused =
            registry.counters("reads_refused", "Reads that waited too long for others of their kind");
        let fetches = registry.counters("token_key_fetches", "Fetches of the JWK set, by outcome");
        let token_key_fetches =
            FETCHES.map(|outcome| fetches.get_or_create_owned(&PublishLabels { outcome }));
        let reads_refused = READ_KINDS.map(|kind| refused.get_or_create_owned(&ReadLabels { kind }));
        Self(Arc::new(Instruments {
            publishes,
            delayed,
            store_failures,
            store_refusals,
            reads_refused,
            group_items: registry.histogram("group_items", "Items of a committed group", &ITEMS),
            group_seconds: registry.histogram(
                "group_seconds",
                "From taking a group to its answers",
                &SECONDS,
            ),
            due_rooms_locked: registry.counter(
                "due_rooms_locked",
                "Rooms passed over when something was due, as somebody kept them locked",
            ),
            notices_sent: registry.counter("notices_sent", "Groups handed to NATS"),
            notices_dropped: registry
                .counter("notices_dropped", "Groups not handed to NATS: the sweep announces them"),
            presence_failures: registry.counter("presence_failures", "Calls that Redis did not take"),
            presence_events: registry.counter("presence_events", "Joins and leaves handed over to be told"),
            presence_dropped: registry.counter(
                "presence_events_dropped",
                "Joins and leaves that nobody is told of: too much waited",
            ),
            changes_ignored: registry.counter("changes_ignored", "Malformed status changes"),
            renoticed: registry.counter("renoticed", "Outbox rows announced again"),
            trimmed: registry.counter("messages_trimmed", "Messages deleted by retention"),
            revocations: registry
                .gauge("revocations", "Users whose tokens are revoked up to a time, in memory"),
            store_up: registry.gauge("store_up", "1 while the store answers and takes commits"),
            token_keys: registry.gauge("token_keys", "Keys of the JWK set in force"),
            token_key_fetches,
            api_calls: registry
                .counters("api_calls", "Calls of the HTTP API, by name of the key, method and outcome"),
            api_seconds: registry.histogram(
                "api_seconds",
                "From reading a call of the HTTP API to its answer",
                &SECONDS,
            ),
        }))
    }

    /// Counts a fetch of the JWK set.
    pub fn token_keys_fetched(&self, good: bool) {
        self.token_key_fetches[usize::from(good)].inc();
    }

    /// Counts publishes of this outcome.
    #[must_use]
    pub fn publish(&self, label: OutcomeLabel) -> &Counter {
        &self.publishes[label as usize]
    }

    /// Counts delayed messages with this end, or cancels.
    #[must_use]
    pub fn delayed(&self, label: DelayedLabel) -> &Counter {
        &self.delayed[label as usize]
    }

    /// Counts reads of this kind that found too many others.
    #[must_use]
    pub fn read_refused(&self, kind: ReadKind) -> &Counter {
        &self.reads_refused[kind as usize]
    }

    /// Counts calls of the API by the name of their key, their method and what became of them.
    #[must_use]
    pub fn api_call(&self, key: &str, method: &'static str, outcome: CallOutcome) -> Counter {
        let labels = CallLabels { key: key.to_owned(), method, outcome: outcome.as_str() };
        self.api_calls.get_or_create_owned(&labels)
    }

    /// Publishes of which nobody knows whether they are stored.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.publish(OutcomeLabel::Unknown).get()
    }

    /// What logic does, in publishes, those for later and their cancels among them; `cancelled`: not stored, or nobody knows.
    #[must_use]
    pub fn work(&self, in_flight: u64) -> Work {
        let sum = |labels: [OutcomeLabel; 2]| labels.into_iter().map(|label| self.publish(label).get()).sum();
        // A firing is nobody's call: task asks for it, and it is in no sum.
        let delayed: u64 = [DelayedLabel::Scheduled, DelayedLabel::Cancelled, DelayedLabel::TooLate]
            .into_iter()
            .map(|label| self.delayed(label).get())
            .sum();
        let completed = sum([OutcomeLabel::Stored, OutcomeLabel::Duplicate]) + delayed;
        let rejected = sum([OutcomeLabel::Conflict, OutcomeLabel::Refused]);
        let cancelled: u64 = sum([OutcomeLabel::NotStored, OutcomeLabel::Unknown]);
        // Nothing counts a publish when it comes: whatever is not in hand has its outcome.
        Work {
            in_flight,
            accepted: in_flight + completed + rejected + cancelled,
            completed,
            rejected,
            cancelled,
        }
    }

    /// Publishes by outcome, for `/status`.
    #[must_use]
    pub fn publishes(&self) -> Vec<(&'static str, u64)> {
        OUTCOMES.into_iter().zip(self.publishes.iter().map(Counter::get)).collect()
    }

    /// Counts what the store did not take for this reason.
    #[must_use]
    pub fn store_refused(&self, trouble: Trouble) -> &Counter {
        &self.store_refusals[trouble as usize]
    }

    /// Counts failed groups of this class.
    #[must_use]
    pub fn store_failed(&self, class: Class) -> &Counter {
        let at = match class {
            Class::Retry => 0,
            Class::Reject => 1,
            Class::Unknown => 2,
            Class::TooLate => 3,
        };
        &self.store_failures[at]
    }
}
