//! Doors before the members of groups: ports that everybody is told of instead of those they listen on, so that a member
//! can be cut off from all others while it lives. The launcher opens none itself.

use std::fmt::Debug;

use crate::service::Service;

/// Who opens doors.
pub trait Doors: Debug + Send + Sync {
    /// Opens one on loopback that leads to this port of a member, and says on which port it stands.
    ///
    /// # Errors
    /// What the system said.
    fn open(&self, service: Service, index: usize, port: u16) -> std::io::Result<u16>;
}
