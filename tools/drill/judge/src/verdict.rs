//! What a judgement says. Plain data; people see it through the report.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What can be wrong, named as in the literature on histories where there is a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnomalyKind {
    /// Answered `ok`, not in the store (or another message, or another seq).
    LostWrite,
    /// The same message is stored twice, or was delivered twice to one subscription.
    Duplicate,
    /// Order of one sender, of a subscription, or real-time order is broken.
    Reordered,
    /// A subscription has a hole that nobody told of, or a subscriber never got what is there.
    Gap,
    /// Somebody saw what the store does not hold, or two saw different messages under one seq.
    Phantom,
    /// What was refused for good, or certainly not sent, is stored.
    RefusedStored,
    /// The store itself has a hole or an impossible head.
    StoreHole,
    /// The server promised a resumption it did not keep, or told of a skip that was none.
    Dishonest,
    /// A publish was never resolved although its client went on asking, or `bye` was said before its outcome.
    Unresolved,
    /// A `sub` had no answer for long although nothing was broken.
    Starved,
    /// A delayed message was published before it was due.
    Early,
    /// A delayed message was published too long after it was due.
    Late,
    /// Who was disconnected kept a connection, or came in by a token that was revoked.
    Unrevoked,
    /// A process ended with the wrong exit code, or too late.
    BadExit,
    /// A client was closed without being told why during an ordered stop.
    Untold,
    /// Presence says something else than what is open.
    PresenceWrong,
    /// Somebody was told of a leave although nobody was away for so long.
    FalseLeave,
    /// Something was left behind at rest.
    Leak,
}

impl AnomalyKind {
    /// The name in tables: `lost-write`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LostWrite => "lost-write",
            Self::Duplicate => "duplicate",
            Self::Reordered => "reordered",
            Self::Gap => "gap",
            Self::Phantom => "phantom",
            Self::RefusedStored => "refused-stored",
            Self::StoreHole => "store-hole",
            Self::Dishonest => "dishonest",
            Self::Unresolved => "unresolved",
            Self::Starved => "starved",
            Self::Early => "early",
            Self::Late => "late",
            Self::Unrevoked => "unrevoked",
            Self::BadExit => "bad-exit",
            Self::Untold => "untold",
            Self::PresenceWrong => "presence-wrong",
            Self::FalseLeave => "false-leave",
            Self::Leak => "leak",
        }
    }
}

impl fmt::Display for AnomalyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anomaly {
    /// What.
    pub kind: AnomalyKind,
    /// When it showed, microseconds of the run's clock; 0 = only at the end.
    pub at_us: u64,
    /// Where, when it is about a room.
    pub room: Option<String>,
    /// At which client.
    pub client: Option<u32>,
    /// One sentence with names and numbers.
    pub text: String,
    /// The smallest slice of history that shows it: record lines, oldest first, not more than 40.
    pub slice: Vec<String>,
    /// Log lines of the processes around that time, not more than 40.
    pub logs: Vec<String>,
}

/// How much was judged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Clients in the records.
    pub clients: u64,
    /// Messages sent, resends not counted.
    pub sent: u64,
    /// Answered `ok`.
    pub acked: u64,
    /// Refused for good.
    pub refused: u64,
    /// Given up without an answer.
    pub unknown: u64,
    /// Deliveries.
    pub delivered: u64,
    /// `skipped` frames and `recovered:false`.
    pub honest_gaps: u64,
    /// Rows in the store.
    pub stored: u64,
    /// Faults that hit.
    pub faults: u64,
    /// Connections made.
    pub connections: u64,
}

/// The judgement of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What is wrong; empty is good. Not more than 200 are kept.
    pub anomalies: Vec<Anomaly>,
    /// How many there were in all.
    pub anomalies_total: u64,
    /// Why nothing can be concluded, if so: the load was not real, a fault hit nothing.
    pub inconclusive: Vec<String>,
    /// What was judged.
    pub counts: Counts,
}

impl Verdict {
    /// Whether the run proves something good: judged in full, nothing wrong.
    #[must_use]
    pub fn is_green(&self) -> bool {
        self.anomalies_total == 0 && self.inconclusive.is_empty()
    }
}
