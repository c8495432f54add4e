//! Reports of hand-made drills: all of them say what is wrong, and the page is well-formed whatever a run contains.

use super::*;
use crate::measure::{
    Measures, measure,
    synthetic::{SECOND, Synthetic, SyntheticClient, fault},
};
use sluice_judge::verdict::{Anomaly, AnomalyKind, Verdict};

/// What must not come out as markup.
const EVIL: &str = "</pre></details><script>alert(\"x\")</script> & <b>'`|* \u{1b}[2J";

fn green() -> (Measures, Vec<Verdict>) {
    let dir = tempfile::tempdir().unwrap();
    let faults = vec![
        fault("term gateway", 10 * SECOND),
        fault("kill task", 20 * SECOND),
        fault("wipe redis", 30 * SECOND),
    ];
    Synthetic::new(faults, vec![SyntheticClient::deaf(20 * SECOND, 21 * SECOND)]).write(dir.path());
    let verdicts = vec![Verdict::default()];
    (measure(&[dir.path()], &verdicts).unwrap(), verdicts)
}

fn red() -> (Measures, Vec<Verdict>) {
    let dir = tempfile::tempdir().unwrap();
    let mut evil = fault("kill task", 20 * SECOND);
    evil.kind = format!("kill {EVIL}");
    evil.target = EVIL.into();
    evil.note = EVIL.into();
    let mut run = Synthetic::new(vec![evil], vec![SyntheticClient::deaf(20 * SECOND, 21 * SECOND)]);
    run.run.command = EVIL.into();
    run.run.scenario = EVIL.into();
    run.run.build = EVIL.into();
    run.write(dir.path());
    let anomaly = Anomaly {
        kind: AnomalyKind::LostWrite,
        at_us: 21 * SECOND,
        room: Some(EVIL.into()),
        client: Some(3),
        text: EVIL.into(),
        slice: vec![EVIL.into(); 40],
        logs: vec![EVIL.into(); 40],
    };
    let verdicts = vec![Verdict {
        anomalies: vec![anomaly; 150],
        anomalies_total: 1_500,
        inconclusive: vec![EVIL.into()],
        ..Verdict::default()
    }];
    (measure(&[dir.path()], &verdicts).unwrap(), verdicts)
}

/// Every element that is opened is closed, in order, and no `<`, `>` or `&` stands free.
fn assert_well_formed(page: &str) {
    let mut open = Vec::new();
    let page = page.strip_prefix("<!DOCTYPE html>").unwrap();
    let (before, rest) = page.split_once("<style>").unwrap();
    let (style, after) = rest.split_once("</style>").unwrap();
    assert!(!style.contains('<') && !style.contains("url("), "{style}");
    let page = format!("{before}{after}");
    let mut pieces = page.split('<');
    assert_eq!(pieces.next().map(str::trim), Some(""));
    for piece in pieces {
        let (tag, text) = piece.split_once('>').unwrap_or_else(|| panic!("not closed: <{piece}"));
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        assert!(!text.contains('>'), "free > in {text:?} after <{tag}>");
        let name = tag.trim_end_matches('/').split_whitespace().next().unwrap();
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "</{name}>"),
            None if tag.ends_with('/') => {}
            None => open.push(name),
        }
        for entity in piece.split('&').skip(1) {
            let name = entity.split_once(';').map_or("", |(name, _)| name);
            assert!(["amp", "lt", "gt", "quot", "#39"].contains(&name), "free & in {piece:?}");
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_page_is_well_formed_and_alone() {
    for (measures, verdicts) in [green(), red()] {
        let page = html(&measures, &verdicts);
        assert_well_formed(&page);
        for word in ["http", "<script", "src=", "@import", "url(", "\u{1b}"] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.len() < 2_000_000, "{}", page.len());
    }
}

#[test]
fn nothing_measured_is_a_page_too() {
    let page = html(&Measures::default(), &[]);
    assert_well_formed(&page);
    assert!(page.contains("INCONCLUSIVE"));
    assert!(terminal(&Measures::default(), &[]).contains("INCONCLUSIVE"));
}

#[test]
fn the_page_shows_every_part() {
    let (measures, verdicts) = green();
    let page = html(&measures, &verdicts);
    for words in [
        "GREEN",
        "kill task",
        "Longest silence",
        "gateway-1",
        "Latency of publishes",
        "Time to exit",
        "2026-11-21",
    ] {
        assert!(page.contains(words), "{words}");
    }
    // A type that was renamed once took the word of a heading along.
    let titles: Vec<&str> =
        page.split("<h2>").skip(1).filter_map(|rest| rest.split("</h2>").next()).collect();
    let is_name = |word: &str| word.chars().skip(1).any(char::is_uppercase);
    assert!(titles.len() > 4 && !titles.iter().flat_map(|title| title.split(' ')).any(is_name), "{titles:?}");
    assert!(!page.contains("Anomalies</h2>"));
    let (measures, verdicts) = red();
    let page = html(&measures, &verdicts);
    assert!(page.contains("✕ RED") && page.contains("<b class=\"bad\">lost-write</b>"));
    assert!(page.contains("Why this is inconclusive"));
}

#[test]
fn the_terminal_says_what_is_wrong_and_is_bounded() {
    let (measures, verdicts) = red();
    let text = terminal(&measures, &verdicts);
    assert!(text.contains("RED: 1,500 anomalies: 150 lost-write, 1,350 more not listed."), "{text}");
    assert!(text.contains("1. lost-write at 21.000 s") && text.contains("and 1,490 more"), "{text}");
    assert!(text.contains("Why this is inconclusive"), "{text}");
    assert!(!text.contains('\u{1b}') && text.lines().count() < 300, "{text}");
    let (measures, verdicts) = green();
    let text = terminal(&measures, &verdicts);
    assert!(text.contains("GREEN: Nothing lost"), "{text}");
    let row = text.lines().find(|line| line.starts_with("kill task")).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(
        cells,
        [
            "kill", "task", "1", "1", "0", "0", "0", "0", "1.20", "s", "1.20", "s", "1.00", "s", "1.00", "s",
            "1.00", "s"
        ]
    );
}

#[test]
fn markdown_keeps_its_columns() {
    let (measures, verdicts) = red();
    let text = markdown(&measures, &verdicts);
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
    let columns = |row: &&str| row.replace("\\|", "").matches('|').count();
    assert!(rows[..3].iter().all(|row| columns(row) == 13), "{text}");
    assert!(rows[2].contains("\\<script") && !rows[2].contains(")<"), "{text}");
    assert!(text.starts_with("**RED.** 1,500 anomalies"), "{text}");
}
