//! The thread of a shard: its runtime, its queue, its timers. Ends at the stop token; whatever is still in
//! it is dropped then.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::Error;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::task::Poll;
use std::thread;

use sluice_lifecycle::{Scope, TaskGuard};
use sluice_service::process::StartError;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::coop::unconstrained;
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::Shard;
use super::handle::Shards;
use super::inbox::Incoming;
use super::shared::Shared;
use super::sockets::{self, Sockets, WatchedPoll};
use super::turn::{Budget, ShardCell};
use crate::address::ShardIx;
use crate::defaults::{INBOX_MESSAGES_MAX, INBOX_PER_TURN};
use crate::repair::Missed;
use crate::status::Report;

/// What a shard's thread is started with.
#[derive(Debug)]
pub struct Start {
    /// What all shards share.
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
            .spawn(move || match Builder::new_current_thread().enable_all().build().and_then(with_sockets) {
                Ok((runtime, sockets)) => {
                    drop(ready.send(Ok(())));
                    LocalSet::new().block_on(&runtime, thread.run(sockets));
                }
                Err(error) => drop(ready.send(Err(error))),
            })
            .map_err(failed)?;
        // Waited for: a shard that cannot begin must fail the start, not its first client.
        result.recv().unwrap_or_else(|_| Err(Error::other("the thread died"))).map_err(failed)?;
    }
    Ok(shards)
}

fn with_sockets(runtime: Runtime) -> Result<(Runtime, (Sockets, WatchedPoll)), Error> {
    let sockets = {
        let _inside = runtime.enter();
        Sockets::new()?
    };
    Ok((runtime, sockets))
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
    async fn run(self, sockets: (Sockets, WatchedPoll)) {
        let Self { me, start: Start { shared, reporter, mut missed }, shards, mut inbox, stop, guard } = self;
        let (sockets, poll) = sockets;
        let cell = Shard::start(me, shared, &shards, sockets);
        start_tasks(&cell, reporter, poll);
        let mut received = Vec::with_capacity(INBOX_PER_TURN);
        let mut messages = VecDeque::with_capacity(INBOX_PER_TURN);
        let mut before = *missed.borrow_and_update();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Ok(()) = missed.changed() => {
                    let now = *missed.borrow_and_update();
                    let former = std::mem::replace(&mut before, now);
                    cell.turn(|shard| shard.missed(former, now));
                }
                // What the last turn had no time for goes before what is new; sockets had theirs between.
                () = yield_now(), if !messages.is_empty() => {
                    cell.turn(|shard| shard.take_incoming(&mut messages, Budget::begin()));
                }
                count = inbox.recv_many(&mut received, INBOX_PER_TURN), if messages.is_empty() => {
                    if count == 0 {
                        break;
                    }
                    messages.extend(received.drain(..));
                    cell.turn(|shard| shard.take_incoming(&mut messages, Budget::begin()));
                }
            }
        }
        cell.turn(|shard| {
            // The drain had no time for these, or was left out: the sockets close when the thread ends.
            shard.last_words();
            shard.count();
        });
        // After the last words: until here the stage waits for this thread.
        drop(guard);
    }
}

fn start_tasks(cell: &ShardCell, reporter: mpsc::Sender<Report>, poll: WatchedPoll) {
    let owner = cell.clone();
    drop(spawn_local(unconstrained(async move {
        if let Err(error) = sockets::run(owner, poll).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "This shard hears of no socket any more."
            );
        }
    })));
    let writer = cell.clone();
    drop(spawn_local(poll_fn(move |context| {
        writer.turn(|shard| shard.write_all(context.waker(), Budget::begin()));
        // Never ready: the first connection that has something to write wakes it.
        Poll::<()>::Pending
    })));
    drop(spawn_local(run_timers(cell.clone())));
    drop(spawn_local(forward_reports(cell.clone(), reporter)));
}

/// Wakes the shard at its next deadline.
async fn run_timers(cell: ShardCell) {
    let earlier = cell.turn(|shard| shard.timers.earlier());
    loop {
        let at = cell.turn(Shard::arm);
        tokio::select! {
            biased;
            () = sleep_until(at) => {
                while cell.turn(|shard| shard.on_time(Budget::begin())) {
                    // Sockets have their turn before the rest of what is due.
                    yield_now().await;
                }
            }
            () = earlier.notified() => {}
        }
    }
}

/// Hands what this shard has to tell to the reporter, in order, as it takes it.
async fn forward_reports(cell: ShardCell, reporter: mpsc::Sender<Report>) {
    let more = cell.turn(|shard| shard.reports.more());
    loop {
        let next = cell.turn(Shard::next_report);
        match next {
            Some(report) => {
                if reporter.send(report).await.is_err() {
                    return;
                }
            }
            None => more.notified().await,
        }
    }
}
