//! `sluice status`: all instances in one table.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_program::output;

use crate::page::{Asked, Page};

/// Show all instances in one table: where each stands, and how many clients each gateway has
///
/// Exit code 0 when all answer and serve, else 1.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice status http://127.0.0.1:8081 http://127.0.0.1:7071 http://127.0.0.1:7072
  sluice status --json http://gateway-1:8081 http://gateway-2:8081 | jq .connections")]
pub(crate) struct Arguments {
    #[command(flatten)]
    asked: Asked,
    /// One JSON object per line: all that the page says, and its address as `admin`
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let pages = arguments.asked.pages().await;
    if arguments.json {
        for (url, page) in &pages {
            output::line(object(url, page))?;
        }
    } else {
        output::text(&table(&pages))?;
    }
    let serves = |(_, page): &(&str, Result<Value, String>)| page.as_ref().is_ok_and(is_serving);
    Ok(if pages.iter().all(serves) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_serving(page: &Value) -> bool {
    let page = Page::of(page);
    page.stage == "ready" && !page.drained
}

fn object(url: &str, page: &Result<Value, String>) -> Value {
    match page {
        Ok(page) => {
            let mut page = page.clone();
            if let Some(fields) = page.as_object_mut() {
                fields.insert("admin".to_owned(), json!(url));
            }
            page
        }
        Err(error) => json!({"admin": url, "error": error}),
    }
}

fn table(pages: &[(&str, Result<Value, String>)]) -> String {
    let mut rows = vec![
        [
            "SERVICE",
            "INSTANCE",
            "STAGE",
            "UP",
            "CONNECTIONS",
            "IN FLIGHT",
            "PROCESSED",
            "KILL",
            "PID",
            "VERSION",
            "ADMIN",
        ]
        .map(String::from),
    ];
    let (mut gateways, mut connections) = (0, 0);
    let mut notes = String::new();
    for (url, page) in pages {
        let page = match page {
            Ok(page) => Page::of(page),
            Err(error) => {
                rows.push(["?", "", error, "", "", "", "", "", "", "", url].map(String::from));
                continue;
            }
        };
        gateways += u64::from(page.connections.is_some());
        connections += page.connections.unwrap_or_default();
        if let Some(reason) = &page.reason {
            notes.push_str(&format!("{url}: {reason}\n"));
        }
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let stage = page.standing();
        rows.push([
            page.service,
            page.instance,
            stage,
            page.uptime.map(uptime).unwrap_or_default(),
            number(page.connections),
            number(page.in_flight),
            number(page.processed),
            if page.safe_to_kill { "safe" } else { "no" }.to_owned(),
            number(page.pid),
            page.version,
            (*url).to_owned(),
        ]);
    }
    let many = |count: u64| if count == 1 { "" } else { "s" };
    let sum = format!("{connections} connection{}", many(connections));
    format!("{}{notes}{sum} on {gateways} gateway{}\n", aligned(&rows), many(gateways))
}

/// The two largest units: nobody wants the seconds of a month.
pub(crate) fn uptime(up: Duration) -> String {
    let seconds = up.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

/// Rows in columns as wide as they need to be.
pub(crate) fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let line = |row: &[String; COLUMNS]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_all_instances_and_the_sum() {
        let gateway = json!({"service": "gateway", "instance": "g1", "stage": "ready", "connections": 12,
                             "in_flight": 3, "processed_count": 90, "uptime_ms": 61_000, "safe_to_kill": true,
                             "pid": 7, "version": "0.1.0"});
        let stopping = json!({"service": "gateway", "instance": "g2", "stage": "drain", "connections": 5,
                              "remaining_ms": 1_500, "reason": "SIGTERM", "pid": 8, "version": "0.1.0"});
        let text = table(&[
            ("http://a:1", Ok(gateway)),
            ("http://b:1", Ok(stopping.clone())),
            ("http://c:1", Err("no answer: refused".to_owned())),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        let words = |line: usize| lines[line].split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(1), "gateway g1 ready 1m1s 12 3 90 safe 7 0.1.0 http://a:1");
        assert_eq!(words(2), "gateway g2 drain, 1.5 s left 5 no 8 0.1.0 http://b:1");
        assert_eq!(words(3), "? no answer: refused http://c:1");
        assert_eq!(lines[4..], ["http://b:1: SIGTERM", "17 connections on 2 gateways"]);
        assert!(!is_serving(&stopping));
        let drained = json!({"service": "task", "stage": "ready", "drained_by_operator": true});
        assert!(!is_serving(&drained));
        assert!(table(&[("http://a:1", Ok(drained))]).contains("ready, drained by operator"));
    }

    #[test]
    fn an_uptime_has_its_two_largest_units() {
        let cases =
            [(0, "0s"), (59, "59s"), (61, "1m1s"), (3_600, "1h0m"), (7_260, "2h1m"), (90_000, "1d1h")];
        for (seconds, expected) in cases {
            assert_eq!(uptime(Duration::from_secs(seconds)), expected);
        }
    }
}
