//! What every Sluice service stands on: configuration, telemetry, metrics, the admin page, gRPC with our
//! deadlines, natural batching, the wall clock. Knows no rooms, no messages and no service by name.

pub mod batcher;
pub mod clock;
