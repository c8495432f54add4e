//! The command line as people and programs use it: the real binary, real servers, real signals.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod api_key;
mod certs;
mod check;
mod cluster;
mod errors;
mod help;
mod reference;
mod roll;
mod secret;
#[path = "../shared/sink.rs"]
mod sink;
mod stdout;
mod token;

use std::process::{Command, Output};

/// The binary, without what the environment of the test might say.
fn sluice() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    for name in ["SLUICE_TOKEN_SECRET", "SLUICE_TOKEN_SECRET_FILE", "SLUICE_TOKEN", "SLUICE_URL"] {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    sluice().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[test]
fn every_verb_explains_itself_with_an_example() {
    for verb in [
        &["cluster"][..],
        &["token"],
        &["pub"],
        &["sub"],
        &["health"],
        &["status"],
        &["worker"],
        &["top"],
        &["instances"],
        &["duties"],
        &["duties", "release"],
        &["stop"],
        &["drain"],
        &["undrain"],
        &["disconnect"],
        &["check"],
        &["certs"],
        &["store", "new-epoch"],
        &["drill"],
        &["roll"],
    ] {
        let output = run(&[verb, &["--help"]].concat());
        let help = text(&output.stdout);
        assert!(output.status.success() && help.contains("Example"), "{verb:?}\n{help}");
        assert!(help.contains(&format!("sluice {}", verb.join(" "))), "{verb:?}\n{help}");
    }
}

#[test]
fn what_does_not_answer_is_not_healthy() {
    let output = run(&["health", "http://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("no answer"), "{}", text(&output.stdout));
}

#[test]
fn what_is_not_json_is_refused_with_a_hint() {
    let output = run(&["pub", "news", "hello", "--url", "ws://127.0.0.1:1/ws"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("quotes"), "{}", text(&output.stderr));
    let output = run(&["pub", "news", "1", "--url", "ws://127.0.0.1:1/ws"]);
    assert!(text(&output.stderr).contains("cannot connect"), "{}", text(&output.stderr));
}
