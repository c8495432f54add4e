//! What can go wrong in a gateway as a process. What goes wrong for one client is told to that client.

/// Settings that contradict each other or make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigProblem {
    /// A close code that clients would misread.
    #[error(
        "drain.close_code is {0}; it must be 1001, 1008…1014 or 3000…4999, for example 1012 (1000 tells many clients not to come back)"
    )]
    CloseCode(u16),
    /// A number that must be at least 1.
    #[error("{0} is 0, it must be at least 1")]
    Zero(&'static str),
    /// The grace leaves no time to drain.
    #[error(
        "drain.accept_grace_ms is {grace_ms} and shutdown.total_ms {total_ms}: the total must be larger by at least 2000"
    )]
    Grace {
        /// `drain.accept_grace_ms`
        grace_ms: u64,
        /// `shutdown.total_ms`
        total_ms: u64,
    },
}

/// Why a gateway could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Settings that contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigProblem),
    /// An address could not be used.
    #[error("cannot listen on {address} (setting {setting}): {source}")]
    Listen {
        /// As configured.
        address: String,
        /// The key to change.
        setting: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A shard's thread or runtime did not start.
    #[error("cannot start shard {shard}: {source}")]
    Shard {
        /// Which.
        shard: usize,
        /// What the system said.
        source: std::io::Error,
    },
}
