//! Has those who watch rooms told who left them. Owned with the reaping: both are about who is gone.

use std::sync::Arc;

use sluice_cluster::Duty;
use sluice_proto::grpc::TellLeavesRequest;
use tokio_util::sync::CancellationToken;
use tonic::Response;

use super::Duties;
use crate::defaults::LEAVES_EVERY;

impl Duties {
    /// Looks twice a second whose grace is over, and again at once while there are more, until `stop`.
    pub async fn tell_leaves(self: Arc<Self>, stop: CancellationToken) {
        self.drive(Duty::Reap, LEAVES_EVERY, &stop, || self.tell_some_leaves(&stop)).await;
    }

    /// Never twice for one leave: what a call has taken is not there for the next, whoever makes it.
    async fn tell_some_leaves(&self, stop: &CancellationToken) -> bool {
        let told = self.call(0, stop, async |mut logic| {
            logic.tell_leaves(TellLeavesRequest {}).await.map(Response::into_inner)
        });
        told.await.is_some_and(|told| told.more)
    }
}
