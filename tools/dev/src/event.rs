//! What a process tells about its services: who is ready, who has ended and how. It decides nothing.

use sluice_lifecycle::Report;

/// What happens while it runs.
#[derive(Debug, Clone)]
pub enum Event {
    /// A service is ready.
    Ready {
        /// Its place: `gateway-2`.
        name: String,
        /// How many it had there.
        life: u64,
    },
    /// A service has stopped: it is being restarted, or everything stops.
    Ended {
        /// Its place.
        name: String,
        /// Its stages.
        report: Report,
    },
}
