//! Distributions as strips, one below the other on one axis of decades: longest silences by fault, exits by service.

use super::{
    markup::{section, text},
    scale::{Decades, percent},
};
use crate::{
    measure::{Measures, Spread},
    words::{count, duration},
};

/// Margin on both sides of a strip, so that no dot is cut: share of its width.
const MARGIN: f64 = 0.015;

/// Half of the height over which dots are scattered, and the middle of a strip; pixels.
const SCATTER: usize = 9;
const MIDDLE: usize = 19;

/// One strip.
struct Strip<'a> {
    name: String,
    note: String,
    spread: &'a Spread,
    limit_us: Option<u64>,
}

pub(super) fn silences(measures: &Measures) -> String {
    let mut strips = Vec::new();
    let strip =
        |name: &str, note: String, spread| Strip { name: name.to_owned(), note, spread, limit_us: None };
    for kind in &measures.kinds {
        for (spread, what) in [
            (&kind.silence, ""),
            (&kind.beyond_told, "beyond the told time, "),
            (&kind.after_notice, "after the client notices, "),
        ] {
            if let Some(spread) = spread {
                strips.push(strip(&kind.kind, format!("{what}n = {}", count(spread.n)), spread));
            }
        }
    }
    if let Some(steady) = &measures.steady {
        strips.push(strip("quiet", format!("to compare, n = {}", count(steady.n)), steady));
    }
    let note = "How long each subscribed client heard nothing around each fault, at worst. One dot is one client at \
                one fault; of many, some are drawn.";
    chart("Longest silence", note, &strips, "")
}

pub(super) fn exits(measures: &Measures) -> String {
    let strips: Vec<_> = measures
        .exits
        .iter()
        .map(|exits| Strip {
            name: exits.service.clone(),
            note: format!("n = {}", count(exits.took.n)),
            spread: &exits.took,
            limit_us: Some(exits.budget_us),
        })
        .collect();
    let budget = "<span><svg width=\"10\" height=\"16\"><line class=\"limit\" x1=\"5\" x2=\"5\" y1=\"0\" y2=\"16\"/></svg>\
                  longest allowed</span>";
    chart(
        "Time to exit",
        "From the signal to the end, of processes that were asked to stop.",
        &strips,
        budget,
    )
}

fn chart(title: &str, note: &str, strips: &[Strip<'_>], more_keys: &str) -> String {
    if strips.is_empty() {
        return String::new();
    }
    let values = strips.iter().flat_map(|strip| {
        let drawn = strip.spread.drawn_us.iter().copied();
        drawn.chain([strip.spread.max_us]).chain(strip.limit_us)
    });
    let axis = Decades::of(values);
    let rows: String = strips.iter().map(|strip| row(strip, axis)).collect();
    let ticks: String = axis
        .ticks()
        .iter()
        .map(|(at, text)| format!("<span style=\"left:{}\">{text}</span>", percent(inside(*at))))
        .collect();
    let key =
        |mark: &str, words: &str| format!("<span><svg width=\"12\" height=\"16\">{mark}</svg>{words}</span>");
    let legend = [
        key("<line class=\"p50\" x1=\"6\" x2=\"6\" y1=\"1\" y2=\"15\"/>", "median"),
        key("<line class=\"p99\" x1=\"6\" x2=\"6\" y1=\"1\" y2=\"15\"/>", "99th percentile"),
        key("<circle class=\"max\" cx=\"6\" cy=\"8\" r=\"4\"/>", "longest"),
    ]
    .concat();
    let body = format!(
        "<figure><div class=\"legend\">{legend}{more_keys}</div>\n<div class=\"strips\">\
         <div class=\"row\"><span></span><span class=\"strip\"></span><span class=\"num head\">p50</span><span class=\"num head\">p99</span>\
         <span class=\"num head\">max</span></div>\n{rows}<span></span><div class=\"axis x\">{ticks}</div></div></figure>\n"
    );
    section(title, note, &body)
}

fn inside(share: f64) -> f64 {
    MARGIN + share * (1.0 - 2.0 * MARGIN)
}

fn row(strip: &Strip<'_>, axis: Decades) -> String {
    let x = |us: u64| percent(inside(axis.share(us)));
    let spread = strip.spread;
    let line = |class: &str, us: u64| {
        format!("<line class=\"{class}\" x1=\"{0}\" x2=\"{0}\" y1=\"7\" y2=\"31\"/>", x(us))
    };
    let grid: String = axis
        .ticks()
        .iter()
        .map(|(at, _)| {
            format!("<line class=\"grid\" x1=\"{0}\" x2=\"{0}\" y1=\"0\" y2=\"38\"/>", percent(inside(*at)))
        })
        .collect();
    let dots: String = spread
        .drawn_us
        .iter()
        .enumerate()
        .map(|(i, us)| {
            format!(
                "<circle class=\"dot\" cx=\"{}\" cy=\"{}\" r=\"2.6\"/>",
                x(*us),
                MIDDLE - SCATTER + scatter(i)
            )
        })
        .collect();
    let limit = strip.limit_us.map_or_else(String::new, |limit| line("limit", limit));
    let [p50, p99, max] = [spread.p50_us, spread.p99_us, spread.max_us].map(duration);
    let allowed = strip.limit_us.map_or_else(String::new, |limit| format!(", allowed {}", duration(limit)));
    let title = format!("{}: p50 {p50}, p99 {p99}, longest {max}{allowed}", strip.name);
    let (name, note, title) = (text(&strip.name), text(&strip.note), text(&title));
    format!(
        "<div class=\"row\"><div class=\"name\">{name}<small>{note}</small></div>\
         <svg class=\"strip\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>{grid}{dots}{limit}{}{}\
         <circle class=\"max\" cx=\"{}\" cy=\"{MIDDLE}\" r=\"4\"/></svg>\
         <span class=\"num\">{p50}</span><span class=\"num\">{p99}</span><span class=\"num\">{max}</span></div>\n",
        line("p50", spread.p50_us),
        line("p99", spread.p99_us),
        x(spread.max_us),
    )
}

/// Where the i-th dot is, up and down: neighbours lie apart, and the same every time.
fn scatter(i: usize) -> usize {
    i * 7 % (2 * SCATTER + 1)
}
