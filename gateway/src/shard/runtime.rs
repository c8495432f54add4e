//! The thread of a shard: its runtime, its queue, its timers. Ends at the stop token; whatever is still in
//! it is dropped then.

use std::io::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::task::Poll;
use std::thread;

use sluice_lifecycle::{Scope, TaskGuard};
use sluice_service::process::StartError;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::handle::Shards;
use super::inbox::Incoming;
use super::shared::Shared;
use super::{Cell, Shard};
use crate::address::ShardIx;
use crate::defaults::{INBOX_MESSAGES_MAX, INBOX_PER_TURN};
use crate::push::Missed;
use crate::status::Report;

/// What a shard's thread is started with.
#[derive(Debug)]
pub struct Start {
    /// Arc<Shared> by all shards.
    pub shared: Arc<Shared>,
    /// The reporter's queue.
    pub reporter: mpsc::Sender<Report>,
    /// Whether pushes may have been missed.
    pub missed: watch::Receiver<Missed>,
}

/// Starts `count` shards; each is a task of `scope` until its stage begins.
///
/// # Errors
/// [`StartError::System`] when the system refuses a thread or a runtime.
pub fn start(count: usize, scope: &Scope, start: impl Fn() -> Start) -> Result<Shards, StartError> {
    let (inboxes, queues): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(INBOX_MESSAGES_MAX)).unzip();
    let shards = Shards::new(inboxes);
    for (index, inbox) in queues.into_iter().enumerate() {
        let failed = |error: Error| Error::new(error.kind(), format!("cannot start shard {index}: {error}"));
        let (ready, result) = sync_channel(1);
        let thread = ShardThread {
            me: ShardIx::try_from(index).unwrap_or(ShardIx::MAX),
            start: start(),
            shards: shards.clone(),
            inbox,
            stop: scope.token(),
            guard: scope.track("shard"),
        };
        let builder = thread::Builder::new().name(format!("shard-{index}"));
        builder
            .spawn(move || match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    drop(ready.send(Ok(())));
                    LocalSet::new().block_on(&runtime, thread.run());
                }
                Err(error) => drop(ready.send(Err(error))),
            })
            .map_err(failed)?;
        result.recv().unwrap_or_else(|_| Err(Error::other("the thread died"))).map_err(failed)?;
    }
    Ok(shards)
}

struct ShardThread {
    me: ShardIx,
    start: Start,
    shards: Shards,
    inbox: mpsc::Receiver<Incoming>,
    stop: CancellationToken,
    guard: TaskGuard,
}

impl ShardThread {
    async fn run(self) {
        let Self { me, start: Start { shared, reporter, mut missed }, shards, mut inbox, stop, guard } = self;
        let cell = Shard::new(me, shared, &shards);
        start_tasks(&cell, reporter);
        let mut messages = Vec::with_capacity(INBOX_PER_TURN);
        let mut before = *missed.borrow_and_update();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Ok(()) = missed.changed() => {
                    let now = *missed.borrow_and_update();
                    cell.borrow_mut().missed(std::mem::replace(&mut before, now), now);
                }
                count = inbox.recv_many(&mut messages, INBOX_PER_TURN) => {
                    if count == 0 {
                        break;
                    }
                    let shard = &mut *cell.borrow_mut();
                    shard.check_freeze();
                    for message in messages.drain(..) {
                        shard.on_incoming(message);
                    }
                    shard.rearm();
                }
            }
        }
        cell.borrow_mut().count();
        drop(guard);
    }
}

fn start_tasks(cell: &Cell, reporter: mpsc::Sender<Report>) {
    let writer = Rc::clone(cell);
    drop(tokio::task::spawn_local(std::future::poll_fn(move |context| {
        writer.borrow_mut().write_all(context.waker());
        Poll::<()>::Pending
    })));
    drop(tokio::task::spawn_local(run_timers(Rc::clone(cell))));
    drop(tokio::task::spawn_local(forward_reports(Rc::clone(cell), reporter)));
}

/// Wakes the shard at its next deadline.
async fn run_timers(cell: Cell) {
    let earlier = Rc::clone(&cell.borrow().earlier);
    loop {
        let at = cell.borrow_mut().arm();
        tokio::select! {
            biased;
            () = sleep_until(at) => cell.borrow_mut().on_time(),
            () = earlier.notified() => {}
        }
    }
}

/// Hands what this shard has to tell to the reporter, in order, as it takes it.
async fn forward_reports(cell: Cell, reporter: mpsc::Sender<Report>) {
    let more = Rc::clone(&cell.borrow().reports.more);
    loop {
        let next = cell.borrow_mut().next_report();
        match next {
            Some(told) => {
                if reporter.send(told).await.is_err() {
                    return;
                }
            }
            None => more.notified().await,
        }
    }
}
