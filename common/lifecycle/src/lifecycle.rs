//! The one lifecycle value of a process: made in `main`, passed down to whoever can start work.
//!
//! It takes orders (start this, stop now) and answers questions; the stages themselves are run by the engine.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::gate::{Gate, Shared};
use crate::plan::Plan;
use crate::report::{Progress, StopReason};
use crate::scope::Scope;
use crate::stage::Stage;
use crate::stage_tasks::StageTasks;
use crate::task::BoxError;
use crate::watchdog::Alarm;

/// No stop takes longer, whatever a configuration says: keeps the arithmetic of deadlines from overflowing.
const TOTAL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// A hook, ready to be started.
pub(crate) type BoxedHook = Box<dyn FnOnce() -> HookFuture + Send>;
pub(crate) type HookFuture = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// The handle to a process' life. Cheap to clone; see the [crate] for the whole picture.
#[derive(Clone)]
pub struct Lifecycle {
    inner: Arc<LifecycleState>,
}

impl Lifecycle {
    /// The handle, and the engine that will run the stop.
    ///
    /// # Panics
    /// If [`Plan::check`] refuses the plan: a plan is a constant of the program.
    pub fn new(plan: Plan) -> (Lifecycle, Engine) {
        if let Err(error) = plan.check() {
            panic!("{error}");
        }
        let inner = Arc::new(LifecycleState::new(plan));
        (Lifecycle { inner: Arc::clone(&inner) }, Engine::new(inner))
    }

    /// The scope of tasks that die in `stage`. A stage that the plan leaves out stands for the next planned
    /// one, or for the last.
    pub fn scope(&self, stage: Stage) -> Scope {
        Scope::new(Arc::clone(&self.inner), self.inner.plan.position(stage))
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
        let taken = self.inner.pool(self.inner.plan.position(stage)).hook(name, boxed);
        if !taken {
            tracing::warn!(stage = stage.as_str(), hook = name, "Hook refused: its stage has begun");
        }
        taken
    }

    /// A gate for calls too short to be tasks. It is named in [`blockers`](Lifecycle::blockers) while somebody
    /// waits for it.
    pub fn gate(&self, name: &'static str) -> Gate {
        let gate = Gate::new(name);
        let mut gates = self.inner.gates();
        gates.retain(|known| known.strong_count() > 0);
        gates.push(Arc::downgrade(gate.shared()));
        gate
    }

    /// Start-up is over: [`Stage::Starting`] becomes [`Stage::Ready`], unless a stop was asked for.
    pub fn ready(&self) {
        let became = self.inner.progress.send_if_modified(|progress| {
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
        let first = self.inner.stop(&reason);
        if !first {
            tracing::info!(%reason, "Already stopping, the budget bounds the wait: ignored");
        }
        first
    }

    /// Cancelled as soon as a stop was asked for, before any stage begins.
    pub fn stopping(&self) -> CancellationToken {
        self.inner.stopping.clone()
    }

    /// Runs a step of the start-up, unless a stop is asked for meanwhile: then it is dropped and this is None.
    pub async fn until_stopping<F: Future>(&self, step: F) -> Option<F::Output> {
        tokio::select! {
            biased; // a stop wins over a step that is just done: what follows would only be torn down
            () = self.inner.stopping.cancelled() => None,
            output = step => Some(output),
        }
    }

    /// Where the process stands, now and at every change.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.inner.progress.subscribe()
    }

    /// The current stage.
    pub fn stage(&self) -> Stage {
        self.inner.progress.borrow().stage
    }

    /// The time a whole stop may take.
    pub fn total(&self) -> Duration {
        self.inner.total()
    }

    /// What the current stage waits for: names of tasks, hooks, guards and gates, and how many. Empty before
    /// and after a stop.
    pub fn blockers(&self) -> Vec<(String, usize)> {
        let stage = self.stage();
        self.inner
            .plan
            .stages
            .iter()
            .position(|planned| planned.stage == stage)
            .map_or_else(Vec::new, |index| self.inner.blockers(index))
    }

    /// All that is at work for any stage, by name.
    pub fn tasks(&self) -> Vec<(String, usize)> {
        self.inner.tasks()
    }

    /// Adds `value` to a counter: shown in the line of the current stage, in the summary and in the report.
    /// For what the stop did or could not do, such as publishes that stayed unknown.
    pub fn note(&self, key: &'static str, value: u64) {
        let mut guard = self.inner.record();
        let record = &mut *guard;
        for counts in [&mut record.stage_counts, &mut record.counts] {
            let count = counts.entry(key).or_default();
            *count = count.saturating_add(value);
        }
    }

    /// What was counted so far by [`note`](Lifecycle::note).
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.inner.record().counts.clone()
    }

    pub(crate) fn alarm(&self) -> Arc<Alarm> {
        Arc::clone(&self.inner.alarm)
    }

    /// Ends when the engine is done or was dropped.
    pub(crate) fn over(&self) -> CancellationToken {
        self.inner.over.clone()
    }
}

/// What the handles, the scopes and the engine share.
pub(crate) struct LifecycleState {
    pub(crate) plan: Plan,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) stopping: CancellationToken,
    /// Cancelled when nobody runs the stages any more.
    pub(crate) over: CancellationToken,
    alarm: Arc<Alarm>,
    /// One for each planned stage, in the same order.
    pools: Vec<StageTasks>,
    gates: Mutex<Vec<Weak<Shared>>>,
    record: Mutex<StopRecord>,
}

/// What happened since the last stage ended, and in total.
#[derive(Default)]
pub(crate) struct StopRecord {
    pub(crate) failures: Vec<(String, String)>,
    pub(crate) stage_counts: BTreeMap<&'static str, u64>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl LifecycleState {
    fn new(plan: Plan) -> LifecycleState {
        let start = Progress {
            stage: Stage::Starting,
            since: Instant::now(),
            deadline: None,
            total_deadline: None,
            outcomes: Vec::new(),
            reason: None,
        };
        LifecycleState {
            pools: plan.stages.iter().map(|_| StageTasks::new()).collect(),
            plan,
            progress: watch::Sender::new(start),
            stopping: CancellationToken::new(),
            over: CancellationToken::new(),
            alarm: Arc::default(),
            gates: Mutex::default(),
            record: Mutex::default(),
        }
    }

    pub(crate) fn total(&self) -> Duration {
        self.plan.total.min(TOTAL_MAX)
    }

    pub(crate) fn pool(&self, index: usize) -> &StageTasks {
        &self.pools[index]
    }

    pub(crate) fn pools(&self) -> &[StageTasks] {
        &self.pools
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// False if a stop was asked for before.
    pub(crate) fn stop(&self, reason: &StopReason) -> bool {
        let total = self.total();
        let first = self.progress.send_if_modified(|progress| {
            let first = progress.reason.is_none();
            if first {
                progress.reason = Some(reason.clone());
                progress.total_deadline = Some(Instant::now() + total);
            }
            first
        });
        if !first {
            return false;
        }
        self.alarm.start(total);
        if let StopReason::Failed(task, error) = reason {
            tracing::error!(task, error, "Task died, stopping");
        } else {
            tracing::info!(%reason, total_ms = total.as_millis(), "Stopping");
        }
        self.stopping.cancel();
        true
    }

    /// Something went wrong during the stop: the running stage says so.
    pub(crate) fn failed(&self, name: &str, error: String) {
        self.record().failures.push((name.to_owned(), error));
    }

    pub(crate) fn blockers(&self, index: usize) -> Vec<(String, usize)> {
        let mut census = BTreeMap::new();
        self.pools[index].census(&mut census);
        for (name, inside) in self.gates().iter().filter_map(Weak::upgrade).filter_map(|gate| gate.blocking())
        {
            *census.entry(name.to_owned()).or_default() += inside;
        }
        census.into_iter().collect()
    }

    pub(crate) fn tasks(&self) -> Vec<(String, usize)> {
        let mut census = BTreeMap::new();
        for pool in &self.pools {
            pool.census(&mut census);
        }
        census.into_iter().collect()
    }

    fn gates(&self) -> MutexGuard<'_, Vec<Weak<Shared>>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, StopRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
