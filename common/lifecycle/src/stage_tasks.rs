//! Who is at work for one stage: an entry for each task and guard, until it has ended.
//!
//! Bookkeeping only: it never starts, judges or logs anything.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::task::BoxError;

/// A hook, ready to be started.
pub(crate) type BoxedHook = Box<dyn FnOnce() -> HookFuture + Send>;
pub(crate) type HookFuture = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// The tasks, guards and hooks of one planned stage.
pub(crate) struct StageTasks {
    /// Cancelled when the stage begins.
    pub(crate) token: CancellationToken,
    members: Mutex<TaskEntries>,
    emptied: Notify,
}

#[derive(Default)]
struct TaskEntries {
    phase: StagePhase,
    next: u64,
    at_work: HashMap<u64, TaskEntry>,
    hooks: Vec<(&'static str, BoxedHook)>,
}

struct TaskEntry {
    name: &'static str,
    /// None for guards, which cannot be aborted, and for the instant between entry and start.
    handle: Option<AbortHandle>,
}

impl TaskEntries {
    fn add(&mut self, name: &'static str) -> u64 {
        let id = self.next;
        self.next += 1;
        self.at_work.insert(id, TaskEntry { name, handle: None });
        id
    }
}

/// How far the stage is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StagePhase {
    /// The stage has not begun.
    #[default]
    Ahead,
    /// The stage runs.
    Begun,
    /// Over: nobody waits any more.
    Over,
}

impl StageTasks {
    pub(crate) fn new() -> StageTasks {
        StageTasks { token: CancellationToken::new(), members: Mutex::default(), emptied: Notify::new() }
    }

    fn members(&self) -> MutexGuard<'_, TaskEntries> {
        // Nothing in here panics half-way through a change, so a poisoned lock still guards whole data.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn phase(&self) -> StagePhase {
        self.members().phase
    }

    /// A new task, unless the stage is over.
    pub(crate) fn enter(&self, name: &'static str) -> Option<u64> {
        let mut members = self.members();
        // Asked and entered under one lock: a task that is in is seen by the wait, one that is not
        // never starts.
        (members.phase != StagePhase::Over).then(|| members.add(name))
    }

    /// A new guard: also when the stage is over, so that it is named in the report if it is still there.
    pub(crate) fn track(&self, name: &'static str) -> u64 {
        self.members().add(name)
    }

    /// The way to abort a member that has been started. It may have ended, or the stage, in the meantime.
    pub(crate) fn started(&self, id: u64, handle: AbortHandle) {
        let mut members = self.members();
        // The stage ended between entry and start: nobody else has this handle to abort it.
        if members.phase == StagePhase::Over {
            // Abort may run the task's drop on this thread, which comes back for the lock.
            drop(members);
            handle.abort();
        } else if let Some(member) = members.at_work.get_mut(&id) {
            member.handle = Some(handle);
        }
    }

    pub(crate) fn leave(&self, id: u64) {
        let mut members = self.members();
        members.at_work.remove(&id);
        // Told after the lock is free: whoever wakes up takes it.
        let empty = members.at_work.is_empty();
        drop(members);
        if empty {
            self.emptied.notify_waiters();
        }
    }

    /// A hook for when the stage begins; false if it has.
    pub(crate) fn hook(&self, name: &'static str, hook: BoxedHook) -> bool {
        let mut members = self.members();
        let ahead = members.phase == StagePhase::Ahead;
        if ahead {
            members.hooks.push((name, hook));
        }
        ahead
    }

    /// The stage begins: its hooks, to be started by the caller before it cancels the token.
    pub(crate) fn begin(&self) -> Vec<(&'static str, BoxedHook)> {
        let mut members = self.members();
        // An engine that is dropped may have ended the stage before.
        members.phase = members.phase.max(StagePhase::Begun);
        mem::take(&mut members.hooks)
    }

    /// The stage is over: its token is cancelled and what still runs is aborted. Gives how many tasks that was.
    pub(crate) fn end(&self) -> usize {
        let mut members = self.members();
        members.phase = StagePhase::Over;
        let hooks = mem::take(&mut members.hooks);
        let handles: Vec<AbortHandle> =
            members.at_work.values_mut().filter_map(|m| m.handle.take()).collect();
        // Aborting and dropping run foreign code, which may come back here.
        drop(members);
        drop(hooks);
        self.token.cancel();
        for handle in &handles {
            handle.abort();
        }
        handles.len()
    }

    /// Waits until nobody is at work.
    pub(crate) async fn empty(&self) {
        loop {
            let mut emptied = pin!(self.emptied.notified());
            // Before the look, or a leave between look and wait would not be heard.
            emptied.as_mut().enable();
            if self.members().at_work.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Adds who is at work, by name.
    pub(crate) fn census(&self, into: &mut BTreeMap<String, usize>) {
        for member in self.members().at_work.values() {
            match into.get_mut(member.name) {
                Some(count) => *count += 1,
                None => {
                    into.insert(member.name.to_owned(), 1);
                }
            }
        }
    }
}
