//! Who was disconnected.

use sluice_judge::record::{RevocationRecord, RevokedConnection};
use sluice_judge::verdict::AnomalyKind;

use super::assert_only;
use crate::records::Records;
use crate::script::Script;

/// Called at 1 s, answered 50 ms later: one connection that ended so long after the call, and tries with the token.
fn revoked(ended_after_ms: Option<u64>, accepted: &[u64]) -> Records {
    let closed_us = ended_after_ms.map(|ms| 1_000_000 + ms * 1_000);
    let connections = vec![RevokedConnection { instance: "gateway-a".into(), closed_us, code: Some(4503) }];
    let accepted = accepted.iter().map(|at_us| ("gateway-b".to_owned(), *at_us)).collect();
    let mut records = Script::usual().done();
    records.revocations.push(RevocationRecord {
        user: "ann".into(),
        called_us: 1_000_000,
        answered_us: 1_050_000,
        within_us: 1_000_000,
        connections,
        refused: 20,
        accepted,
    });
    records
}

#[test]
fn who_is_disconnected_keeps_nothing() {
    revoked(Some(1_000), &[]).assert_green();
    assert_only(&revoked(Some(1_001), &[]), AnomalyKind::Unrevoked, "gateway-a only ended after 1001 ms");
    assert_only(&revoked(None, &[]), AnomalyKind::Unrevoked, "gateway-a never ended");
}

#[test]
fn a_revoked_token_opens_nothing_after_the_answer() {
    revoked(Some(20), &[1_049_999]).assert_green();
    let found = revoked(Some(20), &[1_049_999, 1_250_000]);
    assert_only(&found, AnomalyKind::Unrevoked, "gateway-b welcomed ann by a revoked token, 200 ms after");
    assert_eq!(found.judged().anomalies_total, 1);
}

#[test]
fn they_are_read_from_their_file() {
    let dir = tempfile::tempdir().expect("a folder");
    revoked(None, &[]).write(dir.path());
    let verdict = sluice_judge::check(dir.path()).expect("a run");
    assert_eq!(verdict.anomalies.first().map(|it| it.kind), Some(AnomalyKind::Unrevoked));
}
