//! A private server on free ports and a directory of its own. It is stopped by its pid, also when a test panics.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::eventually;

/// Longest a server takes to start on a busy machine.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// The servers that can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// nats-server with JetStream.
    Nats,
    /// redis-server that saves nothing.
    Redis,
    /// A cluster of one etcd.
    Etcd,
    /// A sentinel of Redis; [`TestServer::sentinel`] makes it.
    Sentinel,
}

/// The name of the primary that sentinels look after.
pub const PRIMARY: &str = "main";
/// A sentinel's file, which it writes to.
const SENTINEL_CONF: &str = "sentinel.conf";

/// A server, running or not.
#[derive(Debug)]
pub struct TestServer {
    kind: ServerKind,
    port: u16,
    pub(crate) peer_port: u16,
    pub(crate) dir: TempDir,
    /// Arguments beside the usual ones.
    pub(crate) args: Vec<String>,
    child: Option<Child>,
}

/// A port that was free a moment ago.
#[must_use]
pub fn free_port() -> u16 {
    free_ports().0
}

/// Two that are not the same.
fn free_ports() -> (u16, u16) {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (one, two) = (bind(), bind());
    let port = |listener: TcpListener| listener.local_addr().unwrap().port();
    (port(one), port(two))
}

impl TestServer {
    /// Ports and a directory, nothing running.
    #[must_use]
    pub fn absent(kind: ServerKind) -> Self {
        let (port, peer_port) = free_ports();
        Self { kind, port, peer_port, dir: tempfile::tempdir().unwrap(), args: Vec::new(), child: None }
    }

    /// A sentinel that calls the Redis on this port [`PRIMARY`]; two of them decide. Not running.
    #[must_use]
    pub fn sentinel(primary: u16) -> Self {
        let server = Self::absent(ServerKind::Sentinel);
        let (dir, port) = (server.dir.path().display(), server.port);
        let text = format!(
            "bind 127.0.0.1\nport {port}\ndir {dir}\nsentinel monitor {PRIMARY} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {PRIMARY} 1000\nsentinel failover-timeout {PRIMARY} 3000\n"
        );
        std::fs::write(server.dir.path().join(SENTINEL_CONF), text).unwrap();
        server
    }

    /// A server that answers.
    pub async fn start(kind: ServerKind) -> Self {
        let mut server = Self::absent(kind);
        server.run().await;
        server
    }

    /// The same with these arguments beside the usual ones, for one whose arguments name its port.
    #[must_use]
    pub fn with_args(mut self, args: impl FnOnce(u16) -> Vec<String>) -> Self {
        self.args = args(self.port);
        self
    }

    /// A server that answers, with these arguments beside the usual ones.
    pub async fn start_with(kind: ServerKind, args: Vec<String>) -> Self {
        let mut server = Self::absent(kind);
        server.args = args;
        server.run().await;
        server
    }

    /// Where it listens, or will.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How clients name it.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = match self.kind {
            ServerKind::Nats => "nats",
            ServerKind::Redis | ServerKind::Sentinel => "redis",
            ServerKind::Etcd => "http",
        };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Starts it with what its directory holds and waits until it answers.
    pub async fn run(&mut self) {
        let mut command = self.command();
        command.args(&self.args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
        eventually(&format!("{:?} answers", self.kind), STARTS_WITHIN, async || self.answers().await).await;
    }

    /// Ends it at once, with all it held in memory.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Forgets everything on disk. Only while it is not running.
    pub fn wipe(&mut self) {
        assert!(self.child.is_none(), "it runs");
        self.dir = tempfile::tempdir().unwrap();
    }

    /// Sends a signal; returns from `SIGSTOP` when it stands still.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().expect("it runs").id();
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
        while signal == Signal::SIGSTOP && !stands_still(pid) {
            std::thread::yield_now();
        }
    }

    fn command(&self) -> Command {
        let port = self.port.to_string();
        match self.kind {
            ServerKind::Nats => {
                let mut command = Command::new(nats_binary());
                command.args(["-a", "127.0.0.1", "-p", &port, "-js", "-sd"]).arg(self.dir.path());
                command
            }
            ServerKind::Redis => {
                let mut command = Command::new("redis-server");
                command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--dir"]);
                command.arg(self.dir.path());
                command
            }
            ServerKind::Sentinel => {
                let mut command = Command::new("redis-server");
                command.arg(self.dir.path().join(SENTINEL_CONF)).arg("--sentinel");
                command
            }
            ServerKind::Etcd => {
                let (url, peer) = (self.url(), format!("http://127.0.0.1:{}", self.peer_port));
                let mut command = Command::new("etcd");
                command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
                command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
                command.args(["--initial-cluster", &format!("default={peer}"), "--logger", "zap"]);
                command.arg("--data-dir").arg(self.dir.path());
                command
            }
        }
    }

    /// Whether it listens, and for etcd whether it has a leader.
    async fn answers(&self) -> bool {
        let Ok(mut tcp) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await else { return false };
        // One that speaks TLS is asked by whoever has the certificates.
        if self.kind != ServerKind::Etcd || self.args.iter().any(|arg| arg.starts_with("https://")) {
            return true;
        }
        let ask = async {
            tcp.write_all(b"GET /health HTTP/1.0\r\n\r\n").await?;
            let mut page = String::new();
            tcp.read_to_string(&mut page).await?;
            std::io::Result::Ok(page)
        };
        let page = timeout(Duration::from_secs(1), ask).await;
        page.is_ok_and(|page| page.is_ok_and(|page| page.contains(r#""health":"true""#)))
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
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
