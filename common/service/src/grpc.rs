//! gRPC between the services with our deadlines: [`server`] and [`channels`], and [`peers`], who is
//! connected. Knows no method; trusts no library's graceful shutdown to end.

pub mod access;
pub mod channels;
mod complaints;
pub mod health;
mod io;
pub mod peers;
pub mod server;
mod strangers;

use std::time::Duration;

use sluice_proto::ids::InstanceId;
use tonic::metadata::MetadataMap;

/// Metadata key of the caller's instance id, on every call.
pub const INSTANCE_HEADER: &str = "x-sluice-instance";
/// Metadata key that says, with the value `1`, that the caller drains.
pub const DRAINING_HEADER: &str = "x-sluice-draining";
/// Metadata key of every answer: the wall clock of who answers, milliseconds since 1970.
pub const TIME_HEADER: &str = "x-sluice-time-ms";
/// An HTTP/2 ping is sent this often, also on idle connections, by both ends.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// A connection whose ping is unanswered for this long is dead: 4 s to notice a half-open one.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection must be made within this; an address that swallows SYNs must not hold a call.
pub const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// A TLS handshake must be over within this after accept: a service that dials has given up after [`CONNECT_WITHIN`].
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(1);
/// Connections of one address that have not yet ended the handshake, or not said the preface: a service has one or two
/// in hand, and many behind one address come back after a rest.
pub const STRANGERS_PER_ADDRESS_MAX: usize = 64;
/// The client's HTTP/2 preface must have arrived within this after accept.
pub const PREFACE_WITHIN: Duration = Duration::from_secs(5);

/// The wall clock of who answered, if it said so.
#[must_use]
pub fn time_of(metadata: &MetadataMap) -> Option<i64> {
    metadata.get(TIME_HEADER)?.to_str().ok()?.parse().ok()
}

/// The instance that made this call, if it said so.
#[must_use]
pub fn caller_of(metadata: &MetadataMap) -> Option<InstanceId> {
    metadata.get(INSTANCE_HEADER)?.to_str().ok().and_then(|text| InstanceId::parse(text).ok())
}
