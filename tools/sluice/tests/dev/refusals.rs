//! What `sluice dev` does not do, and says so.

use std::net::TcpListener;
use std::process::Stdio;

use sluice_client::raw::{Handshake, Socket};

use crate::rig::{Dev, free_port, run, sluice, text, until};

fn refused(arguments: &[&str]) -> String {
    let output = run(&[&["dev", "--json"], arguments].concat());
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty());
    text(&output.stderr)
}

#[test]
fn it_is_for_this_machine_alone() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    for host in ["0.0.0.0", "::", "10.1.2.3"] {
        let said = refused(&["--dir", folder, "--host", host]);
        assert!(
            said.contains(host) && said.contains("loopback") && said.contains("sluice-gateway"),
            "{said}"
        );
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was begun");
}

#[test]
fn a_folder_and_a_port_have_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let dev = Dev::start(dir.path(), &["--gateways", "1"]);
    let said = refused(&["--dir", folder]);
    assert!(
        said.contains("`sluice dev` runs in") && said.contains(folder) && said.contains("--dir"),
        "{said}"
    );
    drop(dev);

    let other = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = refused(&["--dir", other.path().to_str().unwrap(), "--port", &port]);
    assert!(said.contains(&port) && said.contains("taken"), "{said}");
    drop(taken);
    let dev = Dev::start(other.path(), &["--port", &port]);
    assert_eq!(dev.ws(0), format!("ws://127.0.0.1:{port}/ws"));
}

#[test]
fn the_cause_of_a_start_that_fails_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let not_a_state = tempfile::tempdir().unwrap();
    std::fs::write(not_a_state.path().join("sluice-dev.json"), "{").unwrap();
    for (folder, more, why) in [
        (dir.path(), &["--port", &port][..], "is taken"),
        (dir.path(), &["--gateways", "0"], "at least one gateway"),
        (not_a_state.path(), &[], "sluice-dev.json cannot be read"),
    ] {
        for json in [&["--json"][..], &[]] {
            let output = run(&[&["dev", "--dir", folder.to_str().unwrap()], json, more].concat());
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(output.stdout.is_empty() && said.lines().count() == 1, "{said}");
            assert!(said.starts_with("sluice dev: ") && said.matches(why).count() == 1, "{said}");
        }
    }
}

/// A browser hides why a page was not let in: whoever started it sees that, and what lets it in.
#[tokio::test]
async fn people_are_told_of_the_origin_that_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut command = sluice();
    command
        .args(["dev", "--memory", "--gateways", "1", "--port", &port.to_string(), "--dir"])
        .arg(dir.path());
    let log = dir.path().join("log");
    command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    let origin = "http://localhost:5173";
    let foreign = Handshake::new(format!("ws://127.0.0.1:{port}/ws")).header("Origin", origin);
    until("the page is refused", async || {
        Socket::connect(&foreign).await.is_err_and(|error| error.to_string().contains("403"))
    })
    .await;
    until("it is told", async || {
        let said = std::fs::read_to_string(&log).unwrap();
        said.lines().any(|line| line.contains(origin) && line.contains("--origin"))
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn every_verb_explains_itself_with_an_example() {
    for verb in [&["dev"][..], &["dev", "restart"]] {
        let output = run(&[verb, &["--help"]].concat());
        let help = text(&output.stdout);
        assert!(output.status.success() && help.contains("Example"), "{verb:?}\n{help}");
        assert!(help.contains(&format!("sluice {}", verb.join(" "))), "{verb:?}\n{help}");
    }
}
