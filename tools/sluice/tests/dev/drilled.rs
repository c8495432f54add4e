//! `sluice serve` under the drill, as docs/drill.md has the commands: stopped, killed, rolled, and with a full disk. The
//! judge of the drill says whether anything was lost, doubled or reordered.

use std::path::Path;

use crate::full::Small;
use crate::rig::{SECRET, free_port, sluice, text};

/// As somebody at a shell writes it, who starts it again at the same addresses.
fn spawn(data: &Path, page: u16) -> String {
    let (sluice, data) = (env!("CARGO_BIN_EXE_sluice"), data.display());
    format!(
        "{sluice} serve --set dir={data} --set listen=127.0.0.1:0,127.0.0.1:0 --set api.listen= \
         --set admin.listen=127.0.0.1:{page}"
    )
}

/// Runs a small drill of what keeps its data in this folder.
fn drill(dir: &Path, data: &Path, arguments: &[&str]) {
    let mut command = sluice();
    command.arg("drill").args(arguments).args(["--clients", "20", "--rate", "60", "--watched", "0"]);
    command.args(["--spawn", &spawn(data, free_port())]).env("SLUICE_TOKEN_SECRET", SECRET);
    let output = command.arg("--dir").arg(dir.join("records")).output().unwrap();
    // With the anomalies, and the log lines around each.
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    println!("{said}");
}

#[test]
fn stops_and_kills_of_everything_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    drill(dir.path(), &data, &["crash", "--only", "dev", "--rounds", "4"]);
}

#[test]
fn rolls_of_a_gateway_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let roll = format!("{} serve restart {{}} --dir {}", env!("CARGO_BIN_EXE_sluice"), data.display());
    let arguments = ["roll", "--only", "roll", "--rounds", "3", "--roll-command", &roll];
    drill(dir.path(), &data, &arguments);
}

#[test]
fn a_full_disk_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Small::mount(dir.path().join("small"), "64m") else { return };
    let data = disk.path().join("data");
    drill(dir.path(), &data, &["stores", "--only", "full disk", "--rounds", "2"]);
}
