//! Drives a [`BatchQueue`] for an async function: one batch in flight, a result for each item.
//!
//! Never answers an item with another's result: when a run panics or returns the wrong number of results,
//! all items of that batch are told that theirs was lost.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use sluice_lifecycle::Scope;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::{BatchQueue, Bounds, Full};

/// Why an item has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Refused: the batcher is closed. The item was certainly not run.
    #[error("the batcher is closed")]
    Closed,
    /// The run panicked, returned the wrong number of results, or was aborted at a deadline. Whether the
    /// item took effect is unknown.
    #[error("the batch ended without a result")]
    Lost,
}

struct Submission<T, R> {
    item: T,
    answer: Option<oneshot::Sender<R>>,
}

struct BatcherState<T, R> {
    queue: BatchQueue<Submission<T, R>>,
    closed: bool,
    /// Submitters that found no space and stand in line; nobody overtakes them.
    in_line: usize,
}

struct BatcherShared<T, R> {
    name: &'static str,
    cost: fn(&T) -> usize,
    state: Mutex<BatcherState<T, R>>,
    /// Held by the first in line: who waits is served in order.
    turn: tokio::sync::Mutex<()>,
    space: Notify,
    work: Notify,
    flushed: CancellationToken,
}

impl<T, R> BatcherShared<T, R> {
    fn state(&self) -> MutexGuard<'_, BatcherState<T, R>> {
        // No code of others runs under this lock, so a poisoned one is still consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.state().closed = true;
        // Wakes the first in line, who finds it closed and lets the next in.
        self.space.notify_one();
        self.work.notify_one();
    }
}

/// A handle to submit items; clones share the queue.
pub struct Batcher<T, R> {
    shared: Arc<BatcherShared<T, R>>,
}

impl<T, R> Clone for Batcher<T, R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T, R> fmt::Debug for Batcher<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl<T: Send + 'static, R: Send + 'static> Batcher<T, R> {
    /// Like [`Batcher::new`], driven by a task of `scope`: when its stage begins, the batcher refuses new
    /// items and flushes; the stage waits for that.
    pub fn spawn<F, Fut>(
        scope: &Scope,
        name: &'static str,
        bounds: Bounds,
        cost: fn(&T) -> usize,
        run: F,
    ) -> Self
    where
        F: FnMut(Vec<T>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<R>> + Send + 'static,
    {
        let (batcher, driver) = Self::new(name, bounds, cost, scope.token(), run);
        scope.spawn(name, driver);
        batcher
    }

    /// A batcher and the future that drives it, which ends when `stop` was cancelled and all is flushed.
    ///
    /// `run` gets a batch in order and returns one result per item, in order. It may be called again after
    /// it panicked.
    pub fn new<F, Fut>(
        name: &'static str,
        bounds: Bounds,
        cost: fn(&T) -> usize,
        stop: CancellationToken,
        run: F,
    ) -> (Self, impl Future<Output = ()> + Send + 'static)
    where
        F: FnMut(Vec<T>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<R>> + Send + 'static,
    {
        let shared = Arc::new(BatcherShared {
            name,
            cost,
            state: Mutex::new(BatcherState { queue: BatchQueue::new(bounds), closed: false, in_line: 0 }),
            turn: tokio::sync::Mutex::new(()),
            space: Notify::new(),
            work: Notify::new(),
            flushed: CancellationToken::new(),
        });
        let ends = Ends(Arc::clone(&shared));
        (Self { shared }, drive(ends, stop, run))
    }

    /// Waits for space, then for the item's result. Submitters are served in the order they came.
    ///
    /// Dropping the future while it waits for space takes the item back; after that the item is run all the
    /// same and its result is dropped.
    ///
    /// # Errors
    /// [`SubmitError`] says whether the item was certainly not run.
    pub async fn submit(&self, item: T) -> Result<R, SubmitError> {
        let (answer, result) = oneshot::channel();
        // Queued or refused before the result is waited for: after this a caller that goes away
        // harms nobody.
        self.enqueue(Submission { item, answer: Some(answer) }).await?;
        result.await.map_err(|_| SubmitError::Lost)
    }

    /// Queues the item if it fits now, without a result. Never overtakes a waiting [`Batcher::submit`].
    ///
    /// # Errors
    /// [`Full`] gives the item back, also when the batcher is closed.
    pub fn offer(&self, item: T) -> Result<(), Full<T>> {
        self.push(Submission { item, answer: None }, false).map_err(|refused| match refused {
            SubmissionRefused::Full(entry) | SubmissionRefused::Closed(entry) => Full(entry.item),
        })
    }

    /// Refuses new items, then waits until all accepted ones have been run. Harmless when repeated.
    pub async fn close(&self) {
        self.shared.close();
        self.shared.flushed.cancelled().await;
    }

    /// Items that wait; the batch in flight is not counted.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.state().queue.len()
    }

    /// Whether nothing waits and nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.shared.state().queue.is_idle()
    }

    async fn enqueue(&self, entry: Submission<T, R>) -> Result<(), SubmitError> {
        let mut entry = match self.push(entry, false) {
            Ok(()) => return Ok(()),
            Err(SubmissionRefused::Closed(_)) => return Err(SubmitError::Closed),
            Err(SubmissionRefused::Full(back)) => back,
        };
        // Counted before the wait, so that nobody who comes later overtakes.
        let _line = InLine::join(&self.shared);
        // Fair: tokio's mutex serves in the order of arrival.
        let _turn = self.shared.turn.lock().await;
        loop {
            match self.push(entry, true) {
                Ok(()) => return Ok(()),
                Err(SubmissionRefused::Closed(_)) => return Err(SubmitError::Closed),
                Err(SubmissionRefused::Full(back)) => entry = back,
            }
            self.shared.space.notified().await;
        }
    }

    fn push(
        &self,
        entry: Submission<T, R>,
        first_in_line: bool,
    ) -> Result<(), SubmissionRefused<Submission<T, R>>> {
        let bytes = (self.shared.cost)(&entry.item);
        let mut state = self.shared.state();
        if state.closed {
            return Err(SubmissionRefused::Closed(entry));
        }
        // There may be space for a small item while a large one waits: order wins.
        if state.in_line > 0 && !first_in_line {
            return Err(SubmissionRefused::Full(entry));
        }
        state.queue.push(entry, bytes).map_err(|Full(entry)| SubmissionRefused::Full(entry))?;
        drop(state);
        self.shared.work.notify_one();
        Ok(())
    }
}

/// A place in line, left by dropping it.
struct InLine<'a, T, R>(&'a BatcherShared<T, R>);

impl<'a, T, R> InLine<'a, T, R> {
    fn join(shared: &'a BatcherShared<T, R>) -> Self {
        shared.state().in_line += 1;
        Self(shared)
    }
}

impl<T, R> Drop for InLine<'_, T, R> {
    fn drop(&mut self) {
        self.0.state().in_line -= 1;
    }
}

enum SubmissionRefused<E> {
    Full(E),
    Closed(E),
}

/// Held by the driver: however it ends, nobody waits for it any longer.
struct Ends<T, R>(Arc<BatcherShared<T, R>>);

impl<T, R> Drop for Ends<T, R> {
    fn drop(&mut self) {
        self.0.close();
        // Their senders are dropped, so that submitters hear `Lost` instead of waiting for ever.
        let left = self.0.state().queue.clear();
        drop(left);
        self.0.flushed.cancel();
    }
}

async fn drive<T, R, F, Fut>(ends: Ends<T, R>, stop: CancellationToken, mut run: F)
where
    T: Send + 'static,
    R: Send + 'static,
    F: FnMut(Vec<T>) -> Fut + Send + 'static,
    Fut: Future<Output = Vec<R>> + Send,
{
    let shared = &ends.0;
    loop {
        // Looked at before each batch: what was accepted is flushed, nothing new comes in.
        if stop.is_cancelled() {
            shared.close();
        }
        // Both under one lock: an item that was pushed before the close is in the batch.
        let (batch, closed) = {
            let mut state = shared.state();
            (state.queue.take(), state.closed)
        };
        match batch {
            Some(batch) => {
                // Before the run: the next batch gathers while this one is in flight.
                shared.space.notify_one();
                run_one(shared.name, batch, &mut run).await;
                shared.state().queue.done();
            }
            None if closed => break,
            None => tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = shared.work.notified() => {}
            },
        }
    }
    shared.flushed.cancel();
    // A task of a scope must not end before its stage.
    stop.cancelled().await;
}

async fn run_one<T, R, F, Fut>(name: &'static str, batch: Vec<Submission<T, R>>, run: &mut F)
where
    F: FnMut(Vec<T>) -> Fut,
    Fut: Future<Output = Vec<R>>,
{
    let (items, answers): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|entry| (entry.item, entry.answer)).unzip();
    // The call itself may panic too, before it gives a future.
    let results = AssertUnwindSafe(async { run(items).await }).catch_unwind().await;
    match results {
        Ok(results) if results.len() == answers.len() => {
            for (answer, result) in answers.into_iter().zip(results) {
                // A submitter that has gone away wants no result.
                let _ = answer.map(|answer| answer.send(result));
            }
        }
        Ok(results) => tracing::error!(
            batcher = name,
            items = answers.len(),
            results = results.len(),
            "A batch returned the wrong number of results; all are treated as lost."
        ),
        Err(_) => {
            tracing::error!(batcher = name, items = answers.len(), "A batch panicked; its results are lost.")
        }
    }
}
