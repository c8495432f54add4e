//! The lifecycle as its users meet it: everything on a paused clock, but for the real processes in [`process`].
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod budget;
mod ends;
mod log;
mod matrix;
mod process;
mod runtimes;
mod start;

use std::time::Duration;

use sluice_lifecycle::{Plan, Stage};

/// What every stage of [`plan`] may take.
const STAGE: Duration = Duration::from_secs(1);

/// All six stages with a second each, in a total that has room for them.
fn plan() -> Plan {
    Stage::STOPPING
        .into_iter()
        .fold(Plan::new(Duration::from_secs(8)), |plan, stage| plan.stage(stage, STAGE))
}
