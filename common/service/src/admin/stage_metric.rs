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

const BUILD_HELP: &str = "What is running, by version";
const STAGE_HELP: &str = "Where this process stands in its life: 1 for the current stage, by stage";
const LOG_LINES_HELP: &str = "Lines of the log that nobody took";

/// Adds `…_stage{stage}` (1 for the current one, else 0), `…_build_info{version}` and `…_log_lines_dropped_total`.
pub(super) fn register(metrics: &Registry, lifecycle: Lifecycle) {
    metrics.describe("build", "info", BUILD_HELP);
    metrics.describe("stage", "gauge", STAGE_HELP);
    metrics.describe("log_lines_dropped", "counter", LOG_LINES_HELP);
    metrics.with(|registry| {
        registry.register("build", BUILD_HELP, Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register_collector(Box::new(Stages(lifecycle)));
        registry.register_collector(Box::new(LogLines));
    });
}

struct Stages(Lifecycle);

impl Collector for Stages {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = self.0.stage();
        let kind = ConstGauge::new(0_i64).metric_type();
        let mut family = encoder.encode_descriptor("stage", STAGE_HELP, None, kind)?;
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
        let kind = dropped.metric_type();
        dropped.encode(encoder.encode_descriptor("log_lines_dropped", LOG_LINES_HELP, None, kind)?)
    }
}
