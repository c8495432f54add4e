//! The JWK set of a provider: fetched in the background, and sooner when a token names a key that is not in it. The last
//! good set stays in force while the provider is away. It judges no token; what is read of a set is in [`crate::auth::keys`].

mod schedule;
pub mod source;

use std::sync::Arc;

use serde_json::{Value, json};
use sluice_lifecycle::Scope;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::schedule::Schedule;
use self::source::Source;
use crate::auth::keys::{JwkSet, Keys};
use crate::defaults::JWKS_AWAITED;
use crate::metrics::Metrics;

/// What is known of the fetches.
#[derive(Debug, Clone)]
struct Fetches {
    /// How many have ended.
    ended: u64,
    /// When the one began that brought what is in force.
    good_since: Option<Instant>,
    /// One is under way.
    under_way: bool,
    /// Asking for one has an effect from then on; `None`: now.
    asked_from: Option<Instant>,
    /// Why the last one failed.
    error: Option<String>,
}

/// The set as it is now; clones share it.
#[derive(Debug, Clone)]
pub struct Jwks {
    asks: mpsc::Sender<()>,
    fetches: watch::Receiver<Fetches>,
    keys: watch::Receiver<Arc<Keys>>,
}

/// What fetches it.
struct Fetching {
    source: Source,
    schedule: Schedule,
    asks: mpsc::Receiver<()>,
    fetches: watch::Sender<Fetches>,
    keys: watch::Sender<Arc<Keys>>,
    left_out: Vec<String>,
    metrics: Metrics,
}

impl Jwks {
    /// Begins to fetch it. There are no keys until the first set has come.
    #[must_use]
    pub fn start(source: Source, scope: &Scope, metrics: Metrics) -> Self {
        let now = Instant::now();
        let schedule = Schedule::new(source.refresh(), now);
        let first = Fetches { ended: 0, good_since: None, under_way: true, asked_from: None, error: None };
        // One place: who asks while one waits there asks for the same.
        let (ask, asks) = mpsc::channel(1);
        let (fetches, seen) = watch::channel(first);
        let (keys, known) = watch::channel(Arc::default());
        let fetching = Fetching { source, schedule, asks, fetches, keys, left_out: Vec::new(), metrics };
        let stop = scope.token();
        scope.spawn("jwks", fetching.run(stop));
        Self { asks: ask, fetches: seen, keys: known }
    }

    /// The keys, and those that will be.
    #[must_use]
    pub fn keys(&self) -> watch::Receiver<Arc<Keys>> {
        self.keys.clone()
    }

    /// Asks for the set that is there now, and waits for it a little. `true`: what is in force was asked for after this
    /// call; `false`: it may be older, as the provider is away or slow, or was asked a moment ago.
    pub async fn newest(&self) -> bool {
        let now = Instant::now();
        let mut fetches = self.fetches.clone();
        let (ended, under_way) = {
            let fetches = fetches.borrow_and_update();
            if !fetches.under_way && fetches.asked_from.is_some_and(|from| now < from) {
                return false;
            }
            (fetches.ended, fetches.under_way)
        };
        // What is under way may bring the key. If not, whoever comes again asks.
        if !under_way {
            // Full: it is asked for already.
            self.asks.try_send(()).ok();
        }
        let next = fetches.wait_for(|fetches| fetches.ended > ended);
        let next = timeout(JWKS_AWAITED, next).await;
        next.is_ok_and(|next| next.is_ok_and(|next| next.good_since.is_some_and(|since| since >= now)))
    }

    /// For `/status`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let fetches = self.fetches.borrow();
        json!({
            "keys": self.keys.borrow().len(),
            "fetched_s_ago": fetches.good_since.map(|since| since.elapsed().as_secs()),
            "error": fetches.error,
        })
    }
}

impl Fetching {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let began = Instant::now();
            self.fetches.send_modify(|fetches| fetches.under_way = true);
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                answer = self.source.get() => answer,
            };
            self.ended(began, answer);
            loop {
                let due = self.schedule.due();
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    Some(()) = self.asks.recv() => if self.schedule.ask(Instant::now()) { break },
                    () = sleep_until(due) => break,
                }
            }
        }
    }

    fn ended(&mut self, began: Instant, answer: Result<JwkSet, String>) {
        let now = Instant::now();
        self.schedule.ended(now, answer.is_ok(), rand::random());
        self.metrics.token_keys_fetched(answer.is_ok());
        let error = answer.as_ref().err().cloned();
        if let Ok(set) = answer {
            self.take(set);
        }
        self.say(error.as_deref());
        // After the keys: whoever waits looks at them then.
        self.fetches.send_modify(|fetches| {
            fetches.ended += 1;
            fetches.under_way = false;
            fetches.asked_from = self.schedule.asked_from();
            if error.is_none() {
                fetches.good_since = Some(began);
            }
            fetches.error = error;
        });
    }

    fn take(&mut self, set: JwkSet) {
        let JwkSet { keys, left_out } = set;
        // Once for each change, not with each fetch.
        if left_out != self.left_out {
            for why in &left_out {
                tracing::warn!(url = self.source.url(), why, "A key of the JWK set is not used.");
            }
            self.left_out = left_out;
        }
        self.metrics.token_keys.set(i64::try_from(keys.len()).unwrap_or(i64::MAX));
        self.keys.send_replace(Arc::new(keys));
    }

    /// When it begins to fail, and when it is over.
    fn say(&self, error: Option<&str>) {
        let before = self.fetches.borrow();
        match (before.error.is_some(), error) {
            (false, Some(error)) => tracing::warn!(
                url = self.source.url(),
                error,
                "The JWK set cannot be fetched; the keys that are known stay in force, and it is tried again."
            ),
            (true, None) => tracing::info!(url = self.source.url(), "The JWK set is fetched again."),
            (false, None) | (true, Some(_)) => {}
        }
    }
}
