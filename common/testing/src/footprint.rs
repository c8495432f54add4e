//! What a process holds, as /proc says, and what is left of it when something in it has begun and ended again and again.
//! Linux only.

use std::fs;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

/// How often something is begun and ended, instead of what a run of all tests has time for.
const CYCLES: &str = "SLUICE_CYCLES";
/// Lives before the first look: what is made once for all is there then, pools of threads, arenas, tables of names.
const FIRST: usize = 5;
/// A thread of a pool that has no work ends after ten seconds.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// What an allocator keeps or gives back at its own will, however many lives there are.
const NOISE_BYTES: f64 = 12.0 * 1024.0 * 1024.0;

/// `SLUICE_CYCLES`, or as often as usual.
#[must_use]
pub fn cycles(usual: usize) -> usize {
    match std::env::var(CYCLES) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{CYCLES}={text} is no number")),
        Err(_) => usual,
    }
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Open files, connections among them.
    pub files: usize,
    /// Threads.
    pub threads: usize,
    /// Tasks of the runtime that asks; 0 for another process.
    pub tasks: usize,
    /// Memory in use.
    pub resident_bytes: u64,
}

impl Footprint {
    /// Of the process with this pid.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let entries = |what| fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.map_or(0, |line| line.trim().trim_end_matches(" kB").parse().unwrap());
        Self { files: entries("fd"), threads: entries("task"), tasks: 0, resident_bytes: kib * 1024 }
    }

    /// Of this process. Only in a runtime.
    #[must_use]
    pub fn here() -> Self {
        let tasks = Handle::current().metrics().num_alive_tasks();
        Self { tasks, ..Self::of(std::process::id()) }
    }

    /// Whether it holds no more than then, memory aside, and so many of each besides.
    #[must_use]
    pub const fn fits(&self, then: &Self, besides: usize) -> bool {
        self.files <= then.files + besides
            && self.threads <= then.threads + besides
            && self.tasks <= then.tasks + besides
    }
}

/// Lets `life` happen so often, one after the other, and holds this process to what it had after the first few: no
/// file, connection, thread or task more, and memory that does not grow. It says how much it grows. For a test that is
/// alone in its process.
pub async fn lives_leave_nothing(usual: usize, mut life: impl AsyncFnMut()) {
    for _ in 0..FIRST {
        life().await;
    }
    let before = Footprint::here();
    let mut resident = Vec::new();
    for _ in 0..cycles(usual) {
        life().await;
        resident.push(Footprint::here().resident_bytes as f64);
    }
    let until = Instant::now() + SETTLED_WITHIN;
    let mut after = Footprint::here();
    while !after.fits(&before, 0) && Instant::now() < until {
        sleep(Duration::from_millis(50)).await;
        after = Footprint::here();
    }
    let (lives, slope) = (resident.len(), slope(&resident));
    println!("{lives} lives: {before:?} before, {after:?} after, memory grows by {slope:.0} bytes a life");
    assert!(after.fits(&before, 0), "left open: {:?}", open_files());
    assert!(slope * (lives as f64) < NOISE_BYTES, "memory grows by {slope:.0} bytes a life: {resident:?}");
}

/// What the open files of this process are.
fn open_files() -> Vec<String> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.map(|target| target.display().to_string()).collect()
}

/// By how much the values grow from one to the next: of the line with the least squares. 0 for fewer than two.
fn slope(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let (middle, mean) = ((count - 1.0) / 2.0, values.iter().sum::<f64>() / count);
    let away = |at: usize| at as f64 - middle;
    let squares: f64 = (0..values.len()).map(|at| away(at) * away(at)).sum();
    let products: f64 = values.iter().enumerate().map(|(at, value)| away(at) * (value - mean)).sum();
    if squares == 0.0 { 0.0 } else { products / squares }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_that_of_the_line() {
        assert_eq!(slope(&[3.0, 5.0, 7.0, 9.0]), 2.0);
        assert_eq!(slope(&[1.0, 9.0, 1.0, 9.0, 1.0]), 0.0);
        assert_eq!((slope(&[]), slope(&[4.0])), (0.0, 0.0));
    }

    #[tokio::test]
    async fn files_and_tasks_are_seen() {
        let before = Footprint::here();
        assert!(before.files > 0 && before.threads > 0 && before.resident_bytes > 0, "{before:?}");
        let file = fs::File::open("/proc/self/status").unwrap();
        let task = tokio::task::JoinSet::from_iter([std::future::pending::<()>()]);
        let with = Footprint::here();
        assert_eq!((with.files, with.tasks), (before.files + 1, before.tasks + 1));
        assert!(!with.fits(&before, 0) && with.fits(&before, 1) && before.fits(&with, 0));
        drop((file, task));
    }

    #[tokio::test]
    #[should_panic(expected = "left open")]
    async fn what_a_life_leaves_open_is_found() {
        tokio::time::pause(); // nobody waits for what never comes
        let mut kept = Vec::new();
        lives_leave_nothing(3, async || kept.push(fs::File::open("/proc/self/status").unwrap())).await;
    }
}
