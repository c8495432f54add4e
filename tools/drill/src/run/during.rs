//! Something else that happens under the load of a calm run: when it may begin, when it is over, and what it did, in the
//! words of faults, so that silences and exit codes are judged as theirs are. Does nothing itself.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use sluice_judge::record::FaultRecord;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::fault::{STOP_BUDGET, exit_of};
use crate::target::Ended;

/// What happens meanwhile.
#[derive(Debug, Default)]
pub struct During {
    /// Cancelled by the run: the load is steady.
    pub steady: CancellationToken,
    /// The load goes on until this is cancelled.
    pub over: CancellationToken,
    interventions: Mutex<Vec<Intervention>>,
}

/// Something that was done to a process.
#[derive(Debug, Clone)]
pub struct Intervention {
    /// Its kind: `term gateway`.
    pub kind: String,
    /// Who.
    pub target: String,
    /// When it began.
    pub began: Instant,
    /// When everything was whole again.
    pub healed: Instant,
    /// How the process ended, when it did.
    pub exit: Option<Ended>,
}

impl During {
    /// Something was done, and is over.
    pub fn did(&self, intervention: Intervention) {
        self.interventions.lock().unwrap_or_else(PoisonError::into_inner).push(intervention);
    }

    /// For the record.
    pub(super) fn faults(&self, clock: Clock) -> Vec<FaultRecord> {
        let interventions = self.interventions.lock().unwrap_or_else(PoisonError::into_inner);
        (1..)
            .zip(interventions.iter())
            .map(|(round, intervention)| intervention.fault(round, clock))
            .collect()
    }
}

impl Intervention {
    fn fault(&self, round: u32, clock: Clock) -> FaultRecord {
        let at_us = |when: Instant| {
            // The run's clock began at another instant than this one, so both are counted back from now.
            let ago = u64::try_from(when.elapsed().as_micros()).unwrap_or(u64::MAX);
            clock.now_us().saturating_sub(ago)
        };
        FaultRecord {
            round,
            kind: self.kind.clone(),
            target: self.target.clone(),
            began_us: at_us(self.began),
            healed_us: at_us(self.healed),
            // Whoever did it from outside saw it happen; what did not is no intervention.
            hit: true,
            exit: self.exit.as_ref().and_then(|ended| exit_of(ended, STOP_BUDGET)),
            copied_us: None,
            note: String::new(),
        }
    }
}
