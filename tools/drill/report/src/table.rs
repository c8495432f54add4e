//! The table of faults, as words: the same in a terminal, on a page and in a document. Pure.

use super::words::{NONE, count, duration, duration_or_none, line};
use crate::measure::{Broken, KindMeasure, Measures, Spread, TargetResult};

/// Names of the columns. The first is text, the others are numbers.
pub(super) const COLUMNS: [&str; 12] = [
    "fault",
    "n",
    "hit",
    "lost",
    "twice",
    "disorder",
    "other",
    "exit p50",
    "exit max",
    "silence p50",
    "silence p99",
    "silence max",
];

/// The same of the table of a crowd's way back.
pub(super) const CROWD_COLUMNS: [&str; 7] =
    ["crowd after", "away", "p50", "p99", "max", "beyond told p99", "beyond told max"];

/// Characters of the name of a fault.
const NAME_MAX: usize = 48;

/// Columns that must be 0.
pub(super) const BROKEN: std::ops::RangeInclusive<usize> = 3..=6;

/// One row, as long as [`COLUMNS`].
pub(super) type TableRow = [String; COLUMNS.len()];

/// A row for each kind of fault, one for anomalies that no fault explains, one for the silence without faults.
pub(super) fn rows(measures: &Measures) -> Vec<TableRow> {
    let mut rows: Vec<TableRow> = measures.kinds.iter().map(of_kind).collect();
    if measures.elsewhere != Broken::default() {
        rows.push(row("at no fault", None, Some(measures.elsewhere), None, None));
    }
    if let Some(steady) = &measures.steady {
        rows.push(row("(quiet, to compare)", None, None, None, Some(steady)));
    }
    rows
}

fn of_kind(kind: &KindMeasure) -> TableRow {
    let times = Some((kind.faults, kind.hit));
    row(&kind.kind, times, Some(kind.broken), kind.exit.as_ref(), kind.silence.as_ref())
}

fn row(
    name: &str,
    times: Option<(u64, u64)>,
    broken: Option<Broken>,
    exit: Option<&Spread>,
    silence: Option<&Spread>,
) -> TableRow {
    let number = |n: Option<u64>| n.map_or_else(String::new, count);
    let time = |spread: Option<&Spread>, of: fn(&Spread) -> u64| duration_or_none(spread.map(of));
    [
        line(name, NAME_MAX),
        number(times.map(|(n, _)| n)),
        number(times.map(|(_, hit)| hit)),
        number(broken.map(|broken| broken.lost)),
        number(broken.map(|broken| broken.duplicated)),
        number(broken.map(|broken| broken.reordered)),
        number(broken.map(|broken| broken.other)),
        time(exit, |exit| exit.p50_us),
        time(exit, |exit| exit.max_us),
        time(silence, |silence| silence.p50_us),
        time(silence, |silence| silence.p99_us),
        time(silence, |silence| silence.max_us),
    ]
}

/// A row for each kind of fault after which some of a crowd were away.
pub(super) fn crowd_rows(measures: &Measures) -> Vec<[String; CROWD_COLUMNS.len()]> {
    let time = |spread: Option<&Spread>, of: fn(&Spread) -> u64| duration_or_none(spread.map(of));
    let row = |kind: &KindMeasure| {
        let (away, beyond) = (kind.away.as_ref(), kind.away_beyond_told.as_ref());
        Some([
            line(&kind.kind, NAME_MAX),
            count(away?.n),
            time(away, |away| away.p50_us),
            time(away, |away| away.p99_us),
            time(away, |away| away.max_us),
            time(beyond, |beyond| beyond.p99_us),
            time(beyond, |beyond| beyond.max_us),
        ])
    };
    measures.kinds.iter().filter_map(row).collect()
}

/// A target in words: what, its bound, what was seen, whether it was met.
pub(super) fn target(target: &TargetResult) -> [String; 4] {
    let met = match target.met() {
        Some(true) => "met",
        Some(false) => "NOT MET",
        None => "not measured",
    };
    let bound = target.limit_us.map_or_else(|| NONE.to_owned(), |limit| format!("≤ {}", duration(limit)));
    [target.what.clone(), bound, duration_or_none(target.seen_us), met.to_owned()]
}

/// Rows as aligned lines: the first column to the left, the others to the right.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let joined = |row: &[String; N]| {
        let mut line = String::new();
        for (i, (cell, width)) in row.iter().zip(widths).enumerate() {
            line += &if i == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(joined).collect()
}
