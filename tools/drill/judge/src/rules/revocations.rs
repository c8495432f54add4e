//! Who is disconnected has no connection soon after the call, and comes in by no token of before once it was answered:
//! whichever gateways and logics stop and start meanwhile.

use crate::findings::{Finding, Findings};
use crate::history::History;
use crate::record::{RevocationRecord, RevokedConnection};
use crate::verdict::AnomalyKind;

pub(super) fn judge(history: &History, findings: &mut Findings) {
    for revocation in &history.revocations {
        let RevocationRecord { user, called_us, answered_us, within_us, connections, accepted, .. } =
            revocation;
        for RevokedConnection { instance, closed_us, .. } in connections {
            let after_us = closed_us.map(|closed_us| closed_us.saturating_sub(*called_us));
            if after_us.is_some_and(|after_us| after_us <= *within_us) {
                continue;
            }
            findings.add(AnomalyKind::Unrevoked, || {
                let what = match after_us {
                    Some(after_us) => {
                        format!("only ended after {} ms of {}", after_us / 1_000, within_us / 1_000)
                    }
                    None => "never ended".to_owned(),
                };
                let text = format!("{user} was disconnected, but the connection to {instance} {what}");
                Finding::new(text).at(closed_us.unwrap_or(*called_us))
            });
        }
        // A try that began before the answer may have come before the revocation.
        for (instance, began_us) in accepted.iter().filter(|(_, began_us)| began_us >= answered_us) {
            findings.add(AnomalyKind::Unrevoked, || {
                let after_ms = (began_us - answered_us) / 1_000;
                let text = format!(
                    "{instance} welcomed {user} by a revoked token, {after_ms} ms after the disconnect was answered"
                );
                Finding::new(text).at(*began_us)
            });
        }
    }
}
