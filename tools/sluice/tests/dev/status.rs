//! What services say of themselves, in the same words everywhere, and what shows it.

use std::process::Output;

use serde_json::Value;
use sluice_launcher::probe;

use crate::rig::{Dev, SOON, run, text};

fn verb(verb: &[&str], urls: &[String]) -> Output {
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    run(&[verb, &urls].concat())
}

/// Where the admin pages of all services are.
async fn admins(dev: &Dev) -> Vec<String> {
    let state = probe::get(&format!("{}/dev/state", dev.page()), SOON).await.unwrap();
    let state: Value = serde_json::from_str(&state.body).unwrap();
    let services = state["services"].as_array().unwrap();
    services.iter().map(|one| one["admin"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_service_says_the_same_and_each_is_found_by_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &["--gateways", "1"]);
    let published = run(&["pub", "news", "1", "--url", dev.ws(0)]);
    assert!(published.status.success(), "{published:?}");
    let admins = admins(&dev).await;
    assert_eq!(admins.len(), 3, "{admins:?}");
    let output = verb(&["status", "--json"], &admins);
    let pages: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers =
        ["uptime_ms", "in_flight", "processed_count", "accepted", "completed", "rejected", "cancelled"];
    for page in &pages {
        assert!(numbers.iter().all(|name| page[name].is_u64()), "{page}");
        assert!(
            ["accepting", "is_processing", "safe_to_kill"].iter().all(|name| page[name].is_boolean()),
            "{page}"
        );
        assert!(["state", "stage"].iter().all(|name| page[name].is_string()), "{page}");
        assert!(page["blockers"].is_object() && page["remaining_ms"].is_null() && page["eta_ms"].is_null());
        let id = page["instance"].as_str().unwrap();
        let shown = verb(&["worker", id], &admins);
        let said = text(&shown.stdout);
        assert_eq!(shown.status.code(), Some(0), "{said}");
        let line =
            |name: &str, value: &str| said.lines().any(|line| line.split_whitespace().eq([name, value]));
        assert!(line("instance", id) && line("state", "running"), "{said}");
        assert!(line("service", page["service"].as_str().unwrap()), "{said}");
    }
    let table = text(&verb(&["status"], &admins).stdout);
    assert!(table.starts_with("SERVICE") && table.contains("PROCESSED"), "{table}");
    // Three services in one process: its pid is no name of one.
    let pid = pages[0]["pid"].to_string();
    for unclear in ["nobody-here", pid.as_str()] {
        let output = verb(&["worker", unclear], &admins);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("is not exactly one of those who answer"), "{output:?}");
    }
    dev.signal("-TERM");
    assert_eq!(dev.wait().0.code(), Some(0));
}

#[cfg(feature = "servers")]
#[test]
fn a_live_view_needs_a_terminal_and_says_what_does_not() {
    let output = run(&["top", "http://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("`sluice status ADMIN-URL`"), "{output:?}");
}
