//! What every process has as metrics, read when they are asked for: stage, version, lines of the log that nobody took.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use sluice_lifecycle::{Lifecycle, Stage};

use crate::lines::Lines;
use crate::metrics::Registry;

/// Adds `…_stage{stage}` (1 for the current one, else 0), `…_build_info{version}` and `…_log_lines_dropped_total`.
pub(super) fn register(metrics: &Registry, lifecycle: Lifecycle) {
    metrics.with(|registry| {
        registry.register("build", "What is running", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register_collector(Box::new(Stages(lifecycle)));
        registry.register_collector(Box::new(LogLines));
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

/// Of the process, not of a service: several services in one process say the same.
#[derive(Debug)]
struct LogLines;

impl Collector for LogLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let dropped = ConstCounter::new(Lines::stderr().dropped());
        let help = "Lines of the log that nobody took";
        dropped.encode(encoder.encode_descriptor("log_lines_dropped", help, None, dropped.metric_type())?)
    }
}
