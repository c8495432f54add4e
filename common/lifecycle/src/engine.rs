//! The engine: waits for a stop, runs the stages of the plan one after the other, reports.
//!
//! It never waits without a deadline once a stop was asked for, and nothing of a stage outlives the engine, but for
//! code that never yields.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::lifecycle::LifecycleState;
use crate::plan::StagePlan;
use crate::report::{Report, StageOutcome, StageReport, StopReason};
use crate::scope::Scope;
use crate::stage::Stage;

/// How long, of what is left of the total, aborted tasks get to be dropped before they are called abandoned.
const ABORT_GRACE: Duration = Duration::from_millis(50);

/// How often the runtime gets a turn for the same, also when nothing is left.
const ABORT_TURNS: u32 = 16;

/// Runs the stop. Owns the tasks: when it is dropped, run or not, all of them are aborted.
#[must_use = "dropping the engine aborts every task of the lifecycle"]
pub struct Engine {
    inner: Arc<LifecycleState>,
}

impl Engine {
    pub(crate) fn new(inner: Arc<LifecycleState>) -> Engine {
        Engine { inner }
    }

    /// Waits until a stop is asked for, runs it, and says what happened. Never takes longer than the total,
    /// counted from the request.
    pub async fn run(self) -> Report {
        self.inner.stopping.cancelled().await;
        // What was counted while the process served belongs to the summary, not to the first stage.
        self.inner.record().stage_counts.clear();
        let (asked, end) = self.bounds();
        for (index, planned) in self.inner.plan.stages.iter().enumerate() {
            let report = self.stage(index, *planned, end).await;
            report.log();
            self.inner.progress.send_modify(|progress| progress.outcomes.push(report));
        }
        self.reap(end).await;
        let report = self.report(asked);
        report.log();
        report
    }

    /// When the stop was asked for and when it has to have ended.
    fn bounds(&self) -> (Instant, Instant) {
        let end = self.inner.progress.borrow().total_deadline.unwrap_or_else(Instant::now);
        (end.checked_sub(self.inner.total()).unwrap_or(end), end)
    }

    async fn stage(&self, index: usize, planned: StagePlan, end: Instant) -> StageReport {
        let since = Instant::now();
        let allowed = planned.allowed.min(end.saturating_duration_since(since));
        let deadline = since + allowed;
        self.inner.progress.send_modify(|progress| {
            progress.stage = planned.stage;
            progress.since = since;
            progress.deadline = Some(deadline);
        });
        let outcome = if allowed.is_zero() { None } else { Some(self.wait(index, deadline).await) };
        self.inner.pool(index).end();
        let mut record = self.inner.record();
        let failures = mem::take(&mut record.failures);
        let counts = mem::take(&mut record.stage_counts);
        let outcome = match outcome {
            None => StageOutcome::Skipped,
            Some(StageOutcome::Done) if !failures.is_empty() => StageOutcome::Failed,
            Some(outcome) => outcome,
        };
        StageReport { stage: planned.stage, outcome, failures, elapsed: since.elapsed(), allowed, counts }
    }

    /// Starts what the stage does and waits for it until the deadline.
    async fn wait(&self, index: usize, deadline: Instant) -> StageOutcome {
        let pool = self.inner.pool(index);
        let scope = Scope::new(Arc::clone(&self.inner), index);
        for (name, hook) in pool.begin() {
            scope.run_hook(name, async move { hook().await });
        }
        pool.token.cancel();
        match timeout_at(deadline, pool.empty()).await {
            Ok(()) => StageOutcome::Done,
            Err(_) => StageOutcome::Late(self.inner.blockers(index)),
        }
    }

    /// Gives aborted tasks the time to be dropped.
    async fn reap(&self, end: Instant) {
        for _ in 0..ABORT_TURNS {
            if self.inner.tasks().is_empty() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let all = async {
            for pool in self.inner.pools() {
                pool.empty().await;
            }
        };
        // Whoever is left after this is named in the report.
        let _late = timeout_at(end.min(Instant::now() + ABORT_GRACE), all).await;
    }

    fn report(&self, asked: Instant) -> Report {
        self.inner.progress.send_modify(|progress| {
            progress.stage = Stage::Gone;
            progress.deadline = None;
        });
        let progress = self.inner.progress.borrow();
        Report {
            reason: progress.reason.clone().unwrap_or_else(|| StopReason::Manual("no reason".to_owned())),
            stages: progress.outcomes.clone(),
            counts: self.inner.record().counts.clone(),
            abandoned: self.inner.tasks(),
            elapsed: asked.elapsed(),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.inner.progress.send_if_modified(|progress| {
            let unrun = progress.stage != Stage::Gone;
            if unrun {
                progress.stage = Stage::Gone;
                progress
                    .reason
                    .get_or_insert_with(|| StopReason::Manual("the engine was dropped".to_owned()));
            }
            unrun
        });
        // In order, so that nothing of an earlier stage takes the end of a later one for unexpected.
        self.inner.stopping.cancel();
        for pool in self.inner.pools() {
            pool.end();
        }
        self.inner.over.cancel();
    }
}
