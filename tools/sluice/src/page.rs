//! What the admin page of an instance says of it, as `/status`. Asks once, judges nothing.

use std::time::Duration;

use futures::future::join_all;
use serde_json::Value;
use sluice_launcher::probe;

/// Who is asked, and for how long.
#[derive(clap::Args)]
pub(crate) struct Asked {
    /// Admin addresses, http://host:port
    #[arg(required = true, value_name = "ADMIN-URL")]
    urls: Vec<String>,
    /// Longest wait for an answer, seconds; all are asked at once
    #[arg(long, default_value_t = 2)]
    timeout_s: u64,
}

impl Asked {
    /// Each address with what it says, in their order.
    pub(crate) async fn pages(&self) -> Vec<(&str, Result<Value, String>)> {
        let within = Duration::from_secs(self.timeout_s);
        join_all(self.urls.iter().map(|url| async move { (url.as_str(), ask(url, within).await) })).await
    }
}

/// An instance as it describes itself; what a page does not say is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) service: String,
    /// New in each life.
    pub(crate) instance: String,
    /// In its own PID namespace.
    pub(crate) pid: Option<u64>,
    pub(crate) version: String,
    pub(crate) stage: String,
    /// Why it is not ready, or why it stops.
    pub(crate) reason: Option<String>,
    pub(crate) connections: Option<u64>,
    pub(crate) in_flight: Option<u64>,
    pub(crate) processed: Option<u64>,
    pub(crate) uptime: Option<Duration>,
    pub(crate) safe_to_kill: bool,
    /// An operator moves its work to others; it stays.
    pub(crate) drained: bool,
    pub(crate) remaining: Option<Duration>,
    /// Who a stop waits for.
    pub(crate) blockers: String,
}

impl Page {
    pub(crate) fn of(page: &Value) -> Self {
        // A page of another version may lack any of them.
        let number = |name: &str| page.get(name).and_then(Value::as_u64);
        let text = |name: &str| page.get(name).and_then(Value::as_str).map(str::to_owned);
        let flag = |name: &str| page.get(name).and_then(Value::as_bool).unwrap_or_default();
        let blockers = page.get("blockers").and_then(Value::as_object).into_iter().flatten();
        Self {
            service: text("service").unwrap_or_default(),
            instance: text("instance").unwrap_or_default(),
            pid: number("pid"),
            version: text("version").unwrap_or_default(),
            stage: text("stage").unwrap_or_else(|| "?".to_owned()),
            reason: text("reason"),
            connections: number("connections"),
            in_flight: number("in_flight"),
            processed: number("processed_count"),
            uptime: number("uptime_ms").map(Duration::from_millis),
            safe_to_kill: flag("safe_to_kill"),
            drained: flag("drained_by_operator"),
            remaining: number("remaining_ms").map(Duration::from_millis),
            blockers: blockers.map(|(name, count)| format!("{name}={count}")).collect::<Vec<_>>().join(" "),
        }
    }

    /// The stage, and what is left of a stop.
    pub(crate) fn standing(&self) -> String {
        match self.remaining {
            Some(left) => format!("{}, {:.1} s left", self.stage, left.as_secs_f32()),
            None if self.drained => format!("{}, drained by operator", self.stage),
            None => self.stage.clone(),
        }
    }
}

/// The page at `http://host:port`, as JSON.
///
/// # Errors
/// Why there is none, for people.
pub(crate) async fn ask(admin: &str, within: Duration) -> Result<Value, String> {
    let url = format!("{}/status", admin.trim_end_matches('/'));
    let answer = probe::get(&url, within).await.map_err(|error| format!("no answer: {error}"))?;
    // Anything answers with JSON today; only a page that names its service is one.
    let page = serde_json::from_str::<Value>(&answer.body).ok().filter(|page| page.get("service").is_some());
    page.filter(|_| answer.status == 200)
        .ok_or_else(|| format!("answers {} without a status: is this an admin address?", answer.status))
}
