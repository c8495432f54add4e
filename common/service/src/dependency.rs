//! What a service depends on, looked at twice a second: one WARN with cause and effect when it is lost, one INFO when it
//! is back, metrics, and a list of what suffers for `/readyz` and `/status`.
//!
//! Decides nothing: whether a service is ready, and what it does meanwhile, is its own business.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use serde_json::{Value, json};
use sluice_lifecycle::{Lifecycle, Stage};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::Registry;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// One look. A server that takes longer is as good as none.
const LOOK_WITHIN: Duration = Duration::from_millis(900);
/// A server that is away for so long is lost: one that is started again, or a start of everything at once, is no news.
const LOST_AFTER: Duration = Duration::from_millis(1_500);

/// Says how it stands with a dependency: the reason, when it is away.
type Look = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The dependencies of a service; clones share them.
#[derive(Clone)]
pub struct Dependencies(Arc<DependencyTable>);

struct DependencyTable {
    all: Mutex<Vec<Arc<Dependency>>>,
    up: Family<DependencyLabel, Gauge>,
    failures: Family<DependencyLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DependencyLabel {
    dependency: &'static str,
}

struct Dependency {
    name: &'static str,
    effect: &'static str,
    look: Look,
    state: Mutex<State>,
}

/// How it stands with one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Answers, or was not looked at yet.
    Up,
    /// Away since then, which may be no news yet.
    Doubted(Instant, String),
    /// Away since then, and said so.
    Lost(Instant, String),
}

/// What has to be said.
#[derive(Debug, PartialEq, Eq)]
enum Edge {
    Lost,
    Back(Duration),
}

impl State {
    /// Takes a verdict.
    fn step(&mut self, verdict: Result<(), String>, now: Instant) -> Option<Edge> {
        let (next, edge) = match (&*self, verdict) {
            (Self::Lost(since, _), Ok(())) => (Self::Up, Some(Edge::Back(now - *since))),
            (Self::Up | Self::Doubted(..), Ok(())) => (Self::Up, None),
            (Self::Up, Err(reason)) => (Self::Doubted(now, reason), None),
            (Self::Doubted(since, _), Err(reason)) if now - *since >= LOST_AFTER => {
                (Self::Lost(*since, reason), Some(Edge::Lost))
            }
            (Self::Doubted(since, _), Err(reason)) => (Self::Doubted(*since, reason), None),
            (Self::Lost(since, _), Err(reason)) => (Self::Lost(*since, reason), None),
        };
        *self = next;
        edge
    }
}

impl Dependencies {
    /// None yet.
    #[must_use]
    pub fn new(metrics: &Registry) -> Self {
        let up = metrics.register(
            "dependency_up",
            "Whether a dependency answers: 1 while it does",
            Family::default(),
        );
        let failures = metrics.counters("dependency_failures", "Times a dependency was lost");
        Self(Arc::new(DependencyTable { all: Mutex::default(), up, failures }))
    }

    /// Adds one. `effect` says what suffers while it is away; `look` gives the reason then, and may take its time.
    pub fn add<F>(
        &self,
        name: &'static str,
        effect: &'static str,
        look: impl Fn() -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let look: Look = Box::new(move || look().boxed());
        self.all().push(Arc::new(Dependency { name, effect, look, state: Mutex::new(State::Up) }));
    }

    /// As [`add`](Self::add), of a part that the service shares with what it is asked by.
    pub fn add_part<P, F>(
        &self,
        name: &'static str,
        effect: &'static str,
        part: &Arc<P>,
        look: impl Fn(Arc<P>) -> F + Send + Sync + 'static,
    ) where
        P: Send + Sync + ?Sized + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let part = Arc::clone(part);
        self.add(name, effect, move || look(Arc::clone(&part)));
    }

    /// Looks as a task, until the stop: then `/readyz` says all there is to say.
    pub fn start(&self, lifecycle: &Lifecycle) {
        let scope = lifecycle.scope(Stage::NotReady);
        scope.spawn("dependencies", self.clone().watch(scope.token()));
    }

    /// Looks until `stop`.
    pub async fn watch(self, stop: CancellationToken) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let looking = async {
            loop {
                ticks.tick().await;
                let all = self.all().clone();
                join_all(all.iter().map(|one| self.look(one))).await;
            }
        };
        stop.run_until_cancelled(looking).await;
    }

    /// What is lost, why, and what suffers.
    #[must_use]
    pub fn degraded(&self) -> Value {
        let lost = |one: &Arc<Dependency>| {
            let State::Lost(since, reason) = &*one.state() else { return None };
            let for_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            Some(json!({ "dependency": one.name, "reason": reason, "effect": one.effect, "for_ms": for_ms }))
        };
        self.all().iter().filter_map(lost).collect()
    }

    async fn look(&self, one: &Dependency) {
        let verdict = timeout(LOOK_WITHIN, (one.look)()).await;
        let verdict =
            verdict.unwrap_or_else(|_| Err(format!("no answer within {} ms", LOOK_WITHIN.as_millis())));
        let label = DependencyLabel { dependency: one.name };
        self.0.up.get_or_create(&label).set(i64::from(verdict.is_ok()));
        let failures = self.0.failures.get_or_create(&label).clone();
        let reason = verdict.as_ref().err().cloned();
        match one.state().step(verdict, Instant::now()) {
            Some(Edge::Lost) => {
                failures.inc();
                tracing::warn!(dependency = one.name, reason, effect = one.effect, "A dependency is lost.");
            }
            Some(Edge::Back(away)) => {
                let away_ms = u64::try_from(away.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(dependency = one.name, away_ms, "A dependency is back.");
            }
            None => {}
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Dependency>>> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dependency {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all().iter().map(|one| one.name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_loss_is_said_once_and_so_is_the_return() {
        let begun = Instant::now();
        let mut state = State::Up;
        let mut at = |ms: u64, verdict: Result<(), &str>| {
            state.step(verdict.map_err(str::to_owned), begun + Duration::from_millis(ms))
        };
        assert_eq!(at(0, Err("refused")), None, "may be a moment");
        assert_eq!(at(1_000, Ok(())), None, "it was");
        assert_eq!(at(2_000, Err("refused")), None);
        assert_eq!(at(3_000, Err("refused")), None);
        assert_eq!(at(4_000, Err("refused")), Some(Edge::Lost));
        assert_eq!(at(5_000, Err("other")), None);
        assert_eq!(at(9_000, Ok(())), Some(Edge::Back(Duration::from_secs(7))));
        assert_eq!(at(10_000, Ok(())), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_lost_is_listed_and_counted() {
        let metrics = Registry::new("test");
        let dependencies = Dependencies::new(&metrics);
        let up = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&up);
        dependencies.add("nats", "messages come late", move || {
            let up = seen.load(Ordering::Relaxed);
            async move { if up { Ok(()) } else { Err("refused".to_owned()) } }
        });
        dependencies.add("etcd", "nobody is found", std::future::pending);
        let part: Arc<dyn Fn() -> Result<(), String> + Send + Sync> = Arc::new(|| Err("gone".to_owned()));
        dependencies.add_part("redis", "nobody is known", &part, |part| std::future::ready(part()));
        let stop = CancellationToken::new();
        let watching = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let degraded = dependencies.degraded();
            assert_eq!(degraded[0]["reason"], "refused", "{degraded}");
            assert_eq!(degraded[1]["reason"], "no answer within 900 ms", "{degraded}");
            assert_eq!(degraded[2]["reason"], "gone", "{degraded}");
            up.store(true, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(dependencies.degraded().as_array().map(Vec::len), Some(2));
            stop.cancel();
        };
        tokio::join!(dependencies.clone().watch(stop.clone()), watching);
        let text = metrics.encode();
        for line in [
            r#"sluice_test_dependency_up{dependency="nats"} 1"#,
            r#"sluice_test_dependency_up{dependency="etcd"} 0"#,
            r#"sluice_test_dependency_failures_total{dependency="nats"} 1"#,
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
