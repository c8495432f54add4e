//! The configuration reference names every key of every service with its default, and no other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use sluice_launcher::{Service, certs, service_binary};

/// A file of the folder with the examples.
fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

/// A service's binary, with nothing in its environment.
fn service(service: Service) -> Command {
    let mut command = Command::new(service_binary(service, None).unwrap());
    command.env_clear();
    command
}

/// What `--print-config` says, as key → value as written.
fn printed(command: &mut Command) -> BTreeMap<String, String> {
    let output = command.arg("--print-config").output().unwrap();
    let (mut table, mut all) = (String::new(), BTreeMap::new());
    // A list of several is written a line each.
    let said =
        crate::text(&output.stdout).replace("[\n    ", "[").replace(",\n]", "]").replace(",\n    ", ", ");
    for line in said.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            table = format!("{name}.");
        } else if let Some((key, value)) = line.split_once(" = ") {
            all.insert(format!("{table}{key}"), value.to_owned());
        }
    }
    assert!(all.contains_key("shutdown.total_ms"), "{command:?} printed no configuration");
    all
}

#[test]
fn the_reference_is_complete_and_true() {
    let reference = std::fs::read_to_string(deploy("config.md")).unwrap();
    let mut one_process = Command::new(env!("CARGO_BIN_EXE_sluice"));
    one_process.env_clear().arg("serve");
    let services = Service::SERVICES.map(|of| (of.to_string(), service(of)));
    for (of, mut program) in services.into_iter().chain([("serve".to_owned(), one_process)]) {
        let (_, section) = reference.split_once(&format!("\n## {of}\n")).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let defaults = printed(&mut program);
        for (key, value) in &defaults {
            let variable = format!("SLUICE_{}", key.to_uppercase().replace('.', "__"));
            let row = format!("\n| `{key}` | `{value}` | `{variable}` | ");
            assert!(section.contains(&row), "{of}: deploy/config.md lacks the row{row}…");
        }
        let rows = section.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, defaults.len(), "{of}: deploy/config.md has a row for a key that is none");
    }
}

#[test]
fn the_example_files_are_usable() {
    let certificates = tempfile::tempdir().unwrap();
    certs::make(certificates.path()).unwrap();
    for of in Service::SERVICES {
        let file = deploy(&format!("{of}.toml"));
        let with_file = || {
            let mut command = service(of);
            command.env("SLUICE_TOKEN_SECRET", "0123456789abcdef").arg("--config").arg(&file);
            // They name files where an operator puts them.
            let files = certs::files(certificates.path(), of);
            for (key, file) in [("CA", files.ca), ("CERT", files.cert), ("KEY", files.key)] {
                command.env(format!("SLUICE_TLS__{key}"), file);
            }
            command
        };
        let output = with_file().arg("--check").output().unwrap();
        assert!(output.status.success(), "{of}: {}", crate::text(&output.stderr));
        assert_ne!(printed(&mut with_file()), printed(&mut service(of)), "{of}: the file changes nothing");
    }
}

#[test]
fn a_platform_that_kills_too_early_is_warned_about() {
    for of in Service::SERVICES {
        let warned = |kill_after_ms: &str| {
            let mut command = service(of);
            command.env("SLUICE_TOKEN_SECRET", "0123456789abcdef").arg("--check");
            let output = command.env("SLUICE_SHUTDOWN__KILL_AFTER_MS", kill_after_ms).output().unwrap();
            assert!(output.status.success(), "{of}: {}", crate::text(&output.stderr));
            crate::text(&output.stderr).contains("8s, but the process is killed after")
        };
        assert!(warned("8000"), "{of}");
        assert!(!warned("10000") && !warned("0"), "{of}");
    }
}
