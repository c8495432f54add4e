//! How a process lives and, above all, how it stops: in named stages, each with a deadline, inside one budget.
//!
//! ```text
//! starting → ready → not-ready → notify → drain → flush → release → gone
//!            running └────── draining ───────┘   └─ cleaning ──┘   stopped
//! ```
//!
//! The plan is data ([`Plan`]). Whoever starts work says in which stage it dies ([`Lifecycle::scope`]); whoever
//! has something to do at a stage registers a [hook](Lifecycle::hook). When a stop is asked for, the [`Engine`]
//! goes through the stages. Each begins by running its hooks and cancelling the token of its scope, and is over
//! when hooks and tasks are done, or at its deadline: `min(its own time, what is left of the total)`. Then whoever
//! is late is named, aborted and left behind. Time not used is there for the stages behind; a stage for which
//! nothing is left is skipped.
//!
//! Depends on tokio, tokio-util and tracing only. Knows nothing of sockets, stores or configuration; no global,
//! and nobody but the [watchdog](arm_watchdog) ends the process.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use sluice_lifecycle::{Lifecycle, StageOutcome, Plan, Stage, StopReason, bounded};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let plan = Plan::new(Duration::from_secs(8))
//!     .stage(Stage::NotReady, Duration::from_secs(1))
//!     .stage(Stage::Drain, Duration::from_secs(4))
//!     .stage(Stage::Release, Duration::from_secs(1));
//! let (lifecycle, engine) = Lifecycle::new(plan);
//!
//! // A task that lives until the drain and then finishes what it has.
//! let scope = lifecycle.scope(Stage::Drain);
//! let stop = scope.token();
//! scope.spawn("consumer", async move { stop.cancelled().await });
//!
//! // One that will not let go: it is waited for, named and aborted.
//! scope.spawn_transient("connection", std::future::pending::<()>());
//!
//! // Last words to something that may not answer.
//! lifecycle.hook(Stage::Release, "lease", || async {
//!     bounded(Duration::from_millis(500), "revoke", std::future::ready(())).await?;
//!     Ok(())
//! });
//!
//! lifecycle.ready();
//! lifecycle.stop(StopReason::Signal("SIGTERM"));
//! let report = engine.run().await;
//!
//! let late = StageOutcome::Late(vec![("connection".to_owned(), 1)]);
//! assert_eq!(report.outcome(Stage::Drain), Some(&late));
//! assert_eq!(report.outcome(Stage::Release), Some(&StageOutcome::Done));
//! assert_eq!(report.elapsed, Duration::from_secs(4));
//! assert_eq!(report.exit_code(), 0);
//! # }
//! ```
//!
//! # A `main`
//!
//! ```no_run
//! # use std::time::Duration;
//! # use sluice_lifecycle::{BoxError, Lifecycle, Plan, Signals, Stage, WATCHDOG_MARGIN, arm_watchdog};
//! # fn plan() -> Plan { Plan::new(Duration::from_secs(8)).stage(Stage::Gone, Duration::from_secs(1)) }
//! # async fn build(_: &Lifecycle) -> Result<(), BoxError> { Ok(()) }
//! #[tokio::main]
//! async fn main() -> Result<(), BoxError> {
//!     let signals = Signals::install()?; // before anything else: PID 1 has no default action
//!     let (lifecycle, engine) = Lifecycle::new(plan());
//!     arm_watchdog(&lifecycle, WATCHDOG_MARGIN, || ())?;
//!     signals.drive(&lifecycle);
//!     if let Some(built) = lifecycle.until_stopping(build(&lifecycle)).await {
//!         built?;
//!         lifecycle.ready();
//!     }
//!     let report = engine.run().await; // also after a stop during start-up: what was started is stopped
//!     std::process::exit(report.exit_code()) // the end of a runtime would wait for blocking threads
//! }
//! ```
//!
//! # What starts a stop, and the exit code
//!
//! | Reason | Exit code |
//! |---|---|
//! | SIGTERM, SIGINT, SIGQUIT, SIGHUP ([`Signals`]), an operator, the program itself ([`Lifecycle::stop`]) | 0, also with stages late, failed or skipped: the report says so |
//! | a task of [`Scope::spawn`] ended before its stage: error, panic or plain return | 1 |
//! | the stop took longer than its total and a margin ([watchdog](arm_watchdog)) | 1, also when the runtime is wedged |
//!
//! The first reason counts; a second signal, or a task that dies during a stop, changes neither the stop nor its
//! exit code. Stopping twice, during start-up, or something that never started is harmless.
//!
//! # Which tool for which work
//!
//! | Work | Tool |
//! |---|---|
//! | a loop that has to live until its stage | [`Scope::spawn`] |
//! | one of many that come and go: a connection, a call | [`Scope::spawn_transient`] |
//! | a thread, a `spawn_local` task on another runtime | [`Scope::track`], a guard with [`Scope::token`] |
//! | something to do when a stage begins | [`Lifecycle::hook`] |
//! | a step of the start-up | [`Lifecycle::until_stopping`] |
//! | a wait for a peer that may never answer | [`bounded`] |
//!
//! # Watching it
//!
//! [`Lifecycle::progress`] is the one value behind readiness, status pages, metrics and tests; [`Lifecycle::blockers`]
//! says what the current stage waits for. The log has two INFO lines for each stage and one summary
//! ([`Lifecycle::note`] adds counts to both, [`Lifecycle::report_work`] what the process did in its life).
//!
//! # Limits
//!
//! Code that never yields cannot be aborted: such a task is named in [`Report::abandoned`] and left behind; if it
//! holds up the whole runtime, the watchdog ends the process. All time is tokio's, so tests run on a paused clock;
//! only the watchdog counts real time.

mod alarm;
mod causes;
mod engine;
mod lifecycle;
mod plan;
mod report;
mod scope;
mod signals;
mod stage;
mod stage_tasks;
mod state;
mod task;
mod wait;
mod watchdog;
mod work;

pub use causes::error_chain;
pub use engine::Engine;
pub use lifecycle::Lifecycle;
pub use plan::{Plan, PlanError, StagePlan, TOTAL_DEFAULT};
pub use report::{Progress, Report, StageOutcome, StageReport, StopReason};
pub use scope::{Scope, TaskGuard};
pub use signals::{Signals, hangup_is_ignored};
pub use stage::{ProcessState, Stage};
pub use task::{BoxError, TaskResult};
pub use wait::{Late, bounded};
pub use watchdog::{WATCHDOG_MARGIN, arm_watchdog};
pub use work::Work;
