//! Real processes and real signals: this test binary starts itself as a small service and stops it.
//!
//! The service says on stdout how far it is, so nothing here waits by the clock.

use std::future::pending;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice_lifecycle::{Lifecycle, Plan, Signals, Stage, arm_watchdog};
use tokio::runtime::{Builder, Runtime};

/// Names the scenario a child is to play.
const SCENARIO: &str = "LIFECYCLE_SCENARIO";

/// The budget of a child, and the margin of its watchdog.
const TOTAL: Duration = Duration::from_millis(500);
const MARGIN: Duration = Duration::from_millis(100);

/// What a busy machine may add to any measured time.
const SLACK: Duration = Duration::from_millis(1500);

struct Service {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    signalled: Instant,
}

struct Ended {
    code: Option<i32>,
    signal: Option<i32>,
    took: Duration,
    stderr: String,
}

impl Service {
    /// Starts this binary again to play `scenario`, and waits until it says that it is up.
    fn start(scenario: &str) -> Service {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::child", "--nocapture"])
            .env(SCENARIO, scenario)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut service = Service { child, stdin, stdout, signalled: Instant::now() };
        service.says("up");
        service
    }

    fn says(&mut self, expected: &str) {
        let mut line = String::new();
        while line.trim_end() != expected {
            line.clear();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "ended without saying {expected}");
        }
    }

    fn signal(&mut self, signal: Signal) {
        self.signalled = Instant::now();
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// What the child reads as its cue.
    fn cue(&mut self) {
        self.stdin.take();
    }

    /// Waits for the end of the child.
    fn end(mut self) -> Ended {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        let took = self.signalled.elapsed();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        Ended { code: status.code(), signal: status.signal(), took, stderr }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Ended {
    #[track_caller]
    fn exits(&self, code: i32) {
        assert_eq!((self.code, self.signal), (Some(code), None), "{}", self.stderr);
    }
}

#[test]
fn each_signal_ends_an_idle_service_at_once_with_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
        let mut service = Service::start("idle");
        service.signal(signal);
        let ended = service.end();
        ended.exits(0);
        assert!(ended.stderr.contains(signal.as_str()), "{}", ended.stderr);
        assert!(ended.took < TOTAL, "{signal} took {:?}", ended.took);
    }
}

#[test]
fn a_second_signal_is_logged_and_ignored() {
    for second in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut service = Service::start("waits for a cue");
        service.signal(Signal::SIGTERM);
        service.says("draining");
        service.signal(second);
        service.says("ignored");
        service.cue();
        let ended = service.end();
        ended.exits(0);
        assert!(ended.stderr.contains(r#"stage="drain" outcome="done""#), "{}", ended.stderr);
    }
}

#[test]
fn a_signal_during_the_start_stops_it() {
    let mut service = Service::start("starts for ever");
    service.signal(Signal::SIGTERM);
    service.end().exits(0);
}

#[test]
fn a_signal_before_there_is_a_lifecycle_is_kept() {
    let mut service = Service::start("waits before it is driven");
    service.signal(Signal::SIGINT);
    service.cue();
    service.end().exits(0);
}

#[test]
fn a_late_stop_inside_its_total_is_0_and_names_who() {
    let mut service = Service::start("late");
    service.signal(Signal::SIGTERM);
    let ended = service.end();
    ended.exits(0);
    assert!(ended.took >= TOTAL / 2 && ended.took < TOTAL + SLACK, "{:?}", ended.took);
    assert!(ended.stderr.contains("late={session=1}"), "{}", ended.stderr);
}

#[test]
fn a_task_that_dies_is_1() {
    let ended = Service::start("dies").end();
    ended.exits(1);
    assert!(ended.stderr.contains("no luck"), "{}", ended.stderr);
}

#[test]
fn a_wedged_runtime_is_ended_by_the_watchdog_with_1() {
    for scenario in ["wedged runtime", "wedged behind the stop", "wedged log"] {
        let mut service = Service::start(scenario);
        service.signal(Signal::SIGTERM);
        let ended = service.end();
        ended.exits(1);
        assert!(ended.took >= TOTAL, "{scenario} took {:?}", ended.took);
        assert!(ended.took < TOTAL + MARGIN + SLACK, "{scenario} took {:?}", ended.took);
        let said = ended.stderr.contains("the watchdog ends the process");
        assert_eq!(said, scenario != "wedged log", "{scenario}: {}", ended.stderr);
    }
}

#[test]
fn without_a_stop_the_watchdog_sleeps() {
    let mut service = Service::start("waits for a cue by itself");
    thread::park_timeout(TOTAL + MARGIN + MARGIN); // the one wait by the clock: nothing is to happen meanwhile
    service.cue();
    service.end().exits(0);
}

/// The child: not a test of its own, but how the tests above get a process with a `main` like that of a service.
#[test]
fn child() {
    if let Ok(scenario) = std::env::var(SCENARIO) {
        play(&scenario);
    }
}

fn say(word: &str) {
    // Not println, which the test harness would hold back.
    let mut stdout = io::stdout().lock();
    stdout.write_all(format!("\n{word}\n").as_bytes()).unwrap();
    stdout.flush().unwrap();
}

fn wait_for_cue() {
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A `main` in small.
#[expect(clippy::disallowed_methods, reason = "stands for the last line of a main")]
fn play(scenario: &str) -> ! {
    let signals = Signals::install().unwrap();
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    if scenario == "waits before it is driven" {
        say("up");
        wait_for_cue();
    }
    let plan = Plan::new(TOTAL).stage(Stage::Drain, TOTAL / 2).stage(Stage::Gone, TOTAL / 2);
    let plan = if scenario == "waits for a cue" {
        Plan::new(60 * TOTAL).stage(Stage::Drain, 60 * TOTAL)
    } else {
        plan
    };
    let (lifecycle, engine) = Lifecycle::new(plan);
    arm_watchdog(&lifecycle, MARGIN, || ()).unwrap();
    signals.drive(&lifecycle);
    let runtime = runtime();
    let report = runtime.block_on(async {
        act(scenario, &lifecycle, &log).await;
        engine.run().await
    });
    if scenario == "wedged behind the stop" {
        runtime.spawn_blocking(|| {
            loop {
                thread::park();
            }
        });
        drop(runtime);
    }
    std::process::exit(report.exit_code())
}

async fn act(scenario: &str, lifecycle: &Lifecycle, log: &Log) {
    let scope = lifecycle.scope(Stage::Drain);
    let token = scope.token();
    scope.spawn("obedient", async move { token.cancelled().await });
    match scenario {
        "waits for a cue" => {
            lifecycle.hook(Stage::Drain, "cue", || async {
                say("draining");
                tokio::task::spawn_blocking(wait_for_cue).await?;
                Ok(())
            });
        }
        "waits for a cue by itself" => {
            let asking = lifecycle.clone();
            scope.spawn_transient("cue", async move {
                tokio::task::spawn_blocking(wait_for_cue).await?;
                asking.stop(sluice_lifecycle::StopReason::Admin);
                Ok::<(), tokio::task::JoinError>(())
            });
        }
        "late" => scope.spawn("session", pending::<()>()),
        "dies" => scope.spawn("task", async { Err::<(), _>("no luck") }),
        "wedged log" => log.wedge(),
        _ => (),
    }
    say("up");
    match scenario {
        "starts for ever" => assert_eq!(lifecycle.until_stopping(pending::<()>()).await, None),
        "wedged runtime" => loop {
            thread::park();
        },
        _ => lifecycle.ready(),
    }
}

/// Standard error, that can be wedged as a full pipe is; says on stdout when a signal was ignored.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<()>>);

impl Log {
    /// From here on every line hangs.
    fn wedge(&self) {
        let log = self.clone();
        let (held, is_held) = std::sync::mpsc::sync_channel(1);
        thread::spawn(move || {
            let _held = log.0.lock();
            held.send(()).unwrap();
            loop {
                thread::park();
            }
        });
        is_held.recv().unwrap();
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _one_at_a_time = self.0.lock().unwrap();
        io::stderr().write_all(bytes)?;
        if String::from_utf8_lossy(bytes).contains("ignored") {
            say("ignored");
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
