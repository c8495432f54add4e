//! The worker's end of the pipe: commands in as events of the poll, answers out. The end of input ends the worker.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use anyhow::{Context, bail};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use serde::Serialize;

use crate::spec::{Command, Job};

/// Keys above every connection's.
pub(crate) const INPUT: usize = usize::MAX - 1;
pub(crate) const TICK: usize = usize::MAX - 2;

/// Ticks come no more often; what is due by then is done together.
const TICK_MIN: Duration = Duration::from_micros(100);

/// Standard input, unbuffered, and what has been read of the next line.
pub(crate) struct Control {
    input: File,
    line: Vec<u8>,
}

impl Control {
    /// Takes standard input and reads the job.
    pub(crate) fn open() -> anyhow::Result<(Self, Job)> {
        let input = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        let mut control = Self { input, line: Vec::new() };
        // Blocking is fine here: without a job there is nothing to poll for.
        while !control.line.contains(&b'\n') {
            if control.fill()? == 0 {
                bail!("standard input ended before the job");
            }
        }
        let job = control.next_line().context("no job")?;
        Ok((control, serde_json::from_slice(&job)?))
    }

    /// Makes commands wake this poll.
    pub(crate) fn register(&self, registry: &Registry) -> std::io::Result<()> {
        registry.register(&mut SourceFd(&self.input.as_raw_fd()), Token(INPUT), Interest::READABLE)
    }

    /// What was said, after the poll named [`INPUT`]; `None` when the input has ended.
    pub(crate) fn commands(&mut self) -> anyhow::Result<Option<Vec<Command>>> {
        // The end of input is the parent's end, or its wish: no worker outlives its measurement.
        if self.fill()? == 0 {
            return Ok(None);
        }
        let mut commands = Vec::new();
        while let Some(line) = self.next_line() {
            commands.push(serde_json::from_slice(&line)?);
        }
        Ok(Some(commands))
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut bytes = [0; 4096];
        let count = self.input.read(&mut bytes)?;
        self.line.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.line.iter().position(|byte| *byte == b'\n')?;
        Some(self.line.drain(..=end).collect())
    }
}

/// Answers the measuring process.
pub(crate) fn say(answer: &impl Serialize) -> std::io::Result<()> {
    // One write with its newline: the parent reads by lines.
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// A timer for an open loop of `per_s` events a second: finer than the milliseconds of a poll.
pub(crate) fn ticker(registry: &Registry, per_s: u32) -> std::io::Result<TimerFd> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
    let every = Duration::from_secs(1).checked_div(per_s).unwrap_or(TICK_MIN).max(TICK_MIN);
    timer.set(Expiration::Interval(TimeSpec::from(every)), TimerSetTimeFlags::empty())?;
    registry.register(&mut SourceFd(&timer.as_fd().as_raw_fd()), Token(TICK), Interest::READABLE)?;
    Ok(timer)
}
