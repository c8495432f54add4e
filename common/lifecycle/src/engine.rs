//! The engine: waits for a stop, runs the stages of the plan one after the other, reports.
//!
//! It never waits without a deadline once a stop was asked for, and nothing of a stage outlives the engine, but for
//! code that never yields.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::plan::StagePlan;
use crate::report::{Report, StageOutcome, StageReport, StopReason, millis};
use crate::scope::Scope;
use crate::stage::Stage;
use crate::state::LifecycleState;

/// How long, of what is left of the total, aborted tasks get to be dropped before they are called abandoned.
const ABORT_GRACE: Duration = Duration::from_millis(50);

/// How often the runtime gets a turn for the same, also when nothing is left.
const ABORT_TURNS: u32 = 16;

/// Runs the stop. Owns the tasks: when it is dropped, run or not, all of them are aborted.
#[must_use = "dropping the engine aborts every task of the lifecycle"]
pub struct Engine {
    state: Arc<LifecycleState>,
}

impl Engine {
    pub(crate) fn new(state: Arc<LifecycleState>) -> Engine {
        Engine { state }
    }

    /// Waits until a stop is asked for, runs it, and says what happened. Never takes longer than the total,
    /// counted from the request.
    pub async fn run(self) -> Report {
        self.state.stopping.cancelled().await;
        // What was counted while the process served belongs to the summary, not to the first stage.
        self.state.record().stage_counts.clear();
        let (asked, end) = self.bounds();
        for (index, planned) in self.state.plan.stages.iter().enumerate() {
            let report = self.stage(index, *planned, end).await;
            report.log();
            self.state.progress.send_modify(|progress| progress.outcomes.push(report));
        }
        self.reap(end).await;
        let report = self.report(asked);
        report.log();
        report
    }

    /// When the stop was asked for and when it has to have ended.
    fn bounds(&self) -> (Instant, Instant) {
        // The total runs from the request, not from here: a busy runtime may come late.
        let end = self.state.progress.borrow().total_deadline.unwrap_or_else(Instant::now);
        (end.checked_sub(self.state.total()).unwrap_or(end), end)
    }

    async fn stage(&self, index: usize, planned: StagePlan, end: Instant) -> StageReport {
        let since = Instant::now();
        // The total wins over the stage: what an earlier stage overran is missing here.
        let allowed = planned.allowed.min(end.saturating_duration_since(since));
        let deadline = since + allowed;
        self.state.progress.send_modify(|progress| {
            progress.stage = planned.stage;
            progress.since = since;
            progress.deadline = Some(deadline);
        });
        let outcome = if allowed.is_zero() {
            None
        } else {
            tracing::info!(
                stage = planned.stage.as_str(),
                allowed_ms = millis(allowed),
                remaining_ms = millis(end.saturating_duration_since(since)),
                "Stage begins"
            );
            Some(self.wait(index, deadline).await)
        };
        // Before the end of those who are late: what they hold counts.
        self.state.take_tallies(index);
        // Before the report is made, so that what the abort says still belongs to this stage.
        let cancelled = self.state.stage_tasks(index).end();
        let mut record = self.state.record();
        record.tasks_cancelled += cancelled as u64;
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
        let tasks = self.state.stage_tasks(index);
        let scope = Scope::new(Arc::clone(&self.state), index);
        // Hooks first: each is counted before the token wakes the tasks, or the stage could look
        // empty.
        for (name, hook) in tasks.begin() {
            scope.run_hook(name, async move { hook().await });
        }
        tasks.token.cancel();
        // Biased by tokio: who is done exactly at the deadline is in time.
        match timeout_at(deadline, tasks.empty()).await {
            Ok(()) => StageOutcome::Done,
            Err(_) => StageOutcome::Late(self.state.blockers(index)),
        }
    }

    /// Gives aborted tasks the time to be dropped.
    async fn reap(&self, end: Instant) {
        for _ in 0..ABORT_TURNS {
            if self.state.tasks().is_empty() {
                return;
            }
            // An aborted task is dropped at its next turn, so turns come before time: on a paused
            // clock, and at the end of the total, there is no time.
            tokio::task::yield_now().await;
        }
        let all = async {
            for tasks in self.state.all_stages() {
                tasks.empty().await;
            }
        };
        // Whoever is left after this is named in the report.
        let _late = timeout_at(end.min(Instant::now() + ABORT_GRACE), all).await;
    }

    fn report(&self, asked: Instant) -> Report {
        self.state.progress.send_modify(|progress| {
            progress.stage = Stage::Gone;
            progress.deadline = None;
        });
        // Before the look at the progress: whoever counts may look at it too.
        let (counts, work) = (self.state.settle(), self.state.work());
        let progress = self.state.progress.borrow();
        Report {
            reason: progress.reason.clone().unwrap_or_else(|| StopReason::Manual("no reason".to_owned())),
            stages: progress.outcomes.clone(),
            counts,
            work,
            abandoned: self.state.tasks(),
            elapsed: asked.elapsed(),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.state.progress.send_if_modified(|progress| {
            // Also when a test or a failed start drops it without a run: nobody may wait for a stop
            // that will not come.
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
        self.state.stopping.cancel();
        for tasks in self.state.all_stages() {
            tasks.end();
        }
        self.state.settle();
        // Last: it ends the signal thread, which may still be asked until here.
        self.state.over.cancel();
    }
}
