//! What a normal build must not hold: seeded bugs, not even their names.

use std::process::Command;

use sluice_service::seeded::{Bug, VARIABLE};

#[test]
fn no_seeded_bug_is_left_in_the_service() {
    let mut search = Command::new("grep");
    search.args(["--text", "--only-matching", "--fixed-strings", "-e", VARIABLE]);
    search.args(Bug::ALL.iter().flat_map(|bug| ["-e", bug.name()]));
    let found = search.arg(env!("CARGO_BIN_EXE_sluice-task")).output().unwrap();
    assert_eq!(found.status.code(), Some(1), "found {:?}", String::from_utf8_lossy(&found.stdout));
}
