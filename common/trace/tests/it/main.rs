//! What a collector that does not take anything costs: spans, and a bounded part of a stop.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::time::Duration;

use sluice_lifecycle::{Lifecycle, Plan, Stage, StageOutcome, StopReason};
use sluice_service::metrics::Registry;
use sluice_trace::{Kind, Parent, Trace, Tracer};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// What stops wait for a collector, and what a busy machine adds.
const FLUSH_MAX: Duration = Duration::from_millis(300 + 1_500);
const PLENTY: Duration = Duration::from_secs(20);

fn all(endpoint: &str) -> Trace {
    Trace { endpoint: endpoint.to_owned(), sample: 1.0 }
}

fn number(registry: &Registry, name: &str) -> u64 {
    let text = registry.encode();
    let line = text.lines().find(|line| line.starts_with(&format!("sluice_test_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_frozen_collector_costs_spans_and_a_bounded_part_of_a_stop() {
    // Connections are made by the kernel; nobody ever reads from one.
    let frozen = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", frozen.local_addr().unwrap());
    let (lifecycle, engine) = Lifecycle::new(Plan::new(PLENTY).stage(Stage::Release, PLENTY));
    let registry = Registry::new("test");
    let tracer =
        Tracer::start(&all(&endpoint), ("test", "test-1"), &lifecycle.scope(Stage::Release), &registry);
    let began = Instant::now();
    for _ in 0..10_000 {
        drop(tracer.entry("publish", Kind::Server, Parent::default()));
    }
    assert!(began.elapsed() < PLENTY / 4, "nobody waits for the collector");
    let dropped = number(&registry, "trace_spans_dropped_total");
    assert!((5_000..10_000).contains(&dropped), "what does not fit is counted: {dropped}");
    lifecycle.stop(StopReason::Manual("test".into()));
    let report = engine.run().await;
    assert_eq!(report.outcome(Stage::Release), Some(&StageOutcome::Done), "it ends by itself");
    assert!(began.elapsed() < PLENTY / 4 + FLUSH_MAX, "{:?}", began.elapsed());
    assert_eq!(number(&registry, "trace_spans_total"), 0);
}

#[tokio::test]
async fn whether_it_is_traced_is_decided_once() {
    let (lifecycle, _engine) = Lifecycle::new(Plan::new(PLENTY).stage(Stage::Release, PLENTY));
    let (scope, registry) = (lifecycle.scope(Stage::Release), Registry::new("test"));
    let none = Trace { sample: 0.0, ..all("http://127.0.0.1:1") };
    let tracer = Tracer::start(&none, ("test", "test-1"), &scope, &registry);
    let sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let parent = Parent::read(sampled);
    assert_eq!(tracer.entry("publish", Kind::Server, Parent::default()).traceparent(), None);
    assert_eq!(tracer.child("publish", Kind::Server, Parent::default()).traceparent(), None);
    let refused = Parent::read(&sampled.replace("-01", "-00"));
    assert_eq!(tracer.entry("publish", Kind::Server, refused).traceparent(), None);
    let entry = tracer.entry("publish", Kind::Server, parent);
    let child = entry.child("commit", Kind::Client);
    let told: Vec<String> = [&entry, &child].iter().map(|span| span.traceparent().unwrap()).collect();
    assert_ne!(told[0], told[1]);
    for told in told {
        assert!(told.starts_with(&sampled[..36]) && told.ends_with("-01") && told != sampled, "{told}");
        assert!(Parent::read(&told).is_recorded());
    }
    let off = Tracer::start(&Trace::default(), ("test", "test-1"), &scope, &registry);
    assert_eq!(off.entry("publish", Kind::Server, parent).traceparent(), None, "without a collector");
}
