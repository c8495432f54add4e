//! A session: a client's life on this gateway. Who it is, what it may do, and when it has to leave.
//!
//! [`machine::Session`] is the pure machine. It owns no socket, no queue and no clock.

pub mod event;
pub mod grants;
pub mod info;
pub mod machine;
pub mod outbound;
pub mod todo;
