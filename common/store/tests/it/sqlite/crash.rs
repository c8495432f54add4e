//! A process that is killed in the middle: this program starts itself again as the one that publishes.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use futures::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use sluice_store::sqlite::{SqliteConfig, SqliteStore};
use sluice_store::{Outcome, Store};

use super::rig::table_of;
use crate::cases::contract::{LATER, message};
use crate::rig::Table;

/// For the child: the file to publish to, and what its keys begin with.
const PATH: &str = "SLUICE_STORE_CHILD_PATH";
const RUN: &str = "SLUICE_STORE_CHILD_RUN";
/// Longer than any test waits.
const LIFE: Duration = Duration::from_secs(60);

/// The child: four lanes publish until they are killed, and say what they were answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "only as the child of the tests below"]
async fn child() {
    let (Ok(path), Ok(run)) = (std::env::var(PATH), std::env::var(RUN)) else { return };
    let store = SqliteStore::open(SqliteConfig::at(path)).await.unwrap();
    let end = Instant::now() + LIFE;
    let lanes = (0..4_u8).map(|lane| {
        let (store, run) = (&store, &run);
        async move {
            let mut n = 0;
            while Instant::now() < end {
                let size = 1 + n % 17;
                let name = |i| (format!("r{}", i % 5), format!("{run}-{lane}-{n}-{i}"));
                let group: Vec<_> = (0..size)
                    .map(|i| (i, name(i)))
                    .map(|(i, (room, key))| message(&room, "s", &key, &format!("{{\"i\":{i}}}")))
                    .collect();
                let answer = store.publish(lane, LATER, group.clone()).await.unwrap();
                let mut words = String::new();
                for (item, row) in group.iter().zip(&answer.rows) {
                    let Outcome::Stored { seq, .. } = row.outcome else { panic!("{row:?}") };
                    words += &format!("answer {} {} {seq}\n", item.room, item.key);
                }
                if n % 3 == 0 {
                    store.noted(&[answer.note.unwrap()]).await.unwrap();
                }
                // One write, so that no line is half.
                std::io::stdout().lock().write_all(words.as_bytes()).unwrap();
                n += 1;
            }
        }
    });
    join_all(lanes).await;
}

struct Publisher {
    child: Child,
    words: Lines<BufReader<ChildStdout>>,
}

impl Publisher {
    fn start(path: &Path, run: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "sqlite::crash::child", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(PATH, path).env(RUN, run).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let words = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, words }
    }

    /// Hears answers until there are so many; all that are left when the child is dead.
    fn hear(&mut self, heard: &mut HashMap<(String, String), u64>, at_least: usize) {
        let before = heard.len();
        while heard.len() < before + at_least {
            let Some(Ok(line)) = self.words.next() else { return };
            let mut words = line.split(' ').skip_while(|word| !word.ends_with("answer")).skip(1);
            if let (Some(room), Some(key), Some(seq)) = (words.next(), words.next(), words.next()) {
                heard.insert((room.to_owned(), key.to_owned()), seq.parse().unwrap());
            }
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Every answer is in the table, where it said.
fn judge(table: &Table, heard: &HashMap<(String, String), u64>) {
    let stored: HashMap<_, _> = table.rows.iter().map(|r| ((r.room.clone(), r.key.clone()), r.seq)).collect();
    for (name, seq) in heard {
        assert_eq!(stored.get(name), Some(seq), "{name:?} was answered");
    }
}

/// The faults but for outbox rows: some were forgotten on purpose.
fn faults(mut table: Table) -> Vec<String> {
    table.owed = table.rows.iter().map(|r| (r.room.clone(), r.seq, r.seq)).collect();
    table.faults()
}

#[tokio::test]
async fn a_killed_process_keeps_every_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let mut heard = HashMap::new();
    for run in 0..6 {
        let mut publisher = Publisher::start(&path, &run.to_string());
        publisher.hear(&mut heard, 100 + 150 * run);
        kill(publisher.pid(), Signal::SIGKILL).unwrap();
        publisher.hear(&mut heard, usize::MAX / 2);
        // A reader from outside finds it whole before anybody repairs it.
        let table = table_of(&path).await;
        judge(&table, &heard);
        assert_eq!(faults(table), [""; 0]);
    }
    let store = SqliteStore::open(SqliteConfig::at(&path)).await.unwrap();
    for ((room, key), seq) in heard.iter().take(50) {
        let size = key.rsplit('-').next().unwrap();
        let again = vec![message(room, "s", key, &format!("{{\"i\":{size}}}"))];
        let again = store.publish(0, LATER, again).await.unwrap();
        assert_eq!(again.rows[0].outcome, Outcome::Duplicate { seq: *seq });
    }
    println!("{} answers, none lost", heard.len());
}

#[tokio::test]
async fn a_copy_taken_in_the_middle_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let mut heard = HashMap::new();
    let mut publisher = Publisher::start(&path, "copied");
    for copy in 0..5 {
        publisher.hear(&mut heard, 300);
        // One instant of all files, as a snapshot of the file system is.
        kill(publisher.pid(), Signal::SIGSTOP).unwrap();
        let stopped = waitpid(publisher.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
        let place = folder.path().join(format!("copy-{copy}.db"));
        std::fs::copy(&path, &place).unwrap();
        let log = |path: &Path| path.with_extension("db-wal");
        std::fs::copy(log(&path), log(&place)).unwrap();
        kill(publisher.pid(), Signal::SIGCONT).unwrap();

        let store = SqliteStore::open(SqliteConfig::at(&place)).await.unwrap();
        let table = table_of(&place).await;
        judge(&table, &heard);
        assert_eq!(faults(table), [""; 0]);
        store.close().await;
    }
}

#[tokio::test]
async fn a_second_process_is_refused_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let mut heard = HashMap::new();
    let mut publisher = Publisher::start(&path, "first");
    publisher.hear(&mut heard, 50);
    let error = SqliteStore::open(SqliteConfig::at(&path)).await.err().unwrap().to_string();
    assert!(error.contains(&format!("in use by process {}", publisher.pid())), "{error}");
    publisher.hear(&mut heard, 50);
    judge(&table_of(&path).await, &heard);
    kill(publisher.pid(), Signal::SIGKILL).unwrap();
    publisher.hear(&mut heard, usize::MAX / 2);
    assert!(SqliteStore::open(SqliteConfig::at(&path)).await.is_ok(), "its death gives the file free");
}
