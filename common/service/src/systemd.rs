//! Tells a service manager how far this process is, as `sd_notify(3)` has it: `Type=notify` of systemd, and whoever
//! speaks the same. Without `NOTIFY_SOCKET` it does nothing.
//!
//! A word that is not taken at once is dropped: a manager that is busy must not hold up a stop.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sluice_lifecycle::{Lifecycle, Progress, Stage, WATCHDOG_MARGIN};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Where words for the manager go; set by it.
const SOCKET: &str = "NOTIFY_SOCKET";
/// How often the manager wants to hear that we live, microseconds, and which process it means.
const WATCHDOG: (&str, &str) = ("WATCHDOG_USEC", "WATCHDOG_PID");
/// Beyond what a stop may take, until our own watchdog has ended the process and its end is noticed.
const MARGIN: Duration = Duration::from_millis(750);

/// From here on the manager, if there is one, hears of each stage, and that the runtime of the caller is alive.
pub fn follow(lifecycle: &Lifecycle) {
    let Some(path) = std::env::var_os(SOCKET) else { return };
    let manager = match Manager::at(&path) {
        Ok(manager) => manager,
        Err(error) => {
            let path = path.display();
            return tracing::warn!(%error, %path, "The service manager cannot be told anything.");
        }
    };
    let scope = lifecycle.scope(Stage::Gone);
    scope.spawn("systemd", manager.follow(lifecycle.clone(), watchdog(), scope.token()));
}

/// How often to say that we live: twice in the time after which we are taken for dead.
fn watchdog() -> Option<Duration> {
    let read = |name: &str| std::env::var(name).ok();
    beat(read(WATCHDOG.0).as_deref(), read(WATCHDOG.1).as_deref())
}

fn beat(micros: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    // Meant for another process, whose environment we inherited.
    if pid.is_some_and(|pid| pid.parse() != Ok(std::process::id())) {
        return None;
    }
    let micros: u64 = micros?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros) / 2)
}

/// The manager's end.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &OsStr) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address(path)?)?;
        // Its queue may be full.
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    fn say(&self, words: &Words) {
        if let Err(error) = self.0.send(words.to_string().as_bytes()) {
            tracing::debug!(%error, "The service manager did not take a word.");
        }
    }

    async fn follow(self, lifecycle: Lifecycle, beat: Option<Duration>, last: CancellationToken) {
        let mut progress = lifecycle.progress();
        let mut said = Words::default();
        let mut beat_at = Instant::now();
        loop {
            let words = Words::of(&progress.borrow_and_update());
            if words != said {
                self.say(&words);
                said = words;
            }
            let beats = async {
                match beat {
                    Some(_) => sleep_until(beat_at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = last.cancelled() => break,
                changed = progress.changed() => if changed.is_err() { break },
                () = beats => {
                    beat_at = Instant::now() + beat.unwrap_or_default();
                    self.say(&Words { lives: true, ..Words::default() });
                }
            }
        }
        self.say(&Words::of(&progress.borrow_and_update()));
        // Whoever made the progress has ended: this task has to live until its stage.
        last.cancelled().await;
    }
}

/// A path, or with an `@` a name of the abstract namespace.
fn address(path: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::ffi::OsStrExt as _;
        if let Some(name) = path.as_bytes().strip_prefix(b"@") {
            return SocketAddr::from_abstract_name(name);
        }
    }
    SocketAddr::from_pathname(path)
}

/// One message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Words {
    ready: bool,
    stopping: bool,
    lives: bool,
    /// How long from now the manager should wait before it kills.
    extend: Option<Duration>,
    /// For people.
    status: String,
}

impl Words {
    fn of(now: &Progress) -> Self {
        let stage = now.stage;
        let Some(reason) = &now.reason else {
            return Self { ready: now.is_ready(), status: stage.to_string(), ..Self::default() };
        };
        let left = now.remaining().unwrap_or_default();
        let status = match now.deadline {
            // The stage that a stop came into is not one of it.
            None if stage != Stage::Gone => format!("stopping: {reason}"),
            None => stage.to_string(),
            Some(_) => format!("{stage}, at most {:.1} s to the end: {reason}", left.as_secs_f32()),
        };
        Self { stopping: true, status, extend: Some(left + WATCHDOG_MARGIN + MARGIN), ..Self::default() }
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [(self.ready, "READY=1"), (self.stopping, "STOPPING=1"), (self.lives, "WATCHDOG=1")];
        for (_, flag) in flags.iter().filter(|(set, _)| *set) {
            writeln!(f, "{flag}")?;
        }
        if let Some(extend) = self.extend {
            writeln!(f, "EXTEND_TIMEOUT_USEC={}", extend.as_micros())?;
        }
        if !self.status.is_empty() {
            // One line: the next would be read as another word.
            writeln!(f, "STATUS={}", self.status.replace('\n', " "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sluice_lifecycle::{Plan, StopReason};

    use super::*;

    #[test]
    fn a_watchdog_is_for_whom_it_names() {
        let me = std::process::id().to_string();
        assert_eq!(beat(Some("3000000"), Some(&me)), Some(Duration::from_millis(1_500)));
        assert_eq!(beat(Some("3000000"), None), Some(Duration::from_millis(1_500)));
        assert_eq!((beat(Some("3000000"), Some("1")), beat(None, None)), (None, None));
        assert_eq!((beat(Some("0"), None), beat(Some("soon"), None)), (None, None));
    }

    /// What a manager has heard so far.
    fn heard(socket: &UnixDatagram) -> Vec<String> {
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        let mut all = Vec::new();
        while let Ok(length) = socket.recv(&mut buffer) {
            all.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn each_stage_is_told_with_the_time_that_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let plan = Plan::new(Duration::from_secs(8))
            .stage(Stage::Drain, Duration::from_secs(4))
            .stage(Stage::Gone, Duration::from_secs(1));
        let (lifecycle, engine) = Lifecycle::new(plan);
        let (scope, beat) = (lifecycle.scope(Stage::Gone), Some(Duration::from_secs(10)));
        let manager = Manager::at(path.as_os_str()).unwrap();
        scope.spawn("systemd", manager.follow(lifecycle.clone(), beat, scope.token()));
        lifecycle.hook(Stage::Drain, "slow", || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(())
        });
        lifecycle.ready();
        tokio::time::sleep(Duration::from_secs(25)).await;
        let alive = "WATCHDOG=1\n";
        assert_eq!(heard(&socket), ["READY=1\nSTATUS=ready\n", alive, alive, alive]);
        lifecycle.stop(StopReason::Signal("SIGTERM"));
        assert!(engine.run().await.is_clean());
        let expected = [
            "STOPPING=1\nEXTEND_TIMEOUT_USEC=9000000\nSTATUS=drain, at most 8.0 s to the end: SIGTERM\n",
            "STOPPING=1\nEXTEND_TIMEOUT_USEC=8000000\nSTATUS=gone, at most 7.0 s to the end: SIGTERM\n",
        ];
        assert_eq!(heard(&socket), expected);
    }

    /// It would hang here.
    #[test]
    fn a_manager_that_does_not_read_holds_nothing_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::at(path.as_os_str()).unwrap();
        for _ in 0..10_000 {
            manager.say(&Words { lives: true, ..Words::default() });
        }
        assert!(!heard(&socket).is_empty());
        drop(socket);
        manager.say(&Words::default());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_without_a_file_is_understood() {
        use std::os::linux::net::SocketAddrExt as _;

        let name = format!("sluice-test-{}", std::process::id());
        let bound = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&bound).unwrap();
        let manager = Manager::at(OsStr::new(&format!("@{name}"))).unwrap();
        manager.say(&Words { ready: true, status: "two\nlines".to_owned(), ..Words::default() });
        assert_eq!(heard(&socket), ["READY=1\nSTATUS=two lines\n"]);
    }
}
