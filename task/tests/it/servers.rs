//! Private NATS, Redis and etcd on free ports and directories of their own. They are stopped by their pids.

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
    pub port: u16,
    _dir: TempDir,
    child: Option<Child>,
}

pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

impl Server {
    async fn start(name: &str, command: impl FnOnce(u16, &TempDir) -> Command) -> Self {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        let child =
            command(port, &dir).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("installed");
        let server = Self { port, _dir: dir, child: Some(child) };
        eventually(&format!("{name} listens"), Duration::from_secs(30), async || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok()
        })
        .await;
        server
    }

    pub async fn nats() -> Self {
        Self::start("nats-server", |port, dir| {
            let mut command = Command::new(nats_binary());
            command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(dir.path());
            command
        })
        .await
    }

    pub async fn redis() -> Self {
        Self::start("redis-server", |port, dir| {
            let mut command = Command::new("redis-server");
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
            command.arg(dir.path());
            command
        })
        .await
    }

    pub async fn etcd() -> Self {
        Self::start("etcd", |port, dir| {
            let (url, peer) =
                (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()));
            let mut command = Command::new("etcd");
            command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &format!("default={peer}"), "--data-dir"]).arg(dir.path());
            command
        })
        .await
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
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// The real executable: a wrapper script would be killed in its place.
fn nats_binary() -> PathBuf {
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

/// Waits until the condition holds, looking every few milliseconds, and fails when it does not in time. Returns
/// how long it took.
pub async fn eventually(what: &str, within: Duration, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    let wait = async {
        while !holds().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(within, wait).await.unwrap_or_else(|_| panic!("{what}: not within {within:?}"));
    begun.elapsed()
}
