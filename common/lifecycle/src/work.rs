//! What a process does, in numbers under names that all services share. Values only.

/// Work since the start of the process. What a unit of it is, a publish or a notice, is the service's to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Taken and without an outcome.
    pub in_flight: u64,
    /// Taken, whatever became of it.
    pub accepted: u64,
    /// Done.
    pub completed: u64,
    /// Refused for good.
    pub rejected: u64,
    /// Given up: somebody has to ask for it again.
    pub cancelled: u64,
}

impl Work {
    /// Whether something is under way.
    #[must_use]
    pub const fn is_processing(&self) -> bool {
        self.in_flight > 0
    }

    /// What has got its final outcome, `processed_count` in the log and on status pages.
    #[must_use]
    pub const fn processed(&self) -> u64 {
        self.completed.saturating_add(self.rejected)
    }

    /// The sums, by name.
    pub(crate) const fn sums(&self) -> [(&'static str, u64); 4] {
        [
            ("accepted", self.accepted),
            ("completed", self.completed),
            ("rejected", self.rejected),
            ("cancelled", self.cancelled),
        ]
    }
}
