//! The load driver that the bench and the drill share: many WebSocket clients on one thread and one poll, each as small
//! as its protocol allows. It speaks the wire by its description and shares no code with the client library; it judges
//! nothing.
//!
//! Callers of an HTTP API are sockets of it too ([`http`]). [`Driver`] owns sockets, [`Crowd`] is clients that resume on it, [`habit`] is clients that nobody wants.

pub mod comeback;
pub mod crowd;
pub mod destination;
pub mod dial;
pub mod driver;
pub mod frame;
pub mod habit;
pub mod http;
pub mod samples;
pub mod server_frame;
pub mod socket;
mod transport;

pub use crowd::Crowd;
pub use destination::Destination;
pub use driver::Driver;
