//! Traces: one publish is one trace, from the frame to the subscribers.
//!
//! A span ends when its last copy is dropped; ended ones go to a collector over OTLP. Whether a publish is traced is decided
//! once, where it comes in; what is not costs a comparison and nothing on its way. Without the feature `otel` every type here
//! is empty. Never waits for a collector: what it does not take is dropped and counted.

#[cfg(feature = "otel")]
mod export;
#[cfg(not(feature = "otel"))]
mod off;
#[cfg(feature = "otel")]
mod parent;
mod settings;
#[cfg(feature = "otel")]
mod span;
#[cfg(feature = "otel")]
mod tracer;

#[cfg(not(feature = "otel"))]
pub use self::off::{Parent, Span, Spans, Tracer};
#[cfg(feature = "otel")]
pub use self::parent::Parent;
pub use self::settings::Trace;
#[cfg(feature = "otel")]
pub use self::span::{Span, Spans};
#[cfg(feature = "otel")]
pub use self::tracer::Tracer;

/// The header, and the key of gRPC metadata, that names the span of whoever calls (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";

/// The attribute with the room of a message.
pub const ROOM: &str = "messaging.destination.name";
/// The attribute with the position of a message in its room.
pub const SEQ: &str = "sluice.seq";

/// The part a span has in what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Somebody asked for it.
    Server,
    /// Asks somebody else for it.
    Client,
    /// Hands a message over, to be taken later.
    Producer,
    /// Takes one that was handed over.
    Consumer,
}
