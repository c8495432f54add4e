//! How a process lives and, above all, how it stops: in named stages, each with a deadline, inside one budget.
//!
//! Depends on tokio, tokio-util and tracing only. Knows nothing of sockets, stores or configuration.

mod engine;
mod gate;
mod lifecycle;
mod plan;
mod pool;
mod report;
mod scope;
mod signals;
mod stage;
mod task;
mod wait;
mod watchdog;

pub use engine::Engine;
pub use gate::{Gate, GateGuard};
pub use lifecycle::Lifecycle;
pub use plan::{Plan, PlanError, StagePlan, TOTAL_DEFAULT};
pub use report::{Outcome, Progress, Report, StageReport, StopReason};
pub use scope::{Scope, TaskGuard};
pub use signals::Signals;
pub use stage::{Stage, State};
pub use task::{BoxError, TaskResult};
pub use wait::{Late, bounded};
pub use watchdog::{WATCHDOG_MARGIN, Watchdog};
