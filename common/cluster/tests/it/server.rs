//! A private etcd on free ports and a directory of its own. It is stopped by its pid.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

pub struct Server {
    port: u16,
    peer_port: u16,
    dir: TempDir,
    child: Option<Child>,
}

impl Server {
    /// Ports and a directory, nothing running.
    pub fn absent() -> Self {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (one, two) = (free(), free());
        let port = |listener: TcpListener| listener.local_addr().unwrap().port();
        Self { port: port(one), peer_port: port(two), dir: tempfile::tempdir().unwrap(), child: None }
    }

    pub async fn start() -> Self {
        let mut server = Self::absent();
        server.run().await;
        server
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it with what its directory holds and waits until it answers.
    pub async fn run(&mut self) {
        let (url, peer) = (self.url(), format!("http://127.0.0.1:{}", self.peer_port));
        let child = Command::new("etcd")
            .args([
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
                "--listen-peer-urls",
                &peer,
            ])
            .args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")])
            .args(["--logger", "zap", "--data-dir"])
            .arg(self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        eventually("etcd answers", Duration::from_secs(30), async || {
            let Ok(mut client) = etcd_client::Client::connect([self.url()], None).await else { return false };
            matches!(timeout(Duration::from_secs(1), client.get("x", None)).await, Ok(Ok(_)))
        })
        .await;
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

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
