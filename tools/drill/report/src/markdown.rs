//! A drill as a few lines of Markdown, for a document. No slices: those are on the page.

use super::{
    headline::headline,
    table::{COLUMNS, CROWD_COLUMNS, crowd_rows, rows, target},
    words::{counted, date, duration, line},
};
use crate::measure::Measures;
use sluice_judge::verdict::Verdict;

/// Runs named one by one; of more, only how many.
const RUNS_MAX: usize = 3;

/// Verdict, table of faults, latencies and targets.
#[must_use]
pub fn markdown(measures: &Measures, verdicts: &[Verdict]) -> String {
    let headline = headline(measures, verdicts);
    let mut out = format!("**{}.** {}\n\n", headline.state.word(), text(&headline.sentence));
    for part in measures.parts.iter().take(RUNS_MAX) {
        let command = line(&part.command, 300).replace('`', "'");
        let date = date(part.started_ms);
        out += &format!("`{command}`, seed {}, build {}, {date}.  \n", part.seed, text(&part.build));
    }
    if measures.parts.len() > RUNS_MAX {
        out +=
            &format!("And {}.\n", counted((measures.parts.len() - RUNS_MAX) as u64, "more run", "more runs"));
    }
    out.push('\n');
    out += &row(&COLUMNS.map(str::to_owned));
    out += &format!("|---|{}\n", "---:|".repeat(COLUMNS.len() - 1));
    for cells in rows(measures) {
        out += &row(&cells);
    }
    let crowd = crowd_rows(measures);
    if !crowd.is_empty() {
        out += &format!("\n{}", row(&CROWD_COLUMNS.map(str::to_owned)));
        out += &format!("|---|{}\n", "---:|".repeat(CROWD_COLUMNS.len() - 1));
        out.extend(crowd.iter().map(|cells| row(cells)));
    }
    for (name, spread) in
        [("Publish to `ok`", &measures.publish), ("Publish to delivery", &measures.delivery)]
    {
        if let Some(spread) = spread {
            let [p50, p99, max] = [spread.p50_us, spread.p99_us, spread.max_us].map(duration);
            out += &format!("\n{name}: p50 {p50}, p99 {p99}, longest {max}.\n");
        }
    }
    out += "\n| target | bound | seen | |\n|---|---:|---:|---|\n";
    for one in &measures.targets {
        out += &row(&target(one));
    }
    out
}

fn row(cells: &[String]) -> String {
    let cells: Vec<_> = cells.iter().map(|cell| text(cell)).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// Text that is no markup.
fn text(words: &str) -> String {
    let mut safe = String::new();
    for c in line(words, 300).chars() {
        if matches!(c, '|' | '<' | '*' | '_' | '`' | '[' | '\\') {
            safe.push('\\');
        }
        safe.push(c);
    }
    safe
}
