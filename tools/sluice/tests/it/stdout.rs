//! Standard output that nobody reads or that takes nothing: never a panic, whatever the verb.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sluice_launcher::{Service, service_binary};
use sluice_testing::Reader;

use super::{run, sluice, text};
use crate::sink::{Sink, ends_well, into};

const SECRET: &str = "a secret of many bytes";

/// The names of all verbs, from the program itself.
fn verbs() -> Vec<String> {
    let help = text(&run(&["--help"]).stdout);
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn help_and_version_of_everything() {
    ends_well(sluice().arg("--version"), 0);
    ends_well(sluice().arg("--help"), 0);
    let verbs = verbs();
    assert!(verbs.len() >= 11, "{verbs:?}");
    // `help` explains the others, and has no --help of its own
    for verb in verbs.into_iter().filter(|verb| verb != "help") {
        ends_well(sluice().args([verb.as_str(), "--help"]), 0);
    }
    for service in Service::SERVICES {
        for flag in ["--help", "--version", "--print-config"] {
            ends_well(Command::new(service_binary(service, None).unwrap()).env_clear().arg(flag), 0);
        }
    }
}

#[test]
fn verbs_that_need_nobody() {
    let token = text(&run(&["token", "--user", "ann", "--sub", "*", "--token-secret", SECRET]).stdout);
    ends_well(sluice().args(["token", "--user", "ann", "--sub", "*", "--token-secret", SECRET]), 0);
    ends_well(sluice().args(["token", "check", &token, "--token-secret", SECRET]), 0);
    // what was found out is told by the exit code, read or unread
    ends_well(sluice().args(["health", "http://127.0.0.1:1"]), 1);
    ends_well(sluice().args(["status", "http://127.0.0.1:1"]), 1);
    ends_well(sluice().arg("check").env("SLUICE_TOKEN_SECRET", "0123456789abcdef0123456789abcdef"), 0);
}

#[test]
fn a_check_has_nothing_to_say_and_errors_go_where_nobody_reads_either() {
    for service in Service::SERVICES {
        let mut command = Command::new(service_binary(service, None).unwrap());
        command.env_clear().env("SLUICE_TOKEN_SECRET", "0123456789abcdef0123456789abcdef").arg("--check");
        for sink in Sink::ALL {
            assert_eq!(into(sink, &mut command).0, Some(0), "{command:?}");
            let warned = command.env("SLUICE_SHUTDOWN__KILL_AFTER_MS", "1").stderr(sink.stdio()).status();
            assert_eq!(warned.unwrap().code(), Some(0), "{command:?}");
        }
    }
    for (arguments, code) in [
        (&["--nonsense"][..], 2),
        (&["pub", "news", "no json"], 1),
        (&["roll", "--pid", "gateway-1=1"], 2),
        (&["drill", "--only", "no such fault"], 2),
        (&["token", "--user", "ann"], 1),
    ] {
        for sink in Sink::ALL {
            let status = sluice().args(arguments).stderr(sink.stdio()).status().unwrap();
            assert_eq!(status.code(), Some(code), "{arguments:?} {sink:?}");
        }
    }
}

#[test]
fn certificates_that_were_made_are_said_to_be_there() {
    let parent = tempfile::tempdir().unwrap();
    for (sink, name) in [(Sink::Closed, "closed"), (Sink::Full, "full")] {
        let dir = parent.path().join(name);
        for more in [&[][..], &["--renew"]] {
            let (code, said) = into(sink, sluice().args(["certs", "--dir"]).arg(&dir).args(more));
            assert!(dir.join("logic.pem").exists());
            match sink {
                Sink::Closed => assert_eq!((code, said.as_str()), (Some(0), "")),
                Sink::Full => {
                    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
                    assert!(said.contains("the certificates are in ") && said.contains("No space"), "{said}");
                }
            }
        }
        ends_well(sluice().args(["certs", "--if-missing", "--dir"]).arg(&dir), 0);
    }
}

/// A drill takes minutes: read or unread it is judged, and what could not be said can be asked for again.
#[test]
fn a_drill_ends_with_its_verdict_and_keeps_what_could_not_be_said() {
    let folder = tempfile::tempdir().unwrap();
    let dir = |sink: Sink| folder.path().join(format!("{sink:?}"));
    let drill = |sink: Sink| {
        let mut command = sluice();
        command.args(["drill", "quick", "--quiet", "--rounds", "1", "--only", "term task", "--seed", "5"]);
        command.args(["--clients", "20", "--rate", "50", "--rooms", "5", "--dir"]).arg(dir(sink));
        into(sink, &mut command)
    };
    let (code, said) = drill(Sink::Closed);
    assert_eq!(code, Some(0), "{said}");
    assert!(dir(Sink::Closed).join("faults.jsonl").exists());
    let (code, said) = drill(Sink::Full);
    assert_eq!(code, Some(1), "{said}");
    let last = said.lines().next_back().unwrap_or_default();
    assert!(last.contains("the drill is over, ") && last.contains(" drill --check "), "{said}");
    assert_eq!(last.matches("No space left on device").count(), 1, "{said}");
    ends_well(sluice().args(["drill", "--check"]).arg(dir(Sink::Full)), 0);
}

/// What runs until a signal goes on: whoever started it may not listen, or may have stopped reading.
#[test]
fn a_cluster_goes_on_and_stops() {
    let (_kept, mut stuck) = Reader::Stuck.pipe();
    stuck.write_all(&[b'\n'; 4096]).unwrap();
    let outputs =
        [("closed", Sink::Closed.stdio()), ("full", Sink::Full.stdio()), ("stuck", Stdio::from(stuck))];
    for (name, output) in outputs {
        let dir = tempfile::tempdir().unwrap();
        let mut command = sluice();
        command.args(["cluster", "--json", "--gateways", "0", "--logics", "0", "--tasks", "0", "--dir"]);
        let mut child = command.arg(dir.path()).stdin(Stdio::null()).stdout(output).spawn().unwrap();
        let began = Instant::now();
        while !dir.path().join("postgres-1").exists() && !dir.path().join("postgres").exists() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{:?}",
                std::fs::read_dir(dir.path()).unwrap().collect::<Vec<_>>()
            );
            std::thread::yield_now();
        }
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{name}");
    }
}
