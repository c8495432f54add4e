//! A private PostgreSQL: own data directory, own port, stopped by its pid. Never touches another server.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;

const BIN: &str = "/usr/lib/postgresql/15/bin";
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(10);

pub struct PgServer {
    dir: TempDir,
    pub port: u16,
    settings: Vec<String>,
    child: Option<Child>,
}

impl PgServer {
    /// A running server with fsync on. All servers made so share a system identifier.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    pub async fn with(settings: &[&str]) -> Self {
        let mut server = Self::new(settings);
        let template = template();
        run(Command::new("cp").arg("-a").arg(&template).arg(server.data()));
        server.up().await;
        server
    }

    /// A running server with a system identifier of its own.
    pub async fn start_fresh() -> Self {
        let mut server = Self::new(&[]);
        initdb(&server.data());
        server.up().await;
        server
    }

    /// A running standby of `primary`.
    pub async fn standby_of(primary: &Self) -> Self {
        let mut server = Self::new(&[]);
        let mut command = tool("pg_basebackup");
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-c", "fast", "-X", "stream", "-R", "--no-sync"]);
        run(command.arg("-p").arg(primary.port.to_string()).arg("-D").arg(server.data()));
        server.up().await;
        server
    }

    fn new(settings: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("sluice-store-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        own(dir.path());
        let settings = settings.iter().map(|&s| s.to_owned()).collect();
        Self { dir, port: 0, settings, child: None }
    }

    /// A folder that the server can read.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Starts the process; keeps the port of an earlier run.
    pub async fn up(&mut self) {
        if self.port == 0 {
            self.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        }
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = tool("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.dir.path());
        command.arg("-p").arg(self.port.to_string());
        for setting in
            ["listen_addresses=127.0.0.1", "fsync=on", "shared_buffers=32MB", "deadlock_timeout=100ms"]
                .into_iter()
                .chain(self.settings.iter().map(String::as_str))
        {
            command.arg("-c").arg(setting);
        }
        self.child = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        let deadline = Instant::now() + START;
        while let Err(error) = PgConnection::connect(&self.url()).await {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{ended:?} {error} {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// As a power cut of the process: no checkpoint, no goodbye. Then up again.
    pub async fn crash_and_restart(&mut self) {
        self.end(Signal::SIGQUIT);
        self.up().await;
    }

    /// A fast, clean stop.
    pub fn down(&mut self) {
        self.end(Signal::SIGINT);
    }

    /// Makes a standby a primary.
    pub fn promote(&self) {
        run(tool("pg_ctl").args(["promote", "-w", "-s", "-D"]).arg(self.data()));
    }

    /// Stops this server and has `other` (also stopped) answer on its port.
    pub async fn hand_port_to(mut self, other: &mut Self) {
        self.down();
        other.down();
        other.port = self.port;
        other.up().await;
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A connection of the test's own, past the store.
    pub async fn sql(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }

    /// Runs one statement on a connection of its own.
    pub async fn run(&self, sql: impl Into<String>) -> Vec<PgRow> {
        let mut conn = self.sql().await;
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.into())).fetch_all(&mut conn).await.unwrap();
        conn.close().await.unwrap();
        rows
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else { return };
        let pid = Pid::from_raw(child.id().cast_signed());
        kill(pid, signal).unwrap();
        let deadline = Instant::now() + STOP;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                child.kill().unwrap();
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for PgServer {
    fn drop(&mut self) {
        self.end(Signal::SIGQUIT);
    }
}

/// A program of PostgreSQL.
pub fn tool(name: &str) -> Command {
    program(Path::new(BIN).join(name))
}

/// A program as the user postgres where we are root: neither PostgreSQL nor what belongs to it runs as root.
pub fn program(path: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(path);
    if let Some(user) = server_user() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command.current_dir("/");
    command
}

pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn server_user() -> Option<User> {
    Uid::effective().is_root().then(|| User::from_name("postgres").unwrap().expect("user postgres"))
}

pub fn own(path: &Path) {
    if let Some(user) = server_user() {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
}

fn initdb(data: &Path) {
    run(tool("initdb")
        .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "-N", "-D"])
        .arg(data));
}

/// A data directory made once for all tests of this build and copied for each.
fn template() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres-15");
    if place.exists() {
        return place;
    }
    let made = tempfile::Builder::new().prefix("sluice-initdb-").tempdir().unwrap();
    own(made.path());
    initdb(&made.path().join("data"));
    let near = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    run(Command::new("cp").arg("-a").arg(made.path().join("data")).arg(near.path().join("data")));
    // Another test may have been first; one of them is enough.
    drop(fs::rename(near.path().join("data"), &place));
    place
}
