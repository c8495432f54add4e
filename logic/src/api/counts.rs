//! What becomes of the calls of the API: counted for `/status` and for metrics, each once, also when nobody waits any
//! more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::problem::Code;
use crate::metrics::{CallOutcome, Metrics};

/// Calls by outcome; clones share them.
#[derive(Clone)]
pub struct Counts(Arc<Inner>);

struct Inner {
    metrics: Metrics,
    calls: TaskTracker,
    total: AtomicU64,
    outcomes: [AtomicU64; CallOutcome::ALL.len()],
}

impl Counts {
    /// None yet; `calls` is what a stop waits for.
    #[must_use]
    pub fn new(metrics: Metrics, calls: TaskTracker) -> Self {
        let (total, outcomes) = Default::default();
        Self(Arc::new(Inner { metrics, calls, total, outcomes }))
    }

    /// A call has come. A stop waits for it until it is dropped.
    #[must_use]
    pub fn begin(&self, method: &'static str) -> CountedCall {
        self.0.total.fetch_add(1, Ordering::Relaxed);
        CountedCall {
            _in_flight: self.0.calls.token(),
            counts: self.clone(),
            method,
            key: String::new(),
            began: Instant::now(),
            // Whoever drops it without a word has left, or was cut off.
            outcome: CallOutcome::Cancelled,
        }
    }

    /// For `/status`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let [completed, rejected, cancelled] =
            CallOutcome::ALL.map(|outcome| self.0.outcomes[outcome as usize].load(Ordering::Relaxed));
        json!({
            "total": self.0.total.load(Ordering::Relaxed),
            "completed": completed,
            "rejected": rejected,
            "cancelled": cancelled,
            "in_flight": self.0.calls.len(),
        })
    }
}

/// A call that is under way.
pub struct CountedCall {
    _in_flight: TaskTrackerToken,
    counts: Counts,
    method: &'static str,
    key: String,
    began: Instant,
    outcome: CallOutcome,
}

impl CountedCall {
    /// Whose it is.
    pub fn is_of(&mut self, key: &str) {
        key.clone_into(&mut self.key);
    }

    /// It was answered like that; none = well.
    pub fn ends_with(&mut self, code: Option<Code>) {
        self.outcome = match code {
            // A conflict is an answer of the store, not a refusal of the API.
            None | Some(Code::Conflict) => CallOutcome::Completed,
            Some(Code::Unavailable | Code::Internal) => CallOutcome::Cancelled,
            Some(_) => CallOutcome::Rejected,
        };
    }
}

impl Drop for CountedCall {
    fn drop(&mut self) {
        let Inner { metrics, outcomes, .. } = &*self.counts.0;
        outcomes[self.outcome as usize].fetch_add(1, Ordering::Relaxed);
        metrics.api_call(&self.key, self.method, self.outcome).inc();
        metrics.api_seconds.observe(self.began.elapsed().as_secs_f64());
    }
}
