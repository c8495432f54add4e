//! Faults of log collectors: what reads the log of a service goes away or stands still, and the service is asked to stop.
//! A stop must not need anybody who reads.

use std::time::Duration;

use sluice_judge::record::FaultRecord;
use sluice_launcher::{LogReading, Signal};
use tokio::time::sleep;

use super::FaultInjector;
use super::process::add_note;
use crate::place::Role;
use crate::target::Target;

/// A service works for this long without a reader before it is asked to stop: it logs what clients do meanwhile.
const UNREAD: Duration = Duration::from_secs(2);

impl FaultInjector<'_> {
    /// The reader ends while the service works; of the one that follows it has ended before the first line. Both are
    /// asked to stop: two lines.
    pub(super) async fn log_gone(&mut self, role: Role) -> anyhow::Result<Vec<FaultRecord>> {
        let worked = "its log's reader had ended while it worked";
        let later = self.unread_stop(role, LogReading::Gone, worked, LogReading::Gone).await?;
        let started = "its log's reader was gone from its start";
        Ok(vec![later, self.unread_stop(role, LogReading::Gone, started, LogReading::Reads).await?])
    }

    /// The reader stands still, and the pipe is full.
    pub(super) async fn log_stuck(&mut self, role: Role) -> anyhow::Result<FaultRecord> {
        let note = "its log's reader stood still, the pipe was full";
        self.unread_stop(role, LogReading::Stuck, note, LogReading::Reads).await
    }

    /// `next`: how the log of the one that follows is read.
    async fn unread_stop(
        &mut self,
        role: Role,
        reading: LogReading,
        note: &str,
        next: LogReading,
    ) -> anyhow::Result<FaultRecord> {
        let (Target::Own(own), Some(place), Some(service)) = (self.target, self.pick(role), role.service())
        else {
            return Ok(self.begin(role));
        };
        own.cluster().set_log_reading(service, place.index, reading);
        sleep(UNREAD).await;
        let mut fault = self.begin(place);
        fault.hit = self.target.signal(place, Signal::SIGTERM).await;
        add_note(&mut fault, note);
        self.judge_end(&mut fault, place).await;
        // Before the start: the next process must find its log as it is to be.
        own.cluster().set_log_reading(service, place.index, next);
        self.target.start(place).await?;
        self.heal(&mut fault);
        Ok(fault)
    }
}
