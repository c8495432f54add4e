//! The stage and the version as metrics, read from the lifecycle when they are asked for.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use sluice_lifecycle::{Lifecycle, Stage};

use crate::metrics::Registry;

/// Adds `…_stage{stage}` (1 for the current one, else 0) and `…_build_info{version}`.
pub(super) fn register(metrics: &Registry, lifecycle: Lifecycle) {
    metrics.with(|registry| {
        registry.register("build", "What is running", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register_collector(Box::new(Stages(lifecycle)));
    });
}

struct Stages(Lifecycle);

impl Collector for Stages {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = self.0.stage();
        let help = "Where this process stands in its life";
        let kind = ConstGauge::new(0_i64).metric_type();
        let mut family = encoder.encode_descriptor("stage", help, None, kind)?;
        for stage in Stage::ALL {
            let gauge = ConstGauge::new(i64::from(stage == now));
            gauge.encode(family.encode_family(&[("stage", stage.as_str())])?)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stages")
    }
}
