//! What a task may end with, and how its panics become values.
//!
//! Starts nothing: [`Scope`](crate::Scope) does.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::causes::error_chain;

/// Any error, as hooks and tasks return it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What a task may return: nothing, a `Result`, or never.
pub trait TaskResult {
    /// Turns what a task returned into a `Result`.
    ///
    /// # Errors
    /// Those of the task.
    fn into_result(self) -> Result<(), BoxError>;
}

impl TaskResult for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError>> TaskResult for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

/// The type of an endless `loop`, which has no name on stable Rust but can be got hold of.
type Never = <fn() -> ! as Returns>::Output;

/// A function pointer's return type, by which [`Never`] is got hold of. Public only because it is part of it.
pub trait Returns {
    /// What it returns.
    type Output;
}

impl<T> Returns for fn() -> T {
    type Output = T;
}

impl TaskResult for Never {
    fn into_result(self) -> Result<(), BoxError> {
        self
    }
}

/// How a task ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The task returned.
    Done,
    /// It returned an error.
    Failed(String),
    /// The task panicked, with this text.
    Panicked(String),
    /// It was dropped before it ended: aborted, or its runtime is gone.
    Dropped,
}

/// Runs a future to its end, whatever that is.
pub(crate) async fn outcome<F>(future: F) -> End
where
    F: Future<Output: TaskResult>,
{
    let mut future = pin!(future);
    poll_fn(|cx| {
        // Unwind safety: after a panic the future is only dropped, never polled again.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(result)) => Poll::Ready(match result.into_result() {
                Ok(()) => End::Done,
                Err(error) => End::Failed(error_chain(error.as_ref())),
            }),
            Err(panic) => Poll::Ready(End::Panicked(message(panic.as_ref()))),
        }
    })
    .await
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}
