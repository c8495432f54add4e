//! Nobody who reads, or does not, can hold up a stop of `sluice dev`: pipes that are gone, left or full, a terminal
//! that was stopped with Ctrl-S or closed.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sluice_client::raw::Socket;
use sluice_testing::Reader;

use crate::rig::{connect, last_words, sluice, until};

/// The stop takes less than a second; this much a busy machine may add.
const AT_MOST: Duration = Duration::from_secs(4);
/// What stops the output of a terminal.
const CTRL_S: &[u8] = b"\x13";

/// Killed when dropped.
struct Running(Child);

impl Running {
    fn start(dir: &Path, command: impl FnOnce(&mut Command)) -> Self {
        let mut dev = sluice();
        dev.args(["dev", "--dir"]).arg(dir);
        command(&mut dev);
        Self(dev.spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }

    /// Its exit code, when it comes in time.
    async fn ends(&mut self, what: &str) -> Option<i32> {
        let begun = Instant::now();
        until(what, async || self.0.try_wait().unwrap().is_some()).await;
        assert!(begun.elapsed() < AT_MOST, "{what}: {:?}", begun.elapsed());
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok(); // it may have ended
        self.0.wait().ok();
    }
}

/// The client URL of a `sluice dev`, from the file by which others find it: nobody reads what it prints.
async fn url(dir: &Path) -> String {
    let file = dir.join("sluice-dev.json");
    let mut port = None;
    until("it says where it is, and listens there", async || {
        let known = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        port = known.and_then(|known| known["ports"]["gateway-1"].as_u64());
        let Some(port) = port else { return false };
        tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.is_ok()
    })
    .await;
    format!("ws://127.0.0.1:{}/ws", port.unwrap())
}

async fn is_told(client: Socket, what: &str) {
    let (frames, code) = last_words(client).await;
    assert_eq!(code, 1012, "{what}");
    for told in ["drain", "bye"] {
        assert!(frames.iter().any(|frame| frame.get(told).is_some()), "{what}: {told}: {frames:?}");
    }
}

#[tokio::test]
async fn pipes_that_nobody_reads_hold_nothing_up() {
    for reader in Reader::ALL {
        for json in [false, true] {
            let what = format!("{reader:?}, json {json}");
            let dir = tempfile::tempdir().unwrap();
            let ((mut out, stdout), (_err, stderr)) = (reader.pipe(), reader.pipe());
            let mut dev = Running::start(dir.path(), |command| {
                command.args(json.then_some("--json")).stdout(stdout).stderr(stderr);
            });
            let url = url(dir.path()).await;
            out.process_is_up();
            let (client, _) = connect(&url, None).await;
            dev.signal(Signal::SIGTERM);
            is_told(client, &what).await;
            assert_eq!(dev.ends(&what).await, Some(0), "{what}");
        }
    }
}

#[tokio::test]
async fn a_stopped_terminal_does_not_hold_up_a_stop() {
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let dir = tempfile::tempdir().unwrap();
        let OpenptyResult { master, slave } = openpty(None, None).unwrap();
        let mut terminal = File::from(master);
        let mut dev = Running::start(dir.path(), |command| {
            command.stdout(Stdio::from(slave.try_clone().unwrap())).stderr(Stdio::from(slave));
        });
        let mut said = [0; 64];
        assert!(terminal.read(&mut said).unwrap() > 0);
        let (client, _) = connect(&url(dir.path()).await, None).await;
        terminal.write_all(CTRL_S).unwrap();
        dev.signal(signal);
        is_told(client, "a stopped terminal").await;
        assert_eq!(dev.ends("it ends").await, Some(0), "{signal}");
    }
}

#[tokio::test]
async fn who_was_started_with_nohup_lives_on_when_the_terminal_closes() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_sluice"), "dev", "--dir"]);
    let mut dev = Running(command.arg(dir.path()).stdout(Stdio::null()).spawn().unwrap());
    let url = url(dir.path()).await;
    let (client, _) = connect(&url, None).await;
    dev.signal(Signal::SIGHUP);
    // Whoever connects now was not refused, so no stop has begun.
    let (later, _) = connect(&url, None).await;
    dev.signal(Signal::SIGTERM);
    is_told(client, "the first").await;
    is_told(later, "who came after SIGHUP").await;
    assert_eq!(dev.ends("it ends").await, Some(0));
}

#[test]
fn a_level_that_is_none_is_an_error() {
    let output = sluice().args(["dev", "--memory"]).env("RUST_LOG", "debgu").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("RUST_LOG is \"debgu\"") && said.contains("did you mean `debug`?"), "{said}");
}
