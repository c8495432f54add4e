//! The gateway: holds client sockets. No business rules, no durable state: everything it knows can be
//! rebuilt. It speaks gRPC and etcd only, never SQL, Redis or NATS.

pub mod exchange;
pub mod room;
pub mod session;
pub mod subscription;
pub mod uplink;
pub mod view;
