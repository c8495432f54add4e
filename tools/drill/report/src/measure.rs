//! What a drill measured: per kind of fault how long clients heard nothing, how long publishes took, how processes
//! ended. Reads the folders of runs once, line by line; judges nothing, and opens nothing but their files.

mod client;
mod comeback;
mod deliveries;
mod folder;
mod measures;
mod silence;
mod spread;
mod sums;
mod targets;
mod timeline;
mod windows;

use std::path::Path;

pub use measures::{
    Broken, ConnectionCounts, ExitTimes, KindMeasure, Latency, MeasureError, Measures, POINTS_MAX, RunFacts,
    TargetResult, Totals,
};
pub use spread::Spread;

use sluice_judge::verdict::Verdict;
use sums::MeasureSums;

/// Measures runs, the verdict of each beside its folder, as if they had been one.
///
/// # Errors
/// When a folder has no readable `run.json`, a file cannot be read, or the verdicts are not as many as the folders.
pub fn measure<P: AsRef<Path>>(dirs: &[P], verdicts: &[Verdict]) -> Result<Measures, MeasureError> {
    if dirs.len() != verdicts.len() {
        return Err(MeasureError::Unpaired { folders: dirs.len(), verdicts: verdicts.len() });
    }
    let mut unread = 0;
    let parts = dirs
        .iter()
        .map(|dir| folder::open(dir.as_ref(), &mut unread))
        .collect::<Result<Vec<_>, MeasureError>>()?;
    let mut sums = MeasureSums::new(&parts);
    for (part, verdict) in parts.iter().zip(verdicts) {
        sums.add(part, verdict)?;
    }
    let mut measures = sums.finish();
    measures.unread_lines += unread;
    Ok(measures)
}

#[cfg(test)]
pub(crate) mod synthetic;
#[cfg(test)]
mod tests;
