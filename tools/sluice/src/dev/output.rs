//! What `sluice dev` says: one JSON object for programs; a banner, lines to paste and the stages for people. A reader
//! that has gone away, or stopped reading, is no reason to stop or to wait.

use std::io::IsTerminal;

use serde_json::json;
use sluice_dev::{Dev, Event};
use sluice_lifecycle::{Report, StageOutcome, StageReport};
use sluice_service::lines::Lines;

use crate::paste;

/// Where `sluice pub` and `sluice sub` look when nobody tells them.
const USUAL_URL: &str = "ws://127.0.0.1:8080/ws";

pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    fn line(text: &str) {
        Lines::stdout().say(text);
    }

    fn for_people(&self, text: &str) {
        if !self.json {
            Self::line(text);
        }
    }

    pub(super) fn running(&self, dev: &Dev) {
        if self.json {
            let mut first = dev.introduction();
            first["api_key"] = json!(dev.api_key());
            // Not on standard output: its first line is what programs read.
            dev.notes().iter().for_each(|note| Lines::stderr().say(&format!("sluice dev: {note}")));
            Self::line(&first.to_string());
        } else {
            Self::line(&banner(dev));
        }
    }

    pub(super) fn stopping(&self) {
        // A terminal shows ^C where the cursor is.
        let lead = if std::io::stdout().is_terminal() { "\r" } else { "" };
        self.for_people(&format!("{lead}stopping: gateways first, then task, logic and the store"));
    }

    pub(super) fn event(&self, event: &Event, stopping: bool) {
        match event {
            // The banner has told of the first life.
            Event::Ready { name, life } if *life > 1 => {
                self.for_people(&format!("  {name:<10} is ready again"))
            }
            Event::Ended { name, report } => self.for_people(&stages(name, report, stopping)),
            Event::Ready { .. } => {}
        }
    }

    pub(super) fn stopped(&self, report: &Report) {
        let unclean = if report.is_clean() { "" } else { "; not everything was done in time, see above" };
        self.for_people(&format!("stopped in {:.2} s{unclean}", report.elapsed.as_secs_f64()));
    }
}

/// One line: what each stage took, and who was late.
fn stages(name: &str, report: &Report, stopping: bool) -> String {
    let all: Vec<String> = report.stages.iter().map(stage).collect();
    let counts: Vec<String> = report.counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
    let counts = if counts.is_empty() { String::new() } else { format!("  ({})", counts.join(", ")) };
    // One that failed takes everything with it.
    let again = if stopping || report.exit_code() != 0 { "" } else { "  restarts …" };
    format!("  {name:<10} {}{counts}{again}", all.join(" · "))
}

fn stage(report: &StageReport) -> String {
    let (stage, ms) = (report.stage, report.elapsed.as_millis());
    match &report.outcome {
        StageOutcome::Done => format!("{stage} {ms} ms"),
        StageOutcome::Late(who) => {
            let who: Vec<String> = who.iter().map(|(name, count)| format!("{name} {count}")).collect();
            format!("{stage} LATE after {ms} ms: {}", who.join(", "))
        }
        StageOutcome::Failed => {
            let why: Vec<String> =
                report.failures.iter().map(|(name, error)| format!("{name}: {error}")).collect();
            format!("{stage} FAILED: {}", why.join(", "))
        }
        StageOutcome::Skipped => format!("{stage} SKIPPED"),
    }
}

fn banner(dev: &Dev) -> String {
    let sluice = paste::program();
    let store = dev.store().map_or_else(
        || "memory: GONE when this process ends, no promise holds".to_owned(),
        |path| path.display().to_string(),
    );
    let mut text = String::from(
        "\n  FOR DEVELOPMENT: everybody is let in without a token, no TLS, this machine only.\n  \
         On a network run sluice serve, or sluice-gateway, sluice-logic and sluice-task.\n\n",
    );
    text.push_str(&format!("  page        {}\n", dev.page()));
    text.push_str(&format!(
        "  sdk         {}/sluice.js  for pages of your own: --origin lets them in\n",
        dev.page()
    ));
    for gateway in dev.gateways() {
        let (name, ws, admin) = (&gateway.name, &gateway.ws, &gateway.admin);
        text.push_str(&format!("  {name:<10}  {ws}  admin {admin}  metrics {admin}/metrics\n"));
    }
    for (name, admin) in dev.others() {
        text.push_str(&format!("  {name:<10}  admin {admin}  metrics {admin}/metrics\n"));
    }
    for logic in dev.logics() {
        text.push_str(&format!("  api         {}/v1/  key {}\n", logic.http, dev.api_key()));
    }
    text.push_str(&format!("  messages    {store}\n"));
    dev.notes().iter().for_each(|note| text.push_str(&format!("  note        {note}\n")));
    let ws = dev.gateways().first().map(|gateway| gateway.ws.clone()).unwrap_or_default();
    // As short as it can be typed: what the client takes by itself is not said.
    let url = if ws == USUAL_URL { String::new() } else { format!(" --url {ws}") };
    text.push_str(&format!(
        "\n  Open the page, or paste into two other terminals\n\n    {sluice} sub news --after 0{url}\n    \
         {sluice} pub news '{{\"t\":\"hi\"}}'{url}\n\n  or talk by hand\n\n    websocat {ws}\n    \
         {{\"sub\":\"news\"}}\n    {{\"pub\":\"news\",\"data\":{{\"t\":\"hi\"}}}}\n\n  and roll a gateway under them\n\n    \
         {sluice} dev restart gateway-1{}\n\n  Ctrl-C stops everything in order.\n",
        folder(dev)
    ));
    text
}

/// The flag that leads to the folder, unless it is where people are.
fn folder(dev: &Dev) -> String {
    let here = std::env::current_dir().is_ok_and(|here| here == dev.dir());
    if here { String::new() } else { format!(" --dir {}", paste::path(dev.dir())) }
}
