//! What a command says when it cannot do its work: the cause, once, in words of the system and not of the program.

use std::process::{Command, Output};

use sluice_launcher::{Service, service_binary};

use super::{run, text};

/// A part between colons that stands in a message more than once.
fn said_twice(message: &str) -> Option<&str> {
    let parts: Vec<&str> =
        message.split([':', ';', '\n']).map(str::trim).filter(|part| part.len() > 6).collect();
    parts.iter().enumerate().find(|(at, part)| parts[at + 1..].contains(part)).map(|(_, part)| *part)
}

/// It failed, and said so as people say it; `why` is in it.
fn fails_well(output: &Output, why: &str) {
    let said = format!("{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(!output.status.success() && said.contains(why), "{why}: {said}");
    assert_eq!(said_twice(&said), None, "{said}");
    for internal in ["expected struct", "InvalidToken", "former=None", "Caused by", "Os {"] {
        assert!(!said.contains(internal), "{internal}: {said}");
    }
}

#[test]
fn a_cause_is_said_once() {
    assert_eq!(
        said_twice("cannot read x: No such file (os error 2): No such file (os error 2)"),
        Some("No such file (os error 2)")
    );
    for (arguments, why) in [
        (&["drill", "--check", "/nowhere"][..], "/nowhere"),
        (&["drill", "--secure", "--gateway", "ws://127.0.0.1:1/ws"], "--secure is for a cluster of its own"),
        (&["cluster", "--dir", "/dev/null/x"], "/dev/null/x"),
        (&["check", "--gateway", "/nowhere.toml"], "/nowhere.toml"),
        (&["token", "check", "rubbish", "--secret", "a secret of many bytes"], "no JWT"),
        (&["token", "check", "a.b.c", "--secret", "a secret of many bytes"], "no JWT"),
    ] {
        fails_well(&run(arguments), why);
    }
    #[cfg(feature = "store")]
    fails_well(&run(&["store", "new-epoch", "--postgres", "postgres://nobody@127.0.0.1:1/x"]), "refused");
    for service in Service::SERVICES {
        let mut command = Command::new(service_binary(service, None).unwrap());
        command.env_clear().args(["--config", "/nowhere.toml"]);
        fails_well(&command.output().unwrap(), "/nowhere.toml");
        let mut command = Command::new(service_binary(service, None).unwrap());
        command.env_clear().args(["--set", "log=5"]);
        fails_well(&command.output().unwrap(), "expected a table");
    }
}
