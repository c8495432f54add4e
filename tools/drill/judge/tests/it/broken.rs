//! Each way to break a promise is found under its name, and what only looks like it is not.

mod about_delays;
mod about_leaves;
mod about_processes;
mod about_publishes;
mod about_restores;
mod about_revocations;
mod about_store;
mod about_subscriptions;

use sluice_judge::verdict::AnomalyKind;

use crate::records::Records;

/// It is wrong, and one of the anomalies is of this kind, with the lines that show it.
#[track_caller]
fn assert_found(records: &Records, kind: AnomalyKind, text: &str) {
    let verdict = records.judged();
    let found = verdict.anomalies.iter().find(|it| it.kind == kind && it.text.contains(text));
    let Some(found) = found else { panic!("no {kind} with {text:?}: {:#?}", verdict.anomalies) };
    assert!(found.slice.len() <= 40);
    assert!(!verdict.is_green() && verdict.anomalies_total >= 1);
}

/// It is nothing but this.
#[track_caller]
fn assert_only(records: &Records, kind: AnomalyKind, text: &str) {
    assert_found(records, kind, text);
    assert_eq!(records.kinds(), [kind], "{:#?}", records.judged().anomalies);
}

#[track_caller]
fn assert_doubted(records: &Records, text: &str) {
    let verdict = records.judged();
    assert!(verdict.inconclusive.iter().any(|why| why.contains(text)), "{:?}", verdict.inconclusive);
    assert!(!verdict.is_green());
}
