//! What is wrong, and why nothing can be concluded: each anomaly with the history that shows it, folded.

use super::markup::{cut, section, text};
use crate::{
    headline::{advice, reasons},
    measure::Measures,
    words::{count, line, moment},
};
use sluice_judge::verdict::{Anomaly, Verdict};

/// Anomalies on the page at most, and reasons.
const SHOWN_MAX: usize = 100;

/// Characters of a line at most.
const LINE_MAX: usize = 300;

/// Lines of a slice or a log at most: what a verdict may hold.
const LINES_MAX: usize = 40;

pub(super) fn sections(measures: &Measures, verdicts: &[Verdict]) -> String {
    wrong(measures, verdicts) + &unclear(measures, verdicts)
}

fn wrong(measures: &Measures, verdicts: &[Verdict]) -> String {
    if measures.totals.anomalies == 0 {
        return String::new();
    }
    let all = verdicts.iter().enumerate().flat_map(|(i, verdict)| {
        let seed = measures.parts.get(i).map_or(0, |part| part.seed);
        verdict.anomalies.iter().map(move |anomaly| (seed, anomaly))
    });
    let shown: Vec<_> = all.take(SHOWN_MAX).map(|(seed, anomaly)| one(seed, anomaly)).collect();
    let more = match measures.totals.anomalies.saturating_sub(shown.len() as u64) {
        0 => String::new(),
        n => format!("<p class=\"note\">and {} more</p>\n", count(n)),
    };
    let note = "Each with the smallest slice of history that shows it, and what the processes said around that time.";
    section("Anomalies", note, &(shown.concat() + &more))
}

fn one(seed: u64, anomaly: &Anomaly) -> String {
    let at =
        if anomaly.at_us == 0 { "at the end".to_owned() } else { format!("at {}", moment(anomaly.at_us)) };
    let room = anomaly.room.as_deref().map_or_else(String::new, |room| format!(", room {}", cut(room, 80)));
    let client = anomaly.client.map_or_else(String::new, |client| format!(", client {client}"));
    format!(
        "<details><summary><b class=\"bad\">{}</b> {at}{room}{client}, seed {seed}: {}</summary>\n{}{}</details>\n",
        anomaly.kind,
        cut(&anomaly.text, 2 * LINE_MAX),
        block(&anomaly.slice),
        block(&anomaly.logs),
    )
}

fn block(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: Vec<_> = lines.iter().take(LINES_MAX).map(|one| line(one, LINE_MAX)).collect();
    format!("<pre>{}</pre>\n", text(&lines.join("\n")))
}

fn unclear(measures: &Measures, verdicts: &[Verdict]) -> String {
    let reasons = reasons(measures, verdicts);
    if reasons.is_empty() {
        return String::new();
    }
    let items: String =
        reasons.iter().take(SHOWN_MAX).map(|reason| format!("<li>{}</li>\n", cut(reason, 600))).collect();
    let advice = advice(measures, verdicts);
    let (what, commands) = advice.split_once('\n').unwrap_or((&advice, ""));
    let commands: Vec<_> = commands.lines().map(|command| line(command.trim(), LINE_MAX)).collect();
    let body = format!("<ul>\n{items}</ul>\n<p>{}</p>\n{}", text(what), block(&commands));
    section(
        "Why this is inconclusive",
        "A drill counts only when its load was real and its faults hit.",
        &body,
    )
}
