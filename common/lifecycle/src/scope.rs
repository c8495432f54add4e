//! Scopes: the only way to start a task, and guards for what is not a task.
//!
//! A scope never outlives the rules of its stage: what is in it is waited for, then aborted and named.

use std::future::Future;
use std::sync::Arc;
use std::thread;

use tokio_util::sync::CancellationToken;

use crate::report::StopReason;
use crate::stage_tasks::{StagePhase, StageTasks};
use crate::state::LifecycleState;
use crate::task::{self, BoxError, End, TaskResult};

/// The tasks that die in one stage. Cheap to clone.
///
/// When the stage begins, the scope's [`token`](Scope::token) is cancelled; then its tasks are waited for
/// until the stage's deadline; then they are aborted and named in the report.
#[derive(Clone)]
pub struct Scope {
    state: Arc<LifecycleState>,
    index: usize,
}

impl Scope {
    pub(crate) fn new(state: Arc<LifecycleState>, index: usize) -> Scope {
        Scope { state, index }
    }

    /// Starts a task that has to live until its stage begins, on the runtime of the caller.
    ///
    /// If it ends before that without a stop having been asked for (an error, a panic, a plain return), the
    /// process stops with [`StopReason::Failed`] and exit code 1. An error or panic later fails the stage.
    ///
    /// A task spawned while its stage runs is waited for like the others and finds the token cancelled. Once
    /// the stage is over nobody would wait for it: the future is dropped without being polled.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output: TaskResult> + Send + 'static,
    {
        self.start(name, TaskKind::Lasting, future);
    }

    /// Starts a task that may end at any time and in any way without stopping the process: one per connection,
    /// per call. Errors and panics are logged. Everything else as in [`spawn`](Scope::spawn).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn_transient<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output: TaskResult> + Send + 'static,
    {
        self.start(name, TaskKind::Transient, future);
    }

    /// Counts something that is not a task of ours (a thread, a `spawn_local` task on another runtime) as at
    /// work until the guard is dropped. It cannot be aborted, only waited for and named.
    ///
    /// May be dropped at any time; a drop by a panic before the stage is an unexpected end, as in
    /// [`spawn`](Scope::spawn).
    pub fn track(&self, name: &'static str) -> TaskGuard {
        self.guard(name, TaskKind::Lasting)
    }

    /// As [`track`](Scope::track), but a panic is only logged: for one of many local tasks.
    pub fn track_transient(&self, name: &'static str) -> TaskGuard {
        self.guard(name, TaskKind::Transient)
    }

    /// Cancelled when the stage of this scope begins.
    ///
    /// Take clones, not child tokens, where there are many: one cancel with 500,000 waiters takes a quarter of
    /// a second on the calling thread, so sessions are better told in slices.
    pub fn token(&self) -> CancellationToken {
        self.stage_tasks().token.clone()
    }

    /// Starts a hook of this scope's stage.
    pub(crate) fn run_hook<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.start(name, TaskKind::Hook, future);
    }

    fn stage_tasks(&self) -> &StageTasks {
        self.state.stage_tasks(self.index)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where tasks are started: named and waited for"
    )]
    fn start<F>(&self, name: &'static str, kind: TaskKind, future: F)
    where
        F: Future<Output: TaskResult> + Send + 'static,
    {
        // Counted before it is spawned: a stage that ends in between waits for it or aborts it.
        let Some(id) = self.stage_tasks().enter(name) else {
            tracing::debug!(task = name, "Task not started: its stage is over");
            return;
        };
        let guard = TaskGuard { scope: self.clone(), id, name, kind, end: Some(End::Dropped) };
        let task = tokio::spawn(async move { guard.finish(task::outcome(future).await) });
        // The task may have ended by now, also on this thread: then there is nothing to abort.
        self.stage_tasks().started(id, task.abort_handle());
    }

    fn guard(&self, name: &'static str, kind: TaskKind) -> TaskGuard {
        TaskGuard { scope: self.clone(), id: self.stage_tasks().track(name), name, kind, end: None }
    }

    /// Decides what the end of a member means.
    fn ended(&self, name: &'static str, kind: TaskKind, end: End) {
        let phase = self.stage_tasks().phase();
        if kind != TaskKind::Hook && matches!(end, End::Done) {
            self.state.task_completed();
        }
        let error = match (kind, end) {
            // We aborted it ourselves.
            (_, End::Dropped) if phase == StagePhase::Over => return,
            (TaskKind::Hook | TaskKind::Transient, End::Done | End::Dropped) => return,
            (TaskKind::Transient, End::Failed(error)) => {
                tracing::warn!(task = name, error, "Task failed");
                return;
            }
            (TaskKind::Transient, End::Panicked(error)) => {
                tracing::error!(task = name, error, "Task panicked");
                return;
            }
            // A plain return is expected once its stage runs, or when a stop was asked for and it
            // is only early.
            (TaskKind::Lasting, End::Done) if phase >= StagePhase::Begun || self.state.is_stopping() => {
                return;
            }
            (TaskKind::Lasting, End::Done) => "ended before its stage".to_owned(),
            // A runtime that goes down during a stop takes its tasks along.
            (TaskKind::Lasting, End::Dropped) if self.state.is_stopping() => return,
            (TaskKind::Lasting, End::Dropped) => "dropped by its runtime".to_owned(),
            (TaskKind::Lasting | TaskKind::Hook, End::Failed(error)) => error,
            (TaskKind::Lasting | TaskKind::Hook, End::Panicked(error)) => format!("panicked: {error}"),
        };
        // The first failure begins the stop and names it; what fails during a stop fails its stage.
        if !self.state.stop(&StopReason::Failed(name.to_owned(), error.clone())) {
            self.state.failed(name, error);
        }
    }
}

/// What the end of a member means to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TaskKind {
    /// Has to live until its stage.
    Lasting,
    /// Ends when it likes.
    Transient,
    /// Part of a stage: fails the stage at most.
    Hook,
}

/// Something at work; counted until dropped. See [`Scope::track`].
#[must_use = "dropping the guard says that the work is done"]
pub struct TaskGuard {
    scope: Scope,
    id: u64,
    name: &'static str,
    kind: TaskKind,
    /// How a task ended; None for what is not a task.
    end: Option<End>,
}

impl TaskGuard {
    /// The name it is counted under.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Cancelled when the stage begins that waits for this guard.
    pub fn token(&self) -> CancellationToken {
        self.scope.token()
    }

    fn finish(mut self, end: End) {
        self.end = Some(end);
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        // First the verdict, then the leave: whoever sees the stage empty sees what went wrong too.
        // A guard that is dropped by a panic has no other word of it.
        if thread::panicking() {
            self.scope.ended(self.name, self.kind, End::Panicked("see standard error".to_owned()));
        } else if let Some(end) = self.end.take() {
            self.scope.ended(self.name, self.kind, end);
        }
        self.scope.stage_tasks().leave(self.id);
    }
}
