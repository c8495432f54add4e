//! Bad neighbours of the clients of a run, each on a thread of its own, at the first gateway. They write nothing down:
//! what they do to others is in the records of the others, and their names are in that of the run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::Context;
use sluice_load::dial::raise_file_limit;
use sluice_load::habit::{self, Habit, Totals};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Options;
use super::token::token;
use crate::load::destination;
use crate::target::Target;

/// What the names of a habit's rooms and users begin with.
fn tag(seed: u64, habit: &str) -> String {
    format!("bad-{seed}-{habit}")
}

/// The same of all habits that are asked for, for the judge.
pub(super) fn tags(options: &Options, seed: u64) -> Vec<String> {
    options.habits.iter().map(|habit| tag(seed, habit)).collect()
}

/// Those that run.
pub(super) struct Neighbours {
    stop: Arc<AtomicBool>,
    running: Vec<(Habit, JoinHandle<std::io::Result<Totals>>)>,
}

impl Neighbours {
    /// Returns when each has what it needs, and begins.
    pub(super) async fn begin(options: &Options, target: &Target, seed: u64) -> anyhow::Result<Self> {
        let mut neighbours = Self { stop: Arc::default(), running: Vec::new() };
        if options.habits.is_empty() {
            return Ok(neighbours);
        }
        raise_file_limit()?;
        let url = target.endpoints().into_iter().next().context("there is no gateway")?;
        for habit in options.habits.iter().filter_map(|name| Habit::named(name)) {
            let (stop, secret) = (Arc::clone(&neighbours.stop), target.token_secret().to_owned());
            let (to, tag) = (destination(&url, &options.given.trust)?, tag(seed, habit.name));
            let (ready, prepared) = oneshot::channel();
            let live = move || {
                let token = Box::new(move |user: &str| token(&secret, user));
                let target = habit::Target { to, tag, token };
                let running = habit.prepare(&target)?;
                ready.send(()).ok(); // nobody waits any more: the run is over
                running.run(&target, || stop.load(Relaxed))
            };
            neighbours.running.push((habit, spawn_blocking(live)));
            prepared.await.ok(); // it failed, and says why at the end
        }
        Ok(neighbours)
    }

    /// All leave; what each did, in words.
    pub(super) async fn end(self) -> Vec<String> {
        self.stop.store(true, Relaxed);
        let mut said = Vec::new();
        for (habit, running) in self.running {
            said.push(match running.await {
                Ok(Ok(totals)) => format!(
                    "neighbour {}: {} connections, {} ended by the server, {} frames, {} MB",
                    habit.name,
                    totals.dialled,
                    totals.ended,
                    totals.frames,
                    totals.written / 1_000_000
                ),
                Ok(Err(error)) => format!("neighbour {} FAILED: {error}", habit.name),
                Err(error) => format!("neighbour {} FAILED: {error}", habit.name),
            });
        }
        said
    }
}
