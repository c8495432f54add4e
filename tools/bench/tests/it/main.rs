//! The bench as a program: what it says of itself, and where nobody reads what it measured.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

#[path = "../../../sluice/tests/shared/sink.rs"]
mod sink;

use std::process::Command;

use sink::{Sink, ends_well, into};

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-bench"));
    for name in ["SLUICE_TOKEN_SECRET", "SLUICE_TOKEN_SECRET_FILE"] {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

#[test]
fn version_and_help_name_commit_and_features() {
    let said = |flag| String::from_utf8(bench(&[flag]).output().unwrap().stdout).unwrap();
    let version = said("--version");
    assert!(version.contains("(commit ") && version.trim_end().ends_with("features: none)"), "{version}");
    assert!(said("--help").ends_with(&version), "{version}");
    for flag in ["--version", "--help"] {
        ends_well(&mut bench(&[flag]), 0);
    }
}

#[test]
fn a_gateway_that_runs_already_needs_its_secret() {
    let file = std::env::temp_dir().join(format!("sluice-bench-secret-{}", std::process::id()));
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let at = ["neighbour", "pinger", "--at", "127.0.0.1:1", "--pid", "1"];
    for (more, said) in [
        (&[][..], "clients need tokens: give --token-secret"),
        (&["--token-secret-file", file], "is empty"),
        (&["--token-secret", "a", "--token-secret-file", file], "leave one of them"),
    ] {
        let output = bench(&[&at[..], more].concat()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_deployment_that_is_given_is_named_by_its_url() {
    let secret = ["--token-secret", "a-secret-of-thirty-two-bytes-abcd"];
    for (arguments, said) in [
        (vec!["latency", "--gateway", "ws://127.0.0.1:1/ws"], "clients need tokens: give --token-secret"),
        ([&["latency", "--gateway", "127.0.0.1:1"][..], &secret].concat(), "ws://host:port/path, or wss://"),
        (
            [&["publish", "--gateway", "wss://a/ws", "--via", "api"][..], &secret].concat(),
            "leave --gateway away",
        ),
        (
            [&["publish", "--gateway", "wss://127.0.0.1:1/ws", "--ca", "/nowhere.pem"][..], &secret].concat(),
            "cannot read /nowhere.pem",
        ),
    ] {
        let output = bench(&arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }
}

#[test]
fn every_stop_is_measured() {
    let few = ["stops", "--clients", "20", "--due", "2000", "--runs", "1", "--warmup", "1", "--json"];
    let output = bench(&few).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let section = &report["sections"][0];
    let figures = section["figures"].as_array().unwrap();
    let names: Vec<&str> = figures.iter().map(|figure| figure["name"].as_str().unwrap()).collect();
    let amid = ["idle", "under load", "2000 messages due", "20 idle clients"];
    let all = amid.iter().flat_map(|amid| ["gateway", "logic", "task"].map(|of| format!("{amid}: {of}")));
    assert_eq!(names, all.collect::<Vec<_>>());
    for figure in figures {
        let (ms, peak) = (figure["values"][0].as_f64().unwrap(), figure["values"][2].as_f64().unwrap());
        assert!(ms > 0.0 && ms < 8_000.0 && peak > 0.0, "{figure}");
    }
    let trouble =
        section["notes"].as_array().unwrap().iter().find(|note| note.to_string().contains("TROUBLE"));
    assert_eq!(trouble, None);
}

/// Both ways in one run, on one cluster: each has its figures, and every call was answered well.
#[test]
fn publishes_by_the_api_are_measured_beside_those_by_websocket() {
    let load =
        ["publish", "--via", "api", "--connections", "4", "--depth", "2", "--rooms", "3", "--rate", "50"];
    let windows = ["--runs", "1", "--seconds", "1", "--warmup", "0", "--json"];
    let out = bench(&[&load[..], &windows].concat()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let section = &report["sections"][0];
    let figures = section["figures"].as_array().unwrap();
    let of = |name: &str| {
        let figure = figures.iter().find(|figure| figure["name"] == name);
        figure.unwrap_or_else(|| panic!("no {name}: {figures:?}"))["values"][1].as_f64().unwrap()
    };
    for tag in ["websocket, saturated", "websocket, each awaited", "api, each awaited"] {
        assert!(of(&format!("{tag}: publishes/s")) > 10.0, "{tag}: {figures:?}");
    }
    for tag in ["websocket, steady", "api, steady"] {
        assert!((20.0..80.0).contains(&of(&format!("{tag}: publishes/s"))), "{tag}: {figures:?}");
        assert!(of(&format!("{tag}: answer p99, ms")) > 0.0);
    }
    let notes = section["notes"].to_string();
    assert!(!notes.contains("TROUBLE"), "{notes}");
}

#[test]
fn a_measurement_ends_whether_or_not_somebody_reads_it() {
    let full = "sluice-bench: cannot write to standard output: No space";
    for sink in Sink::ALL {
        let (code, last) = if sink == Sink::Full { (1, full) } else { (0, "bench: ") };
        let load = ["publish", "--connections", "2", "--depth", "1", "--rooms", "2", "--rate", "20"];
        let windows = ["--runs", "1", "--seconds", "1", "--warmup", "1"];
        let (ended, said) = into(sink, &mut bench(&[&load[..], &windows].concat()));
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.lines().next_back().is_some_and(|line| line.starts_with(last)), "{said}");
    }
}
