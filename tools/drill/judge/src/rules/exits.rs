//! Ordered stops: exit code 0, inside the budget.

use crate::findings::{Finding, Findings};
use crate::history::History;
use crate::history::lines::RecordLine;
use crate::verdict::AnomalyKind;

pub(super) fn judge(history: &History, findings: &mut Findings) {
    for (index, fault) in (0..).zip(&history.faults) {
        let Some(exit) = fault.exit.as_ref().filter(|exit| exit.budget_ms > 0) else { continue };
        let (took, budget) = (exit.took_ms, exit.budget_ms);
        let how = match exit.code {
            Some(0) if took <= budget => continue,
            Some(0) => "with code 0".to_owned(),
            Some(code) => format!("with code {code}"),
            None => "by a signal".to_owned(),
        };
        findings.add(AnomalyKind::BadExit, || {
            let (kind, target) = (&fault.kind, &fault.target);
            Finding::new(format!("{target} ended {how} after {took} ms of {budget} ms ({kind})"))
                .at(fault.began_us)
                .lines([RecordLine::Fault(index)])
        });
    }
}
