//! The embedded ground: `sluice dev`, one process on a SQLite file, with its queue, presence and registry in memory.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use sluice_launcher::{Port, Service};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use crate::kit::{Ground, SOON};
use crate::record::{ROWS, Stored};

/// A process in a folder of its own; killed when dropped.
pub struct Dev {
    dir: TempDir,
    /// The gateway's usual port may be anybody's while the process is away.
    arguments: Vec<String>,
    running: Mutex<Running>,
}

struct Running {
    child: Child,
    /// What it said first: where it listens.
    said: Value,
}

all_promises!(crate::dev::Dev);

/// The binary, without what the environment of the test might say.
fn sluice() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    for name in ["SLUICE_TOKEN_SECRET", "SLUICE_POSTGRES__URL"] {
        command.env_remove(name);
    }
    command.env("RUST_LOG", "warn").kill_on_drop(true);
    command
}

async fn finish(mut command: Command) {
    let output = timeout(SOON, command.output()).await.expect("it ends in time").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

impl Running {
    async fn begin(dir: &TempDir, arguments: &[String]) -> Self {
        let mut command = sluice();
        command.args(["dev", "--json", "--dir"]).arg(dir.path()).args(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        timeout(SOON, output.read_line(&mut line)).await.expect("it starts in time").unwrap();
        let said = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Self { child, said }
    }
}

impl Dev {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap()
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("sluice-dev.db")
    }

    /// Past all services, as a program of its own.
    async fn look(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.file());
        SqliteConnection::connect_with(&options).await.unwrap()
    }

    /// Signals it and waits until it has ended.
    async fn end(&self, signal: &str) -> ExitStatus {
        let pid = self.running().child.id().expect("it runs");
        finish({
            let mut kill = Command::new("kill");
            kill.args([signal, &pid.to_string()]);
            kill
        })
        .await;
        let begun = Instant::now();
        while begun.elapsed() < SOON {
            if let Some(status) = self.running().child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it did not end within {SOON:?} after {signal}")
    }

    async fn stops(&self) {
        let begun = Instant::now();
        let status = self.end("-TERM").await;
        assert_eq!(status.code(), Some(0), "{status}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    }

    /// In the same folder: at the same addresses, with the same messages.
    async fn starts_again(&self) {
        let again = Running::begin(&self.dir, &self.arguments).await;
        let mut running = self.running();
        assert_eq!(again.said["gateways"], running.said["gateways"]);
        *running = again;
    }
}

impl Ground for Dev {
    async fn start(gateways: usize, _logics: usize, _tasks: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = Port::claim().unwrap().number();
        let arguments = ["--gateways", &gateways.to_string(), "--port", &port.to_string()];
        let arguments = arguments.map(str::to_owned).to_vec();
        let running = Mutex::new(Running::begin(&dir, &arguments).await);
        Self { dir, arguments, running }
    }

    async fn stop(self) {
        self.stops().await;
    }

    fn entrances(&self) -> Vec<String> {
        let running = self.running();
        let gateways = running.said["gateways"].as_array().unwrap();
        gateways.iter().map(|gateway| gateway["ws"].as_str().unwrap().to_owned()).collect()
    }

    fn secret(&self) -> String {
        let state = std::fs::read(self.dir.path().join("sluice-dev.json")).unwrap();
        let state: Value = serde_json::from_slice(&state).unwrap();
        state["token_secret"].as_str().unwrap().to_owned()
    }

    fn origin(&self) -> String {
        self.running().said["page"].as_str().unwrap().to_owned()
    }

    fn memory_bytes(&self) -> u64 {
        let pid = self.running().child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        resident.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    async fn table(&self, room: &str) -> Vec<Stored> {
        let rows = sqlx::query_as(ROWS).bind(room).fetch_all(&mut self.look().await).await.unwrap();
        rows.into_iter().map(Stored::from_row).collect()
    }

    async fn sql(&self, text: &'static str) -> u64 {
        sqlx::query(text).execute(&mut self.look().await).await.unwrap().rows_affected()
    }

    /// Until the next one is ready.
    async fn roll(&self, service: Service, index: usize) -> Duration {
        let name = match service {
            Service::Gateway => format!("gateway-{}", index + 1),
            other => other.to_string(),
        };
        let begun = Instant::now();
        let mut restart = sluice();
        restart.args(["dev", "restart", &name, "--dir"]).arg(self.dir.path());
        finish(restart).await;
        begun.elapsed()
    }

    /// It cannot be killed alone.
    async fn lose_a_logic(&self) {
        self.roll(Service::Logic, 0).await;
    }

    /// There is one.
    async fn kill_each(&self) {
        assert_eq!(self.end("-KILL").await.code(), None);
        self.starts_again().await;
    }

    async fn stop_and_start_all(&self) {
        self.stops().await;
        self.starts_again().await;
    }

    /// While it is away: the file has one user.
    async fn put_back(&self, changes: &[&'static str]) {
        self.stops().await;
        for change in changes {
            self.sql(change).await;
        }
        let mut new_epoch = sluice();
        new_epoch.args(["store", "new-epoch", "--dir"]).arg(self.dir.path());
        finish(new_epoch).await;
        self.starts_again().await;
    }
}
