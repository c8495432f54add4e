//! docs/metrics.md names every metric of every service, and no other: it is generated from the registries.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sluice_cluster::solo::SoloRegistry;
use sluice_cluster::{Cluster, Registration, Service};
use sluice_lifecycle::{Lifecycle, Stage};
use sluice_service::admin::AdminPages;
use sluice_service::clock::skew::Clocks;
use sluice_service::metrics::{Descriptor, Registry};
use sluice_service::tls::expiry::measure;

const INTRODUCTION: &str = "# Metrics

Each service answers `GET /metrics` on its admin port in the OpenMetrics format. A counter only grows, and begins at 0 \
with each start; a histogram has `_bucket`, `_sum` and `_count`. No user and no room is ever a label. What to alert \
on is in [operations.md](operations.md#alerts), what the latencies mean in [dashboards.md](dashboards.md).

This page is generated: `UPDATE_DOCS=1 cargo nextest run -p sluice-dev -E 'test(metrics)'`.
";

/// What the services register at their start.
fn registries() -> [(&'static str, Registry); 3] {
    let services = ["gateway", "logic", "task"].map(|service| (service, Registry::new(service)));
    let _ = sluice_gateway::metrics::Metrics::new(&services[0].1);
    let _ = sluice_logic::metrics::Metrics::register(&services[1].1);
    let _ = sluice_task::metrics::Metrics::register(&services[2].1);
    for (_, registry) in &services[..2] {
        let _ = Clocks::new(registry, Duration::ZERO);
    }
    for (service, registry) in &services {
        measure(None, registry);
        let (lifecycle, _engine) = Lifecycle::new(sluice_dev::plan());
        sluice_operator::register_metrics(registry, member(&lifecycle));
        drop(AdminPages::new(service, lifecycle, registry.clone()));
    }
    services
}

/// Of a cluster of its own.
fn member(lifecycle: &Lifecycle) -> Arc<dyn Cluster> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let (service, address, version) = (Service::Task, "a:1".to_owned(), String::new());
    let registration = Registration { service, address, url: None, version };
    let scope = lifecycle.scope(Stage::Gone);
    Arc::new(SoloRegistry::new(Duration::from_secs(10)).join(&scope, registration, BTreeSet::new()))
}

/// The base unit is the last word of a name.
fn unit(descriptor: &Descriptor) -> &'static str {
    let name = descriptor.name.trim_end_matches("_total");
    if name.ends_with("_seconds") {
        "seconds"
    } else if name.ends_with("_bytes") {
        "bytes"
    } else if descriptor.help.starts_with("1 ")
        || descriptor.help.contains(": 1 ")
        || descriptor.kind == "info"
    {
        "0 or 1"
    } else {
        "number"
    }
}

/// Paragraphs of the introduction are wrapped as all documents are.
fn page() -> String {
    let mut page = String::new();
    for line in INTRODUCTION.lines() {
        let mut column = 0;
        for (n, word) in line.split(' ').enumerate() {
            let length = word.chars().count();
            if n > 0 && column + 1 + length > 100 {
                page.push('\n');
                column = 0;
            } else if n > 0 {
                page.push(' ');
                column += 1;
            }
            page.push_str(word);
            column += length;
        }
        page.push('\n');
    }
    for (service, registry) in registries() {
        write!(page, "\n## {service}\n\n| Metric | Type | Unit | Meaning |\n|---|---|---|---|\n").unwrap();
        for descriptor in registry.descriptors() {
            let Descriptor { name, kind, help } = &descriptor;
            writeln!(page, "| `{name}` | {kind} | {} | {help} |", unit(&descriptor)).unwrap();
        }
    }
    page
}

#[test]
fn the_page_of_metrics_is_complete_and_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let (made, kept) = (page(), std::fs::read_to_string(&path).unwrap_or_default());
    if std::env::var_os("UPDATE_DOCS").is_some() && made != kept {
        std::fs::write(&path, &made).unwrap();
        return;
    }
    assert_eq!(made, kept, "docs/metrics.md is not what the services register: UPDATE_DOCS=1 writes it anew");
}

#[test]
fn what_is_scraped_is_described() {
    for (service, registry) in registries() {
        let text = registry.encode();
        let described: Vec<String> = registry.descriptors().into_iter().map(|one| one.name).collect();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            let suffix = if kind == "counter" {
                "_total"
            } else if kind == "info" {
                "_info"
            } else {
                ""
            };
            assert!(described.contains(&format!("{name}{suffix}")), "{service}: {line} is not described");
        }
        let mut once = described.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), described.len(), "{service}: a metric is registered twice");
    }
}
