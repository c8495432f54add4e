//! The JSON of `/status`: what a person, a drill or a roll needs to know about a stop.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use sluice_lifecycle::{StageOutcome, StageReport, Work};

use super::AdminPages;
use crate::clock::Clock;

impl AdminPages {
    /// Stage and state, since when (wall clock), what is left of a stop, who is waited for, the work, the stages so
    /// far, and the service's own fields.
    #[must_use]
    pub fn status(&self) -> Value {
        let progress = self.lifecycle.progress().borrow().clone();
        let age = Instant::now().saturating_duration_since(progress.since.into_std());
        // A stop that is so far has nothing left that could be missed.
        let missed = (!progress.safe_to_kill()).then(|| (self.missed)().err()).flatten();
        let drained = (self.drained)();
        let mut status = json!({
            "service": self.service,
            "instance": (self.instance)(),
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "stage": progress.stage.as_str(),
            "state": progress.state().as_str(),
            "since_ms": Clock::system().now_ms().saturating_sub_unsigned(millis(age)),
            "uptime_ms": millis(self.lifecycle.uptime()),
            "accepting": progress.takes_work() && (self.accepts)() && !drained,
            "drained_by_operator": drained,
            "remaining_ms": progress.remaining().map(millis),
            "eta_ms": self.lifecycle.ends_within().map(millis),
            "reason": progress.reason.as_ref().map(ToString::to_string),
            "blockers": counts(&self.lifecycle.blockers()),
            "tasks": counts(&self.lifecycle.tasks()),
            "safe_to_kill": missed.is_none(),
            "a_kill_would": missed,
            "degraded": self.dependencies.degraded(),
            "warnings": self.warnings,
            "counts": self.lifecycle.counts(),
            "report": progress.outcomes.iter().map(stage).collect::<Vec<_>>(),
        });
        let own = if let Value::Object(own) = (self.status)() { own } else { Map::new() };
        if let Some(status) = status.as_object_mut() {
            // What all services say comes first: none can say it otherwise.
            for (key, value) in work(&self.lifecycle.work()).into_iter().chain(own) {
                status.entry(key).or_insert(value);
            }
        }
        status
    }
}

/// The work of a service under the names that all of them share.
fn work(work: &Work) -> Map<String, Value> {
    let named = [
        ("in_flight", work.in_flight),
        ("processed_count", work.processed()),
        ("accepted", work.accepted),
        ("completed", work.completed),
        ("rejected", work.rejected),
        ("cancelled", work.cancelled),
    ];
    let mut named: Map<_, _> =
        named.into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect();
    named.insert("is_processing".to_owned(), json!(work.is_processing()));
    named
}

fn stage(report: &StageReport) -> Value {
    let late = if let StageOutcome::Late(late) = &report.outcome { late.as_slice() } else { &[] };
    let failures: Vec<Value> =
        report.failures.iter().map(|(task, error)| json!({ "task": task, "error": error })).collect();
    json!({
        "stage": report.stage.as_str(),
        "outcome": report.outcome.as_str(),
        "elapsed_ms": millis(report.elapsed),
        "allowed_ms": millis(report.allowed),
        "late": counts(late),
        "failures": failures,
        "counts": report.counts,
    })
}

fn counts(named: &[(String, usize)]) -> Map<String, Value> {
    named.iter().map(|(name, count)| (name.clone(), json!(count))).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
