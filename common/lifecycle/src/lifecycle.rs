//! The one lifecycle value of a process: made in `main`, passed down to whoever can start work.
//!
//! It takes orders (start this, stop now) and answers questions; the stages themselves are run by the engine.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarm;
use crate::engine::Engine;
use crate::plan::Plan;
use crate::report::{Progress, StopReason};
use crate::scope::Scope;
use crate::stage::Stage;
use crate::stage_tasks::BoxedHook;
use crate::state::LifecycleState;
use crate::task::{BoxError, TaskResult};
use crate::wait::bounded;
use crate::work::Work;

/// The handle to a process' life. Cheap to clone; see the [crate] for the whole picture.
#[derive(Clone)]
pub struct Lifecycle {
    state: Arc<LifecycleState>,
}

impl Lifecycle {
    /// The handle, and the engine that will run the stop.
    ///
    /// # Panics
    /// If [`Plan::check`] refuses the plan: a plan is a constant of the program.
    pub fn new(plan: Plan) -> (Lifecycle, Engine) {
        if let Err(error) = plan.check() {
            // A constant of the program is wrong: no input leads here.
            panic!("{error}");
        }
        let state = Arc::new(LifecycleState::new(plan));
        (Lifecycle { state: Arc::clone(&state) }, Engine::new(state))
    }

    /// The scope of tasks that die in `stage`. A stage that the plan leaves out stands for the next planned
    /// one, or for the last.
    pub fn scope(&self, stage: Stage) -> Scope {
        Scope::new(Arc::clone(&self.state), self.state.plan.position(stage))
    }

    /// Has `hook` run when `stage` begins, together with the other hooks of that stage. The stage is over when
    /// its hooks and the tasks of its scope are done. An error or a panic fails the stage, not the stop.
    ///
    /// Can be registered until the stage begins, also during a stop. False, with a warning, when that is too
    /// late: then it never runs.
    pub fn hook<H, F>(&self, stage: Stage, name: &'static str, hook: H) -> bool
    where
        H: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let boxed: BoxedHook = Box::new(move || Box::pin(hook()));
        // Whether the stage has begun is decided under its lock: a hook is run or refused, never
        // forgotten.
        let taken = self.state.stage_tasks(self.state.plan.position(stage)).hook(name, boxed);
        if !taken {
            tracing::warn!(stage = stage.as_str(), hook = name, "Hook refused: its stage has begun");
        }
        taken
    }

    /// Gives `resource` back when [`Stage::Release`] begins, beside all others, and is not waited for any longer than
    /// `within`: servers that are gone take their time, and one must not take that of the others.
    pub fn release<T, F>(
        &self,
        name: &'static str,
        within: Duration,
        resource: T,
        close: impl FnOnce(T) -> F + Send + 'static,
    ) where
        T: Send + 'static,
        F: Future<Output: TaskResult> + Send + 'static,
    {
        let hook = move || async move { bounded(within, name, close(resource)).await?.into_result() };
        self.hook(Stage::Release, name, hook);
    }

    /// Start-up is over: [`Stage::Starting`] becomes [`Stage::Ready`], unless a stop was asked for.
    pub fn ready(&self) {
        let became = self.state.progress.send_if_modified(|progress| {
            // A stop may have been asked for during the start: ready must not come after it.
            let starting = progress.stage == Stage::Starting && progress.reason.is_none();
            if starting {
                progress.stage = Stage::Ready;
                progress.since = Instant::now();
            }
            starting
        });
        if became {
            tracing::info!("Ready");
        }
    }

    /// Asks for a stop, from any thread. The first reason counts and the total time runs from here; false, and
    /// nothing but a line in the log, if a stop was asked for before.
    pub fn stop(&self, reason: StopReason) -> bool {
        let first = self.state.stop(&reason);
        if !first {
            tracing::info!(%reason, "Already stopping, the budget bounds the wait: ignored");
        }
        first
    }

    /// Cancelled as soon as a stop was asked for, before any stage begins.
    pub fn stopping(&self) -> CancellationToken {
        self.state.stopping.clone()
    }

    /// Runs a step of the start-up, unless a stop is asked for meanwhile: then it is dropped and this is None.
    pub async fn until_stopping<F: Future>(&self, step: F) -> Option<F::Output> {
        tokio::select! {
            biased; // a stop wins over a step that is just done: what follows would only be torn down
            () = self.state.stopping.cancelled() => None,
            output = step => Some(output),
        }
    }

    /// Where the process stands, now and at every change.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.state.progress.subscribe()
    }

    /// The current stage.
    pub fn stage(&self) -> Stage {
        self.state.progress.borrow().stage
    }

    /// The time a whole stop may take.
    pub fn total(&self) -> Duration {
        self.state.total()
    }

    /// What the current stage waits for: names of tasks, hooks and guards, and how many. Empty before
    /// and after a stop.
    pub fn blockers(&self) -> Vec<(String, usize)> {
        let stage = self.stage();
        self.state
            .plan
            .stages
            .iter()
            .position(|planned| planned.stage == stage)
            .map_or_else(Vec::new, |index| self.state.blockers(index))
    }

    /// All that is at work for any stage, by name.
    pub fn tasks(&self) -> Vec<(String, usize)> {
        self.state.tasks()
    }

    /// Adds `value` to a counter: shown in the line of the current stage, in the summary and in the report.
    /// For what the stop did or could not do, such as publishes that stayed unknown.
    pub fn note(&self, key: &'static str, value: u64) {
        self.state.record().note(key, value);
    }

    /// As [`note`](Lifecycle::note) with what `value` gives when `stage` is over, however it ended: for what must be
    /// said also of a stage that was late. Must not wait.
    pub fn tally(&self, stage: Stage, key: &'static str, value: impl FnOnce() -> u64 + Send + 'static) {
        let index = self.state.plan.position(stage);
        self.state.record().tallies.push((index, key, Box::new(value)));
    }

    /// Has the summary show what `value` gives by then: what was done in the life of the process. Must not wait.
    pub fn summarize(&self, key: &'static str, value: impl Fn() -> u64 + Send + Sync + 'static) {
        self.state.record().totals.push((key, Arc::new(value)));
    }

    /// Has the lines of the stop, and whoever asks for the [`work`](Lifecycle::work), hear what is done. Must not wait.
    pub fn report_work(&self, work: impl Fn() -> Work + Send + Sync + 'static) {
        self.state.record().work = Some(Arc::new(work));
    }

    /// What the process does and did; after the stop what it had done.
    pub fn work(&self) -> Work {
        self.state.work()
    }

    /// How long the process has lived.
    pub fn uptime(&self) -> Duration {
        self.state.started.elapsed()
    }

    /// What was counted so far: by [`note`](Lifecycle::note), for the [summary](Lifecycle::summarize), the sums of
    /// the [work](Lifecycle::work), and how many tasks came to their end or were ended because they were late.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.state.totals()
    }

    /// How long the rest of a stop may take by its plan; None before a stop is asked for.
    pub fn ends_within(&self) -> Option<Duration> {
        let progress = self.state.progress.borrow();
        let left = progress.remaining()?;
        let behind = self.state.plan.stages.iter().filter(|planned| planned.stage > progress.stage);
        let behind: Duration =
            behind.map(|planned| planned.allowed).fold(Duration::ZERO, Duration::saturating_add);
        let here =
            progress.deadline.map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()));
        Some(left.min(here.saturating_add(behind)))
    }

    pub(crate) fn alarm(&self) -> Arc<Alarm> {
        Arc::clone(&self.state.alarm)
    }

    /// Ends when the engine is done or was dropped.
    pub(crate) fn over(&self) -> CancellationToken {
        self.state.over.clone()
    }
}
