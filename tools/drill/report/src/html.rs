//! A drill as one page for a browser: no script, nothing from elsewhere, light or dark as the reader likes it.

mod anomalies;
mod facts;
mod faults;
mod markup;
mod plots;
mod scale;
mod strips;

use super::headline::headline;
use crate::measure::Measures;
use markup::text;
use sluice_judge::verdict::Verdict;

const STYLE: &str = include_str!("html/page.css");

/// The whole page.
#[must_use]
pub fn html(measures: &Measures, verdicts: &[Verdict]) -> String {
    let headline = headline(measures, verdicts);
    let scenario = measures.parts.first().map_or("", |part| part.scenario.as_str());
    let body = [
        facts::top(measures, &headline),
        anomalies::sections(measures, verdicts),
        faults::table(measures),
        faults::targets(measures),
        strips::silences(measures),
        plots::connections(measures),
        plots::latency(measures),
        strips::exits(measures),
        faults::list(measures),
        facts::method(measures),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>\n\
         <title>{} – drill {}</title>\n<link rel=\"icon\" href=\"data:,\"/>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{}</main>\n</body>\n</html>\n",
        headline.state.word(),
        text(scenario),
        body.concat(),
    )
}
