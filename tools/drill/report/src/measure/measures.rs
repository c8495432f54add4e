//! What a measurement says, as data. It computes nothing.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sluice_judge::record::FaultRecord;

use super::spread::Spread;

/// Most points that a line over time has.
pub const POINTS_MAX: usize = 1_000;

/// Why a folder could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The folder is not one of a run, or a file in it cannot be read.
    #[error("cannot read {path}: {source}; give the folder that a drill wrote, the one with run.json in it")]
    Read {
        /// What was opened.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `run.json` is not what a drill writes.
    #[error("{path} is not what this version writes: {source}; run the drill again")]
    Json {
        /// Which file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// Every folder needs its own verdict.
    #[error("{folders} folders but {verdicts} verdicts: give one verdict for each folder, in the same order")]
    Unpaired {
        /// Folders given.
        folders: usize,
        /// Verdicts given.
        verdicts: usize,
    },
}

/// One run, as people are told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFacts {
    /// The command line.
    pub command: String,
    /// Scenario.
    pub scenario: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Commit or version of what was drilled.
    pub build: String,
    /// When it began, milliseconds since 1970.
    pub started_ms: u64,
    /// Clients asked for.
    pub clients: u32,
    /// Publishes a second asked for.
    pub rate_per_s: u32,
    /// Where it begins on the common axis: runs are laid one after another.
    pub offset_us: u64,
    /// How long it lasted.
    pub length_us: u64,
    /// It was interrupted.
    pub interrupted: bool,
}

impl RunFacts {
    /// Whether both are parts of one run: asked for in the same words, with the same seed.
    #[must_use]
    pub fn is_of_same_run(&self, other: &Self) -> bool {
        (&self.command, self.seed, &self.build) == (&other.command, other.seed, &other.build)
    }
}

/// Sums over all runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Runs.
    pub runs: u64,
    /// Their seeds, each once.
    pub seeds: Vec<u64>,
    /// Faults under load, whether or not they hit.
    pub faults: u64,
    /// Those that hit.
    pub hit: u64,
    /// Messages published; a resend is none.
    pub publishes: u64,
    /// Answered `ok`.
    pub acked: u64,
    /// Deliveries.
    pub deliveries: u64,
    /// Anomalies, also those that the verdict counts but does not list.
    pub anomalies: u64,
}

/// Anomalies by what they mean to people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// An accepted message or a delivery is missing.
    pub lost: u64,
    /// Stored or delivered twice.
    pub duplicated: u64,
    /// Out of order.
    pub reordered: u64,
    /// Everything else.
    pub other: u64,
}

/// What one kind of fault did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindMeasure {
    /// The kind: `term gateway`.
    pub kind: String,
    /// How often it was done.
    pub faults: u64,
    /// How often it hit.
    pub hit: u64,
    /// Anomalies that showed after such a fault and before the next.
    pub broken: Broken,
    /// How long processes took to end.
    pub exit: Option<Spread>,
    /// Longest silence in the beacon room, over clients × faults that hit.
    pub silence: Option<Spread>,
    /// `term gateway`: the same less the `reconnect_ms` that the client was told, of clients that were told one.
    pub beyond_told: Option<Spread>,
    /// `kill gateway`: from the end of the connection, as the client saw it, to its next beacon.
    pub after_notice: Option<Spread>,
    /// The crowd: from the end of a connection until the client has all its rooms and everything in them.
    pub away: Option<Spread>,
    /// The same less the `reconnect_ms` that the client was told, of clients that were told one.
    pub away_beyond_told: Option<Spread>,
}

/// Latencies of the publishes of one stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Where the stretch begins on the common axis.
    pub at_us: u64,
    /// Publishes first sent in it that were answered `ok`.
    pub n: u64,
    /// Median.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Longest.
    pub max_us: u64,
}

/// Connections of one gateway over time, on the common axis.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionCounts {
    /// Its place: `gateway-1`.
    pub gateway: String,
    /// For each run, when (µs) and how many.
    pub runs: Vec<Vec<(u64, u64)>>,
}

/// How long the processes of one service took to end when they were asked to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitTimes {
    /// Service.
    pub service: String,
    /// From the signal to the end.
    pub took: Spread,
    /// Longest it may take.
    pub budget_us: u64,
}

/// Everything measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// The runs, in the order given.
    pub parts: Vec<RunFacts>,
    /// Sums.
    pub totals: Totals,
    /// By kind of fault, in order of name.
    pub kinds: Vec<KindMeasure>,
    /// Anomalies that showed before any fault or only at the end.
    pub elsewhere: Broken,
    /// Anomalies that verdicts count but do not list: of no known kind or time.
    pub unlisted: u64,
    /// Longest silence while nothing was done to anything, over clients × windows as long as those of faults.
    pub steady: Option<Spread>,
    /// First send to `ok`.
    pub publish: Option<Spread>,
    /// First send to delivery at somebody else.
    pub delivery: Option<Spread>,
    /// Delivery latency was taken of one message in so many.
    pub delivery_one_in: u64,
    /// Publish latency over time, stretches of `step_us`; those without an answered publish are left out.
    pub over_time: Vec<Latency>,
    /// Length of those stretches: one second, more for long runs.
    pub step_us: u64,
    /// Connections over time.
    pub connections: Vec<ConnectionCounts>,
    /// All faults, in order, on the common axis.
    pub faults: Vec<FaultRecord>,
    /// Ends of processes that were asked to end.
    pub exits: Vec<ExitTimes>,
    /// The product's targets.
    pub targets: Vec<TargetResult>,
    /// Lines of the records that could not be read; a run that was cut off leaves some.
    pub unread_lines: u64,
}

/// One target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetResult {
    /// What is bounded.
    pub what: String,
    /// The bound; `None` = it depends on something that was not measured.
    pub limit_us: Option<u64>,
    /// What was seen; `None` = nothing was measured.
    pub seen_us: Option<u64>,
    /// Of how many values.
    pub n: u64,
}
