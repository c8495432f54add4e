//! The judge of a drill: reads what clients wrote down and what the store holds, and says what broke.
//!
//! [`check`] reads the folder of a run, [`judge`] is the pure part. Each promise is one small file below `rules`: a
//! function from the [`History`] to [findings](findings::Findings). Every finding carries the lines that show it.
//!
//! It is a crate of its own because it must not know the services, their protocol library or their client: whoever
//! judges depends on nothing that is judged. It opens files, never a connection.
//!
//! It is sound only if writers of records stamp honestly: a `send` *before* the bytes leave (for the library: before it
//! is handed over), everything that arrives *after* it arrived, all by one clock.

pub mod findings;
pub mod history;
mod logs;
mod read;
pub mod record;
mod rules;
pub mod verdict;

use std::path::Path;

pub use history::History;
pub use read::{ReadError, load};
pub use rules::judge;
use verdict::Verdict;

/// Judges the run whose records are in this folder, with the log lines around each anomaly.
///
/// # Errors
/// When a file cannot be read or is not what a drill writes: then nothing was judged.
pub fn check(dir: &Path) -> Result<Verdict, ReadError> {
    let history = load(dir)?;
    let mut verdict = judge(&history);
    logs::attach(&mut verdict, &dir.join("logs"), history.run.started_ms);
    Ok(verdict)
}
