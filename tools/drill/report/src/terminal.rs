//! A drill in a terminal: verdict first, then the table, then what is wrong. Plain text, no colours, bounded.

use super::{
    headline::{HeadlineState, advice, headline, reasons},
    table::{COLUMNS, CROWD_COLUMNS, aligned, crowd_rows, rows, target},
    words::{NONE, count, counted, duration, line, moment},
};
use crate::measure::{Measures, Spread};
use sluice_judge::verdict::{Anomaly, Verdict};

/// Anomalies shown; the page has more.
const ANOMALIES_MAX: usize = 10;

/// Lines of history and of logs shown of one.
const SLICE_MAX: usize = 12;
const LOGS_MAX: usize = 6;

/// Characters shown of a line.
const LINE_MAX: usize = 180;

/// The whole report as text.
#[must_use]
pub fn terminal(measures: &Measures, verdicts: &[Verdict]) -> String {
    let mut out = String::new();
    table(&mut out, measures);
    crowd(&mut out, measures);
    latencies(&mut out, measures);
    targets(&mut out, measures);
    anomalies(&mut out, measures, verdicts);
    inconclusive(&mut out, measures, verdicts);
    let headline = headline(measures, verdicts);
    out += &format!("{}: {}\n", headline.state.word(), headline.sentence);
    if headline.state == HeadlineState::Bad {
        let seeds: Vec<_> = measures.totals.seeds.iter().map(u64::to_string).collect();
        out += &format!("The same again: seed {}.\n", line(&seeds.join(", "), LINE_MAX));
    }
    out
}

fn table(out: &mut String, measures: &Measures) {
    let mut cells = vec![COLUMNS.map(str::to_owned)];
    cells.extend(rows(measures));
    for row in aligned(&cells) {
        *out += &format!("{row}\n");
    }
    out.push('\n');
}

/// How the crowd came back; nothing without one.
fn crowd(out: &mut String, measures: &Measures) {
    let mut cells = vec![CROWD_COLUMNS.map(str::to_owned)];
    cells.extend(crowd_rows(measures));
    if cells.len() > 1 {
        for row in aligned(&cells) {
            *out += &format!("{row}\n");
        }
        out.push('\n');
    }
}

fn latencies(out: &mut String, measures: &Measures) {
    let spread = |spread: Option<&Spread>| match spread {
        Some(spread) => [duration(spread.p50_us), duration(spread.p99_us), duration(spread.max_us)],
        None => [NONE; 3].map(str::to_owned),
    };
    let row = |name: &str, of: Option<&Spread>, n: u64| {
        let [p50, p99, max] = spread(of);
        [name.to_owned(), count(n), p50, p99, max]
    };
    let totals = &measures.totals;
    let rows = [
        ["", "n", "p50", "p99", "max"].map(str::to_owned),
        row("publish to ok", measures.publish.as_ref(), totals.acked),
        row("publish to delivery", measures.delivery.as_ref(), totals.deliveries),
    ];
    for row in aligned(&rows) {
        *out += &format!("{row}\n");
    }
    if measures.delivery_one_in > 1 {
        *out += &format!("deliveries timed of one message in {}\n", measures.delivery_one_in);
    }
    if measures.unread_lines > 0 {
        *out += &format!(
            "{} of the records could not be read\n",
            counted(measures.unread_lines, "line", "lines")
        );
    }
    out.push('\n');
}

fn targets(out: &mut String, measures: &Measures) {
    let mut rows = vec![["target", "bound", "seen", ""].map(str::to_owned)];
    rows.extend(measures.targets.iter().map(target));
    for row in aligned(&rows) {
        *out += &format!("{row}\n");
    }
    out.push('\n');
}

fn anomalies(out: &mut String, measures: &Measures, verdicts: &[Verdict]) {
    let mut shown = 0;
    for (i, verdict) in verdicts.iter().enumerate() {
        let seed = measures.parts.get(i).map_or(0, |part| part.seed);
        for anomaly in verdict.anomalies.iter().take(ANOMALIES_MAX - shown) {
            shown += 1;
            *out += &format!("{shown}. {} (seed {seed})\n", summary(anomaly));
            lines(out, "  ", &anomaly.slice, SLICE_MAX);
            lines(out, "  log: ", &anomaly.logs, LOGS_MAX);
            out.push('\n');
        }
    }
    let more = measures.totals.anomalies.saturating_sub(shown as u64);
    if more > 0 {
        *out += &format!("and {} more\n\n", count(more));
    }
}

fn lines(out: &mut String, before: &str, lines: &[String], max: usize) {
    for one in lines.iter().take(max) {
        *out += &format!("{before}{}\n", line(one, LINE_MAX));
    }
    if lines.len() > max {
        *out += &format!("{before}… {} more\n", lines.len() - max);
    }
}

/// `lost-write at 12.345 s, room news, client 7: text`.
fn summary(anomaly: &Anomaly) -> String {
    let at =
        if anomaly.at_us == 0 { "at the end".to_owned() } else { format!("at {}", moment(anomaly.at_us)) };
    let room = anomaly.room.as_deref().map_or_else(String::new, |room| format!(", room {}", line(room, 60)));
    let client = anomaly.client.map_or_else(String::new, |client| format!(", client {client}"));
    format!("{} {at}{room}{client}: {}", anomaly.kind, line(&anomaly.text, 2 * LINE_MAX))
}

fn inconclusive(out: &mut String, measures: &Measures, verdicts: &[Verdict]) {
    let reasons = reasons(measures, verdicts);
    if reasons.is_empty() {
        return;
    }
    *out += "Why this is inconclusive:\n";
    for reason in reasons.iter().take(2 * ANOMALIES_MAX) {
        *out += &format!("  {}\n", line(reason, 2 * LINE_MAX));
    }
    if reasons.len() > 2 * ANOMALIES_MAX {
        *out += &format!("  and {} more\n", reasons.len() - 2 * ANOMALIES_MAX);
    }
    *out += &format!("{}\n\n", advice(measures, verdicts));
}
