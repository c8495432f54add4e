//! What the services say of themselves: their build, and examples that can be pasted.

use std::process::Command;

use sluice_launcher::{Service, service_binary};

use super::{run, text};

#[test]
fn version_and_help_name_commit_and_features() {
    let version = text(&run(&["--version"]).stdout);
    assert!(version.starts_with("sluice 0.") && version.contains("(commit "), "{version}");
    assert!(version.contains("features: dev servers store)"), "{version}");
    assert!(text(&run(&["--help"]).stdout).ends_with(&version), "{version}");
    for service in Service::SERVICES {
        let ask = |flag: &str| {
            let output =
                Command::new(service_binary(service, None).unwrap()).env_clear().arg(flag).output().unwrap();
            text(&output.stdout)
        };
        let version = ask("--version");
        assert!(version.contains("(commit ") && version.contains("features: servers)"), "{version}");
        assert!(ask("--help").ends_with(&version), "{version}");
    }
}

#[test]
fn the_examples_of_the_services_can_be_pasted() {
    for service in Service::SERVICES {
        let binary = service_binary(service, None).unwrap();
        let help = text(&Command::new(&binary).arg("--help").output().unwrap().stdout);
        let (_, rest) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{help}"));
        let examples = rest.split("\n\n").next().unwrap();
        assert!(examples.lines().count() >= 4, "{examples}");
        // asked for help behind them, each is parsed and starts nothing
        let shell =
            format!("set -e\nsluice-{service}() {{ \"$BINARY\" \"$@\" --help > /dev/null; }}\n{examples}");
        let output = Command::new("bash").args(["-c", &shell]).env("BINARY", &binary).output().unwrap();
        assert!(output.status.success(), "{examples}\n{}", text(&output.stderr));
    }
}
