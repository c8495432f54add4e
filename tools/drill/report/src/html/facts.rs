//! The top of the page: verdict, key figures, what was run; and its foot: how it was measured.

use super::markup::{cut, text};
use crate::{
    headline::{Headline, HeadlineState},
    measure::{Measures, RunFacts},
    words::{count, counted, date, duration, duration_or_none},
};

/// Runs listed at most.
const RUNS_MAX: usize = 50;

pub(super) fn top(measures: &Measures, headline: &Headline) -> String {
    let (class, sign) = match headline.state {
        HeadlineState::Good => ("good", "✓"),
        HeadlineState::Bad => ("bad", "✕"),
        HeadlineState::Unclear => ("warn", "?"),
    };
    let scenario = measures.parts.first().map_or("", |part| part.scenario.as_str());
    format!(
        "<header>\n<h1>Sluice drill · {}</h1>\n<div class=\"verdict {class}\"><b>{sign} {}</b><p>{}</p></div>\n\
         {}</header>\n{}",
        cut(scenario, 100),
        headline.state.word(),
        text(&headline.sentence),
        keys(measures),
        runs(&measures.parts),
    )
}

fn keys(measures: &Measures) -> String {
    let totals = &measures.totals;
    let longest =
        measures.kinds.iter().filter_map(|kind| kind.silence.as_ref()).map(|silence| silence.max_us);
    let met = measures.targets.iter().filter(|target| target.met() == Some(true)).count();
    let judged = measures.targets.iter().filter(|target| target.met().is_some()).count();
    let figures = [
        ("faults that hit", format!("{} of {}", count(totals.hit), count(totals.faults))),
        ("accepted", count(totals.acked)),
        ("deliveries", count(totals.deliveries)),
        ("anomalies", count(totals.anomalies)),
        ("longest silence", duration_or_none(longest.max())),
        ("publish p99", duration_or_none(measures.publish.as_ref().map(|publish| publish.p99_us))),
        ("targets met", format!("{met} of {judged}")),
    ];
    let figures: String = figures
        .iter()
        .map(|(name, figure)| format!("<div><span>{name}</span><b>{}</b></div>", text(figure)))
        .collect();
    format!("<div class=\"keys\">{figures}</div>\n")
}

fn runs(parts: &[RunFacts]) -> String {
    match parts {
        [] => String::new(),
        [part, others @ ..] if others.iter().all(|other| part.is_of_same_run(other)) => one(part, parts),
        several => {
            let rows: String =
                several.iter().take(RUNS_MAX).enumerate().map(|(i, part)| row(i + 1, part)).collect();
            let more = several.len().saturating_sub(RUNS_MAX);
            let more =
                if more > 0 { format!("<p class=\"note\">and {more} more</p>\n") } else { String::new() };
            format!(
                "<section>\n<h2>{}</h2>\n<div class=\"wide\"><table><thead><tr><th>run</th><th>seed</th>\
                 <th>build</th><th>began</th><th>lasted</th><th>clients</th><th>publishes/s</th>\
                 <th class=\"text\">command</th></tr></thead><tbody>\n{rows}</tbody></table></div>\n{more}</section>\n",
                counted(several.len() as u64, "run", "runs"),
            )
        }
    }
}

/// One run, in however many parts.
fn one(part: &RunFacts, parts: &[RunFacts]) -> String {
    let interrupted = if parts.iter().any(|part| part.interrupted) { ", interrupted" } else { "" };
    let in_parts = if parts.len() > 1 { format!(", in {} parts", parts.len()) } else { String::new() };
    let length_us = parts.iter().map(|part| part.length_us).sum();
    let facts = [
        ("Command", format!("<code>{}</code>", cut(&part.command, 2_000))),
        ("Seed", part.seed.to_string()),
        ("Build", cut(&part.build, 200)),
        ("Began", date(part.started_ms)),
        ("Lasted", format!("{}{in_parts}{interrupted}", duration(length_us))),
        (
            "Load",
            format!(
                "{}, {} publishes/s asked for",
                counted(part.clients.into(), "client", "clients"),
                count(part.rate_per_s.into())
            ),
        ),
    ];
    let facts: String =
        facts.iter().map(|(name, fact)| format!("<dt>{name}</dt><dd>{fact}</dd>\n")).collect();
    format!("<dl>\n{facts}</dl>\n")
}

fn row(number: usize, part: &RunFacts) -> String {
    let interrupted = if part.interrupted { " (interrupted)" } else { "" };
    format!(
        "<tr><td>{number}</td><td>{}</td><td>{}</td><td>{}</td><td>{}{interrupted}</td><td>{}</td><td>{}</td>\
         <td class=\"text\"><code>{}</code></td></tr>\n",
        part.seed,
        cut(&part.build, 40),
        date(part.started_ms),
        duration(part.length_us),
        count(part.clients.into()),
        count(part.rate_per_s.into()),
        cut(&part.command, 300),
    )
}

/// How the figures came about, for whoever doubts them.
pub(super) fn method(measures: &Measures) -> String {
    let thinned = match measures.delivery_one_in {
        0 | 1 => String::new(),
        n => format!(" Delivery times are of one message in {n}."),
    };
    let unread = match measures.unread_lines {
        0 => String::new(),
        n => format!(" {} of the records could not be read.", counted(n, "line", "lines")),
    };
    format!(
        "<footer><p class=\"note\">Silence: the longest time between two beacons that a subscribed client got one \
         after the other, of those that reach into the window of a fault: from its beginning until 5 s after \
         everything is whole again, or until the next fault. Silence that began before counts whole. Clients that \
         were slow, stopped or paused on purpose are left out. Quiet windows are as long as the median window of a \
         fault and touch none. An anomaly is put down to the last fault that had begun when it showed. Percentiles \
         are nearest ranks; those of publishes and deliveries are right to 1 %.{thinned}{unread}</p></footer>\n",
    )
}
