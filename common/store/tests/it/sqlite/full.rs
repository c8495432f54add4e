//! A disk that is full: this program starts itself again with a limit on the size of its files.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use sluice_store::sqlite::{SqliteConfig, SqliteStore};
use sluice_store::{Class, NewMessage, Outcome, Store};

use super::rig::table_of;
use crate::cases::contract::{LATER, after, message};

/// For the child: the file to publish to.
const PATH: &str = "SLUICE_STORE_FULL_PATH";

fn group(n: usize) -> Vec<NewMessage> {
    (0..8).map(|i| message("a", "s", &format!("{n}-{i}"), &"x".repeat(4_000))).collect()
}

/// Files may grow by so much from here on; `None`: as they like.
fn space(path: &Path, bytes: Option<u64>) {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    let size = |path: PathBuf| std::fs::metadata(path).map_or(0, |file| file.len());
    let largest = size(path.into()).max(size(path.with_extension("db-wal")));
    setrlimit(Resource::RLIMIT_FSIZE, bytes.map_or(hard, |bytes| largest + bytes), hard).unwrap();
}

#[test]
#[ignore = "only as the child of the test below"]
fn child() {
    let Ok(path) = std::env::var(PATH).map(PathBuf::from) else { return };
    // A blocked signal is an error of the write instead; all threads of the store inherit it.
    SigSet::from(Signal::SIGXFSZ).thread_block().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(SqliteConfig::at(&path)).await.unwrap();
        // Keeps the log where it is: the last connection that closes would write it back and make space.
        store.epoch().await.unwrap();
        let mut n = 0;
        for _ in 0..3 {
            space(&path, Some(300_000));
            let error = loop {
                match store.publish(0, LATER, group(n)).await {
                    Ok(_) => n += 1,
                    Err(error) => break error,
                }
            };
            assert!([Class::Retry, Class::Unknown].contains(&error.class()), "{error}");
            // Still full: the same, and reading goes on.
            assert!(store.publish(0, LATER, group(n)).await.is_err());
            let head = store.read(&[after("a", 0, 1)], 1 << 20).await.unwrap().pages[0].head;
            assert_eq!(head, 8 * n as u64, "what was not answered is not shown");
            space(&path, None);
            let rows = store.publish(0, LATER, group(n)).await.unwrap().rows;
            assert!(rows.iter().all(|row| matches!(row.outcome, Outcome::Stored { .. })), "{rows:?}");
            n += 1;
        }
        assert!(n > 6, "{n} groups");
        store.close().await;
    });
}

#[tokio::test]
async fn a_full_disk_is_told_and_does_not_last() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "sqlite::full::child", "--ignored"]).env(PATH, &path);
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let table = table_of(&path).await;
    assert_eq!(table.faults(), [""; 0]);
    assert!(table.rows.len() > 48, "the child did its work");
}
