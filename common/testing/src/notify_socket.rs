//! The end of a service manager: hears what a process tells it over `NOTIFY_SOCKET`.

use std::ffi::OsString;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::time::timeout;

/// Longest wait for a word, on a busy machine.
const WORD_WITHIN: Duration = Duration::from_secs(10);
/// What a process is told about its watchdog, microseconds: quick enough for a test.
const WATCHDOG_USEC: &str = "200000";

/// A bound socket in a folder of its own.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    dir: TempDir,
}

impl NotifySocket {
    /// Binds it. Only in a runtime.
    #[must_use]
    pub fn bind() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        Self { socket, dir }
    }

    /// What the process has to have in its environment.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, OsString); 2] {
        let path = self.dir.path().join("notify").into_os_string();
        [("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", WATCHDOG_USEC.into())]
    }

    /// The next message that has this in it.
    pub async fn until(&self, word: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let heard = timeout(WORD_WITHIN, self.socket.recv(&mut buffer)).await;
            let length = heard.unwrap_or_else(|_| panic!("nobody says {word}")).unwrap();
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.contains(word) {
                return message;
            }
        }
    }

    /// Hears that the process is ready, then that it lives, and after `stop` that it stops and may take `total` for it,
    /// until its last stage.
    pub async fn hears_a_life(&self, total: Duration, stop: impl FnOnce()) {
        assert!(self.until("READY=1").await.contains("STATUS=ready\n"));
        for _ in 0..3 {
            self.until("WATCHDOG=1").await;
        }
        stop();
        let stopping = self.until("STOPPING=1").await;
        let extend = stopping.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="));
        let extend = Duration::from_micros(extend.expect(&stopping).parse().unwrap());
        // Beyond the total there is a moment for the end itself; a busy machine tells late.
        assert!(extend > total / 2 && extend < total + Duration::from_secs(2), "{stopping}");
        assert!(stopping.contains("SIGTERM"), "why: {stopping}");
        let last = self.until("STATUS=gone").await;
        assert!(last.contains("STOPPING=1\n"), "{last}");
    }
}
