//! Who may call what: by the service that the certificate at the other end names. Without TLS everybody may.

use std::net::{IpAddr, SocketAddr};

use tonic::Status;

use super::complaints::Complaints;
use crate::tls::{Identity, Reason, Role, Roles};

/// Paths of the standard health service, which every service may call.
const HEALTH: &str = "/grpc.health.";

/// The services that may call the method with this path.
pub type Allowed = fn(path: &str) -> &'static [Role];

/// How a server knows who is calling. The default lets everybody call everything.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Who we are; `None`: connections are not encrypted, and nobody has to say who they are.
    identity: Option<Identity>,
    /// Which services may call what.
    allowed: Option<Allowed>,
    refused: Complaints<(IpAddr, &'static str)>,
}

impl Access {
    /// With an identity, only those who are `allowed` may call; without, everybody.
    #[must_use]
    pub fn new(identity: Option<Identity>, allowed: Allowed) -> Self {
        Self { identity, allowed: Some(allowed), refused: Complaints::default() }
    }

    pub(super) const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Whether the services that a certificate names (`None` without TLS) may call this.
    pub(super) fn check(&self, roles: Option<&Roles>, path: &str, from: SocketAddr) -> Result<(), Status> {
        let (Some(roles), Some(allowed)) = (roles, self.allowed) else { return Ok(()) };
        let allowed = if path.starts_with(HEALTH) { &Role::ALL } else { allowed(path) };
        if roles.is_one_of(allowed) {
            return Ok(());
        }
        if let Some(times) = self.refused.say((from.ip(), "call")) {
            tracing::warn!(
                %from, %roles, path = %crate::untrusted::Untrusted(path), more_times = times,
                "A call was refused: the certificate at {from} is that of another service than may make it."
            );
        }
        Err(Status::permission_denied(format!("the certificate of a {roles} is not good for this call")))
    }

    /// A connection was not let in.
    pub(super) fn refuse(&self, reason: Reason, from: SocketAddr) {
        if let Some(times) = self.refused.say((from.ip(), reason.text())) {
            tracing::warn!(%from, more_times = times, "A peer at {from} was refused: {}.", reason.text());
        }
    }
}
