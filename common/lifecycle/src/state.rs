//! What the handles, the scopes and the engine of one lifecycle share.
//!
//! Keeps and counts; it starts no task and runs no stage.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarm;
use crate::plan::Plan;
use crate::report::{Progress, StopReason, millis};
use crate::stage::Stage;
use crate::stage_tasks::StageTasks;
use crate::work::Work;

/// No stop takes longer, whatever a configuration says: keeps the arithmetic of deadlines from overflowing.
const TOTAL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The shared state; see the module.
pub(crate) struct LifecycleState {
    pub(crate) plan: Plan,
    /// When the process began.
    pub(crate) started: Instant,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) stopping: CancellationToken,
    /// Cancelled when nobody runs the stages any more.
    pub(crate) over: CancellationToken,
    pub(crate) alarm: Arc<Alarm>,
    /// One for each planned stage, in the same order.
    stages: Vec<StageTasks>,
    record: Mutex<StopRecord>,
}

/// What happened since the last stage ended, and in total.
#[derive(Default)]
pub(crate) struct StopRecord {
    pub(crate) failures: Vec<(String, String)>,
    pub(crate) stage_counts: BTreeMap<&'static str, u64>,
    counts: BTreeMap<&'static str, u64>,
    pub(crate) tallies: Vec<(usize, &'static str, Tally)>,
    pub(crate) totals: Vec<(&'static str, Total)>,
    /// Tasks that came to their end by themselves.
    tasks_completed: u64,
    /// Tasks that were ended because their stage was over.
    pub(crate) tasks_cancelled: u64,
    pub(crate) work: Option<WorkSource>,
    /// What the source of work said at the end.
    last_work: Work,
    /// The last sums are made.
    is_settled: bool,
}

/// A number that is asked for when a stage is over.
type Tally = Box<dyn FnOnce() -> u64 + Send>;
/// A number that is asked for at the end, and when somebody looks.
type Total = Arc<dyn Fn() -> u64 + Send + Sync>;
/// The same for what the process does.
type WorkSource = Arc<dyn Fn() -> Work + Send + Sync>;

impl StopRecord {
    pub(crate) fn note(&mut self, key: &'static str, value: u64) {
        for counts in [&mut self.stage_counts, &mut self.counts] {
            let count = counts.entry(key).or_default();
            // A count that is too large is better than a panic in a stop.
            *count = count.saturating_add(value);
        }
    }
}

impl LifecycleState {
    pub(crate) fn new(plan: Plan) -> LifecycleState {
        let start = Progress {
            stage: Stage::Starting,
            since: Instant::now(),
            deadline: None,
            total_deadline: None,
            outcomes: Vec::new(),
            reason: None,
        };
        LifecycleState {
            stages: plan.stages.iter().map(|_| StageTasks::new()).collect(),
            plan,
            started: Instant::now(),
            progress: watch::Sender::new(start),
            stopping: CancellationToken::new(),
            over: CancellationToken::new(),
            alarm: Arc::default(),
            record: Mutex::default(),
        }
    }

    pub(crate) fn total(&self) -> Duration {
        self.plan.total.min(TOTAL_MAX)
    }

    pub(crate) fn stage_tasks(&self, index: usize) -> &StageTasks {
        &self.stages[index]
    }

    pub(crate) fn all_stages(&self) -> &[StageTasks] {
        &self.stages
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// False if a stop was asked for before.
    pub(crate) fn stop(&self, reason: &StopReason) -> bool {
        let total = self.total();
        // Under the lock of the channel: of two threads that ask at once, one is the first.
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
        // Before anything that may block: the watchdog counts whatever follows.
        self.alarm.start(total);
        match reason {
            StopReason::Failed(task, error) => tracing::error!(task, error, "Task died, stopping"),
            StopReason::NotStarted(why, _) => tracing::error!(reason = why, "The start failed, stopping"),
            StopReason::Signal(_) | StopReason::Admin | StopReason::Manual(_) => {
                self.log_request(reason, total);
            }
        }
        // Last, as whoever wakes up looks for the reason.
        self.stopping.cancel();
        true
    }

    /// What an operator wants to know at the signal: which, of whom, and whether it matters.
    fn log_request(&self, reason: &StopReason, total: Duration) {
        let work = self.work();
        tracing::info!(
            %reason,
            signal_number = reason.signal_number(),
            pid = std::process::id(),
            is_processing = work.is_processing(),
            in_flight = work.in_flight,
            total_ms = millis(total),
            "Stopping"
        );
    }

    /// What the process does and did.
    pub(crate) fn work(&self) -> Work {
        let record = self.record();
        let (source, last) = (record.work.clone(), record.last_work);
        drop(record);
        // Asked without the lock: it is foreign code.
        source.map_or(last, |source| source())
    }

    /// A task came to its end by itself.
    pub(crate) fn task_completed(&self) {
        let mut record = self.record();
        // What ends behind the last sums would make them untrue.
        if !record.is_settled {
            record.tasks_completed += 1;
        }
    }

    /// A stage is over: what is to be counted by then.
    pub(crate) fn take_tallies(&self, index: usize) {
        let mut record = self.record();
        let all = std::mem::take(&mut record.tallies);
        let (due, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(stage, ..)| *stage == index);
        record.tallies = rest;
        drop(record);
        for (_, key, value) in due {
            // Asked without the lock: it is foreign code.
            let value = value();
            self.record().note(key, value);
        }
    }

    /// Everything that was counted.
    pub(crate) fn totals(&self) -> BTreeMap<&'static str, u64> {
        let record = self.record();
        let (mut counts, totals) = (record.counts.clone(), record.totals.clone());
        let tasks =
            [("tasks_completed", record.tasks_completed), ("tasks_cancelled", record.tasks_cancelled)];
        let does_work = record.work.is_some();
        drop(record);
        if does_work {
            counts.extend(self.work().sums());
        }
        counts.extend(totals.into_iter().map(|(key, value)| (key, value())));
        counts.extend(tasks.into_iter().filter(|(_, count)| *count > 0));
        counts
    }

    /// Everything that was counted, for the last time: whoever counted is let go of. Who counts may hold this lifecycle,
    /// and would keep itself alive for ever.
    pub(crate) fn settle(&self) -> BTreeMap<&'static str, u64> {
        let (totals, work) = (self.totals(), self.work());
        let mut record = self.record();
        record.counts = totals.clone();
        record.last_work = work;
        (record.tasks_completed, record.tasks_cancelled, record.is_settled) = (0, 0, true);
        let foreign =
            (std::mem::take(&mut record.tallies), std::mem::take(&mut record.totals), record.work.take());
        drop(record);
        // Without the lock: their ends are foreign code too.
        drop(foreign);
        totals
    }

    /// Something went wrong during the stop: the running stage says so.
    pub(crate) fn failed(&self, name: &str, error: String) {
        self.record().failures.push((name.to_owned(), error));
    }

    pub(crate) fn blockers(&self, index: usize) -> Vec<(String, usize)> {
        let mut census = BTreeMap::new();
        self.stages[index].census(&mut census);
        census.into_iter().collect()
    }

    pub(crate) fn tasks(&self) -> Vec<(String, usize)> {
        let mut census = BTreeMap::new();
        for tasks in &self.stages {
            // One lock after the other: a sum for people, not a moment.
            tasks.census(&mut census);
        }
        census.into_iter().collect()
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, StopRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
