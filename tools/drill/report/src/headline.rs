//! The verdict of all runs in one word and one sentence, and what to do when nothing can be concluded. Pure.

use std::collections::BTreeMap;

use super::words::{count, counted, line};
use crate::measure::Measures;
use sluice_judge::verdict::{AnomalyKind, Verdict};

/// Commands shown at most.
const COMMANDS_MAX: usize = 3;

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadlineState {
    Good,
    Bad,
    Unclear,
}

/// The verdict of all runs together.
#[derive(Debug, Clone)]
pub(super) struct Headline {
    pub(super) state: HeadlineState,
    pub(super) sentence: String,
}

impl HeadlineState {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Good => "GREEN",
            Self::Bad => "RED",
            Self::Unclear => "INCONCLUSIVE",
        }
    }
}

pub(super) fn headline(measures: &Measures, verdicts: &[Verdict]) -> Headline {
    let totals = &measures.totals;
    if totals.anomalies > 0 {
        return Headline { state: HeadlineState::Bad, sentence: anomalies(totals.anomalies, verdicts) };
    }
    let reasons: u64 = verdicts.iter().map(|verdict| verdict.inconclusive.len() as u64).sum();
    if reasons > 0 || verdicts.is_empty() {
        let sentence = format!(
            "Nothing wrong was seen, but nothing is proven: {}.",
            counted(reasons, "reason", "reasons")
        );
        return Headline { state: HeadlineState::Unclear, sentence };
    }
    let sentence = format!(
        "Nothing lost, nothing twice, nothing out of order: {} accepted and {} made under {}.",
        counted(totals.acked, "publish", "publishes"),
        counted(totals.deliveries, "delivery", "deliveries"),
        counted(totals.hit, "fault", "faults"),
    );
    Headline { state: HeadlineState::Good, sentence }
}

fn anomalies(total: u64, verdicts: &[Verdict]) -> String {
    let mut kinds: BTreeMap<AnomalyKind, u64> = BTreeMap::new();
    for anomaly in verdicts.iter().flat_map(|verdict| &verdict.anomalies) {
        *kinds.entry(anomaly.kind).or_default() += 1;
    }
    let listed: Vec<_> = kinds.iter().map(|(kind, n)| format!("{} {kind}", count(*n))).collect();
    let unlisted = total.saturating_sub(kinds.values().sum());
    let more = if unlisted > 0 { format!(", {} more not listed", count(unlisted)) } else { String::new() };
    format!("{}: {}{more}.", counted(total, "anomaly", "anomalies"), listed.join(", "))
}

/// Why nothing can be concluded, each reason with the run it is about when there are several.
pub(super) fn reasons(measures: &Measures, verdicts: &[Verdict]) -> Vec<String> {
    let several = verdicts.len() > 1;
    let mut reasons = Vec::new();
    for (i, verdict) in verdicts.iter().enumerate() {
        let seed = measures.parts.get(i).map_or(0, |part| part.seed);
        let of = if several { format!("part {} (seed {seed}): ", i + 1) } else { String::new() };
        reasons.extend(verdict.inconclusive.iter().map(|reason| format!("{of}{reason}")));
    }
    reasons
}

/// What to do about an inconclusive run.
pub(super) fn advice(measures: &Measures, verdicts: &[Verdict]) -> String {
    let mut advice = String::from("Change what the reasons name, then run again");
    let unclear = measures.parts.iter().zip(verdicts).filter(|(_, verdict)| !verdict.inconclusive.is_empty());
    let mut commands: Vec<_> = unclear.map(|(part, _)| line(&part.command, 300)).collect();
    commands.dedup();
    commands.retain(|command| !command.is_empty());
    for command in commands.iter().take(COMMANDS_MAX) {
        advice += &format!("\n  {command}");
    }
    if commands.len() > COMMANDS_MAX {
        advice += &format!("\n  and {} more", commands.len() - COMMANDS_MAX);
    }
    advice
}
