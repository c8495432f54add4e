//! The promises, one file each, and the order in which they are looked at. Pure: nothing here opens a file.

mod acked;
mod complete;
mod conclusive;
mod counts;
mod delayed;
mod epochs;
mod exits;
mod farewells;
mod leaves;
mod leftovers;
mod order;
mod owed;
mod phantom;
mod realtime;
mod refused;
mod revocations;
mod starved;
mod store;
mod subscriptions;
mod unresolved;

use crate::findings::Findings;
use crate::history::History;
use crate::verdict::Verdict;

/// Judges a run.
#[must_use]
pub fn judge(history: &History) -> Verdict {
    let mut findings = Findings::default();
    let into = &mut findings;
    acked::judge(history, into);
    store::judge(history, into);
    phantom::judge(history, into);
    delayed::judge(history, into);
    // Before `complete`, which is told by it how far each client has come.
    let walked = subscriptions::judge(history, into);
    let judged = complete::judge(history, &walked.reaches, into);
    order::judge(history, into);
    realtime::judge(history, into);
    refused::judge(history, into);
    unresolved::judge(history, into);
    owed::judge(history, into);
    starved::judge(history, into);
    exits::judge(history, into);
    revocations::judge(history, into);
    farewells::judge(history, into);
    leaves::judge(history, into);
    leftovers::judge(history, into);
    epochs::judge(history, into);
    let mut counts = counts::count(history);
    counts.honest_gaps = walked.honest_gaps;
    let inconclusive = conclusive::doubts(history, &counts, judged);
    let anomalies_total = findings.total();
    Verdict { anomalies: findings.anomalies(history), anomalies_total, inconclusive, counts }
}
