//! Lines over time with marks where faults were: connections of each gateway, latency of publishes. Lines are stretched
//! to the reader's width, text and marks are not.

use super::{
    markup::{cut, section, text},
    scale::{Decades, Ticks, even, percent, share, time_ticks},
};
use crate::{
    measure::{Latency, Measures},
    words::{duration, moment},
};
use sluice_judge::record::FaultRecord;

/// Faults marked in a plot at most.
const MARKS_MAX: usize = 300;

/// Colours of lines; more lines begin again, dashed.
const COLOURS: usize = 6;

/// Lines of a plot at most.
const LINES_MAX: usize = 24;

/// The stretched drawing counts to this in both directions.
const SIZE: f64 = 1_000.0;

/// A line: its name, its points (shares of both axes) where it is whole, the words that its legend has.
struct PlotLine {
    name: String,
    pieces: Vec<Vec<(f64, f64)>>,
}

pub(super) fn connections(measures: &Measures) -> String {
    let highest =
        measures.connections.iter().flat_map(|one| one.runs.iter().flatten()).map(|(_, n)| *n).max();
    let Some(highest) = highest else { return String::new() };
    let (top, ticks) = even(highest);
    let length = length_us(measures);
    let lines = measures.connections.iter().take(LINES_MAX).map(|one| PlotLine {
        name: one.gateway.clone(),
        pieces: one
            .runs
            .iter()
            .map(|run| run.iter().map(|(at, n)| (share(*at, length), share(*n, top))).collect())
            .collect(),
    });
    let plot = plot(measures, "Connections of each gateway over time", &lines.collect::<Vec<_>>(), &ticks);
    let note = "Where clients were, and how they moved. Hover over a mark to see which fault it was.";
    section("Connections of each gateway", note, &plot)
}

pub(super) fn latency(measures: &Measures) -> String {
    let all = &measures.over_time;
    if all.is_empty() {
        return String::new();
    }
    let axis = Decades::of(all.iter().flat_map(|one| [one.p50_us, one.p99_us]));
    let length = length_us(measures);
    let line = |name: &str, of: fn(&Latency) -> u64| {
        // A stretch in which nothing was accepted is a hole in the line.
        let pieces = all.chunk_by(|one, next| next.at_us - one.at_us <= measures.step_us);
        let point = |one: &Latency| (share(one.at_us + measures.step_us / 2, length), axis.share(of(one)));
        PlotLine {
            name: name.to_owned(),
            pieces: pieces.map(|piece| piece.iter().map(point).collect()).collect(),
        }
    };
    let lines = [line("p50", |one| one.p50_us), line("p99", |one| one.p99_us)];
    let plot = plot(measures, "Latency of publishes over time", &lines, &axis.ticks());
    let note = match &measures.publish {
        Some(publish) => format!(
            "From first send to ok, by the {} in which it was sent. Over all: p50 {}, p99 {}, longest {}.",
            if measures.step_us == 1_000_000 { "second".to_owned() } else { duration(measures.step_us) },
            duration(publish.p50_us),
            duration(publish.p99_us),
            duration(publish.max_us),
        ),
        None => String::new(),
    };
    let delivery = measures.delivery.as_ref().map_or_else(String::new, |delivery| {
        format!(
            " To delivery at somebody else: p50 {}, p99 {}, longest {}.",
            duration(delivery.p50_us),
            duration(delivery.p99_us),
            duration(delivery.max_us)
        )
    });
    section("Latency of publishes", &(note + &delivery), &plot)
}

/// How long all runs were together.
fn length_us(measures: &Measures) -> u64 {
    measures.parts.iter().map(|part| part.offset_us + part.length_us).max().unwrap_or(0)
}

fn plot(measures: &Measures, label: &str, lines: &[PlotLine], y_ticks: &Ticks) -> String {
    let length = length_us(measures);
    let x_ticks = time_ticks(length);
    let legend: String = lines.iter().enumerate().map(|(i, line)| key(i, &line.name)).collect();
    let grid: String = y_ticks
        .iter()
        .map(|(at, _)| {
            let y = percent(1.0 - at);
            format!("<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{y}\" y2=\"{y}\"/>")
        })
        .collect();
    let curves: String = lines.iter().enumerate().map(|(i, line)| curve(i, line)).collect();
    let marks: String = measures.faults.iter().take(MARKS_MAX).map(|fault| mark(fault, length)).collect();
    let y: String = y_ticks
        .iter()
        .map(|(at, text)| format!("<span style=\"top:{}\">{text}</span>", percent(1.0 - at)))
        .collect();
    let x: String = x_ticks
        .iter()
        .map(|(at, text)| format!("<span style=\"left:{}\">{text}</span>", percent(*at)))
        .collect();
    format!(
        "<figure><div class=\"legend\">{legend}{}</div>\n<div class=\"plot\"><div class=\"y\">{y}</div>\
         <svg height=\"240\" role=\"img\" aria-label=\"{}\">{grid}{}\n{marks}\n\
         <svg viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\" width=\"100%\" height=\"100%\" \
         pointer-events=\"none\">{curves}</svg></svg><div class=\"x\">{x}</div></div></figure>\n",
        mark_keys(measures),
        text(label),
        borders(measures, length),
    )
}

fn classes(i: usize) -> String {
    format!("series s{}{}", i % COLOURS, if i >= COLOURS { " dash" } else { "" })
}

fn key(i: usize, name: &str) -> String {
    format!(
        "<span><svg width=\"22\" height=\"10\"><line class=\"{}\" x1=\"1\" x2=\"21\" y1=\"5\" y2=\"5\"/></svg>{}</span>",
        classes(i),
        cut(name, 60)
    )
}

fn curve(i: usize, line: &PlotLine) -> String {
    let mut path = String::new();
    for piece in &line.pieces {
        for (j, (x, y)) in piece.iter().enumerate() {
            let (x, y) = ((x * SIZE * 10.0).round() / 10.0, ((1.0 - y) * SIZE * 10.0).round() / 10.0);
            path += &format!("{}{x} {y}", if j == 0 { "M" } else { "L" });
        }
        if let [(x, y)] = piece.as_slice() {
            path += &format!("L{} {}", x * SIZE + 0.5, (1.0 - y) * SIZE);
        }
    }
    format!("<path class=\"{}\" vector-effect=\"non-scaling-stroke\" d=\"{path}\"/>", classes(i))
}

/// How a fault is marked: something was told to stop, was killed, or something else befell it.
fn sign(kind: &str) -> &'static str {
    match kind.split_whitespace().next() {
        Some("term") => "<path d=\"M-4.5 -8h9l-4.5 7z\"/>",
        Some("kill") => {
            "<path d=\"M-4 -9l4 3 4 -3 1 1 -3.5 3.5 3.5 3.5 -1 1 -4 -3 -4 3 -1 -1 3.5 -3.5 -3.5 -3.5z\"/>"
        }
        Some(_) | None => "<circle cy=\"-5\" r=\"3.5\"/>",
    }
}

fn mark(fault: &FaultRecord, length_us: u64) -> String {
    let at = percent(share(fault.began_us, length_us));
    let lasted = fault.healed_us.saturating_sub(fault.began_us);
    let missed = if fault.hit { "" } else { " missed" };
    let note = if fault.note.is_empty() { String::new() } else { format!(". {}", cut(&fault.note, 160)) };
    let hit = if fault.hit { "" } else { ", hit nothing" };
    format!(
        "<g class=\"fault{missed}\"><title>{}: {} ({}), whole again after {}{hit}{note}</title>\
         <rect x=\"{at}\" y=\"0\" width=\"{}\" height=\"100%\"/><line x1=\"{at}\" x2=\"{at}\" y1=\"0\" y2=\"100%\"/>\
         <line class=\"reach\" x1=\"{at}\" x2=\"{at}\" y1=\"-10\" y2=\"100%\"/><svg x=\"{at}\" overflow=\"visible\">{}</svg></g>\n",
        moment(fault.began_us),
        cut(&fault.kind, 80),
        cut(&fault.target, 80),
        duration(lasted),
        percent(share(lasted, length_us)),
        sign(&fault.kind),
    )
}

fn mark_keys(measures: &Measures) -> String {
    let has = |wanted: fn(&str) -> bool| {
        measures.faults.iter().any(|fault| wanted(fault.kind.split_whitespace().next().unwrap_or_default()))
    };
    let keys = [
        (has(|verb| verb == "term"), "term", "told to stop"),
        (has(|verb| verb == "kill"), "kill", "killed"),
        (has(|verb| verb != "term" && verb != "kill"), "", "another fault"),
    ];
    let mut words: String = keys
        .iter()
        .filter(|(there, ..)| *there)
        .map(|(_, kind, words)| {
            let sign = sign(kind);
            format!("<span><svg class=\"fault\" width=\"12\" height=\"12\" viewBox=\"-6 -11 12 12\">{sign}</svg>{words}</span>")
        })
        .collect();
    if measures.faults.len() > MARKS_MAX {
        words +=
            &format!("<span>the first {MARKS_MAX} of {} faults are marked</span>", measures.faults.len());
    }
    words
}

/// Where one run ends and the next begins.
fn borders(measures: &Measures, length_us: u64) -> String {
    let begins = measures.parts.iter().skip(1).map(|part| {
        let x = percent(share(part.offset_us, length_us));
        format!(
            "<line class=\"base\" x1=\"{x}\" x2=\"{x}\" y1=\"0\" y2=\"100%\"><title>seed {}</title></line>",
            part.seed
        )
    });
    begins.collect()
}
