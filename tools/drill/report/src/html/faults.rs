//! Tables of the page: faults by kind, targets, every fault.

use super::markup::{cut, section, text};
use crate::{
    measure::Measures,
    table::{self, BROKEN, TableRow},
    words::{NONE, count, duration, moment},
};
use sluice_judge::record::FaultRecord;

/// Faults listed one by one at most.
const LISTED_MAX: usize = 500;

pub(super) fn table(measures: &Measures) -> String {
    let rows: String = table::rows(measures).iter().map(row).collect();
    let body = format!(
        "<div class=\"wide\"><table><thead><tr class=\"group\"><th></th><th></th><th></th>\
         <th colspan=\"4\">anomalies</th><th colspan=\"2\">time to exit</th>\
         <th colspan=\"3\">longest silence of a client</th></tr>\n\
         <tr><th>fault</th><th>done</th><th>hit</th><th>lost</th><th>twice</th><th>disorder</th><th>other</th>\
         <th>p50</th><th>max</th><th>p50</th><th>p99</th><th>max</th></tr></thead><tbody>\n{rows}</tbody></table></div>\n"
    );
    let unlisted = match measures.unlisted {
        0 => String::new(),
        n => format!(" {} anomalies are counted but not listed, and stand in no row.", count(n)),
    };
    section("What each kind of fault did", &format!("Anomalies must be 0 in every row.{unlisted}"), &body)
}

fn row(cells: &TableRow) -> String {
    let quiet = cells.get(1).is_some_and(String::is_empty);
    let [_, done, hit, ..] = cells;
    let cells = cells.iter().enumerate().map(|(i, cell)| {
        let class = match cell.as_str() {
            "0" if BROKEN.contains(&i) => " class=\"zero\"",
            "" | NONE => " class=\"zero\"",
            _ if BROKEN.contains(&i) => " class=\"broken\"",
            _ if i == 2 && hit != done => " class=\"warn\"",
            _ => "",
        };
        format!("<td{class}>{}</td>", text(cell))
    });
    format!("<tr{}>{}</tr>\n", if quiet { " class=\"quiet\"" } else { "" }, cells.collect::<String>())
}

pub(super) fn targets(measures: &Measures) -> String {
    let rows: String = measures
        .targets
        .iter()
        .map(|target| {
            let [what, bound, seen, met] = table::target(target);
            let (class, sign) = match target.met() {
                Some(true) => ("good", "✓ "),
                Some(false) => ("bad", "✕ "),
                None => ("mute", ""),
            };
            format!(
                "<tr><td class=\"tell {class}\">{sign}{}</td><td>{}</td><td>{}</td><td class=\"text\">{}</td><td>{}</td></tr>\n",
                text(&met.to_lowercase()),
                text(&seen),
                text(&bound),
                text(&what),
                count(target.n),
            )
        })
        .collect();
    let body = format!(
        "<div class=\"wide\"><table><thead><tr><th></th><th>seen</th><th>bound</th>\
         <th class=\"text\">target</th><th>values</th></tr></thead><tbody>\n{rows}</tbody></table></div>\n"
    );
    let note = match &measures.steady {
        Some(steady) => {
            format!("With nothing done, the p99 of the longest silence is {}.", duration(steady.p99_us))
        }
        None => "No window of this drill was quiet long enough to say what silence is normal.".to_owned(),
    };
    section("Targets", &note, &body)
}

/// Every fault, folded away.
pub(super) fn list(measures: &Measures) -> String {
    if measures.faults.is_empty() {
        return String::new();
    }
    let rows: String = measures.faults.iter().take(LISTED_MAX).map(listed).collect();
    let more = match measures.faults.len().saturating_sub(LISTED_MAX) {
        0 => String::new(),
        n => format!("<p class=\"note\">and {n} more</p>\n"),
    };
    let body = format!(
        "<details><summary>{} faults, one by one</summary>\n<div class=\"wide\"><table><thead><tr><th>at</th>\
         <th class=\"text\">fault</th><th class=\"text\">of</th><th>whole again after</th><th>exit</th>\
         <th class=\"text\">note</th></tr></thead><tbody>\n{rows}</tbody></table></div>\n{more}</details>\n",
        count(measures.faults.len() as u64)
    );
    section("Every fault", "In order of time; of several runs one after another.", &body)
}

fn listed(fault: &FaultRecord) -> String {
    let exit = fault.exit.as_ref().map_or_else(
        || NONE.to_owned(),
        |exit| {
            let code = exit.code.map_or_else(|| "signal".to_owned(), |code| format!("code {code}"));
            format!("{code}, {}", duration(exit.took_ms * 1_000))
        },
    );
    let missed = if fault.hit { "" } else { " <b class=\"warn\">(hit nothing)</b>" };
    format!(
        "<tr><td>{}</td><td class=\"text\">{}{missed}</td><td class=\"text\">{}</td><td>{}</td><td>{}</td>\
         <td class=\"text\">{}</td></tr>\n",
        moment(fault.began_us),
        cut(&fault.kind, 80),
        cut(&fault.target, 80),
        duration(fault.healed_us.saturating_sub(fault.began_us)),
        text(&exit),
        cut(&fault.note, 300),
    )
}
