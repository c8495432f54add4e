//! The standard gRPC health service of a whole process. Does not decide anything: the stages do.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

/// The name that stands for the whole process.
const WHOLE: &str = "";

/// Sets what the health service says; clones share it. Starts as not serving.
#[derive(Debug, Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// The handle, and the service to be added to the routes.
    pub async fn new() -> (Self, HealthServer<impl HealthService>) {
        let (reporter, service) = health_reporter();
        let health = Self(reporter);
        health.not_serving().await;
        (health, service)
    }

    /// Answers health checks with SERVING from now on.
    pub async fn serving(&self) {
        self.0.set_service_status(WHOLE, ServingStatus::Serving).await;
    }

    /// Says NOT_SERVING: first act of a stop.
    pub async fn not_serving(&self) {
        self.0.set_service_status(WHOLE, ServingStatus::NotServing).await;
    }

    /// Ends the streams of all who watch, so that none of them holds a connection open during a stop.
    pub async fn end_watches(&self) {
        self.0.clone().clear_service_status(WHOLE).await;
    }
}
