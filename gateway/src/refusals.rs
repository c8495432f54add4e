//! Refused upgrades, counted: a metric by reason, and one line a second in the log that says how many, with the last of
//! them as an example. Strangers decide how many there are, so no line is written for each.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluice_service::untrusted::Untrusted;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::handshake::{Reason, Refusal};
use crate::metrics::Metrics;

/// Between two lines.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Refusals since the last line.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    /// As many entries as there are reasons.
    counts: BTreeMap<Reason, u64>,
    example: Option<Example>,
}

#[derive(Debug)]
struct Example {
    from: Option<IpAddr>,
    status: u16,
    /// Already cut.
    why: String,
}

impl Refusals {
    /// An upgrade was refused.
    pub fn refused(&self, metrics: &Metrics, refusal: &Refusal, from: Option<IpAddr>) {
        metrics.refused(refusal.reason.label());
        // Escaped before the lock is taken; strangers write this, and others wait for the lock.
        let why = Untrusted(&refusal.why).to_string();
        let recent = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *recent.counts.entry(refusal.reason).or_default() += 1;
        recent.example = Some(Example { from, status: refusal.status, why });
    }

    /// A client went away before its request was complete, or took too long. No line: scanners do that all day.
    pub fn abandoned(&self, metrics: &Metrics) {
        metrics.refused(Reason::Abandoned.label());
    }

    fn take(&self) -> Recent {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn log(&self) {
        let Recent { counts, example: Some(Example { from, status, why }) } = self.take() else { return };
        let count: u64 = counts.values().sum();
        let reasons: Vec<String> =
            counts.iter().map(|(reason, n)| format!("{} {n}", reason.label())).collect();
        let from = from.map_or_else(|| "unknown".to_owned(), |from| from.to_string());
        let reasons = reasons.join(", ");
        tracing::info!(
            count,
            reasons,
            from,
            status,
            why,
            "Upgrades were refused; the last of them is shown."
        );
    }
}

/// Writes the lines until `stop`.
pub async fn report(refusals: Arc<Refusals>, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = sleep(LINE_EVERY) => refusals.log(),
        }
    }
    // What came after the last line would be told by nobody.
    refusals.log();
}

#[cfg(test)]
mod tests {
    use sluice_service::metrics::Registry;

    use super::*;

    #[test]
    fn many_refusals_are_one_example_and_counts() {
        let (refusals, metrics) = (Refusals::default(), Metrics::new(&Registry::new("gateway")));
        let long = Refusal::unavailable(Reason::Full, &"x".repeat(10_000), 1);
        for _ in 0..1_000 {
            refusals.refused(&metrics, &long, None);
        }
        let recent = refusals.take();
        assert_eq!(recent.counts, BTreeMap::from([(Reason::Full, 1_000)]));
        assert!(recent.example.is_some_and(|example| example.why.len() < 160), "cut");
        assert!(refusals.take().example.is_none());
    }
}
