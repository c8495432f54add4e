//! Who may ask the admin pages: on loopback nobody who came by a foreign name, and for anything but reading who has the
//! token, if there is one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tokio::time::Instant;

use crate::bucket::{Bucket, Micros, Rate};

/// Commands a second of whoever has the token, and seconds' worth of them at once: each is an entry in etcd and lines in
/// logs, and a loop that has run wild must not become the load.
const COMMANDS_PER_S: u32 = 5;
/// Refusals a second that are answered and logged as such: guessing is slow, and fills no log.
const REFUSALS_PER_S: u32 = 5;
/// A roll by script has a command for each instance.
const BURST_S: u64 = 10;

/// How often anything but reading may be asked for, by all who ask together: who has no token takes nothing from those
/// who have it.
#[derive(Debug)]
pub(super) struct CommandRates {
    began: Instant,
    commands: Bucket,
    refusals: Bucket,
    /// Those of the last second that were too many are told in one line.
    lines: Bucket,
}

impl Default for CommandRates {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            commands: Bucket::default(),
            refusals: Bucket::default(),
            lines: Bucket::default(),
        }
    }
}

impl CommandRates {
    fn now(&self) -> Micros {
        Micros::try_from(self.began.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }

    /// Takes a turn; how long until there is one, if there is none.
    fn take(&self, is_refusal: bool) -> Result<(), Duration> {
        let (bucket, per_s) =
            if is_refusal { (&self.refusals, REFUSALS_PER_S) } else { (&self.commands, COMMANDS_PER_S) };
        bucket.take(Rate::new(per_s, BURST_S), self.now()).map_err(Duration::from_micros)
    }

    /// Whether it is time for a line about those that are too many.
    fn may_say(&self) -> bool {
        self.lines.take(Rate::new(1, 1), self.now()).is_ok()
    }
}

/// What is asked of a request.
#[derive(Clone, Default)]
pub struct Access {
    /// The pages listen on loopback: whoever calls them by another name was led here by it.
    pub(super) loopback: bool,
    /// Needed for anything but reading; without one nothing under `/admin/` can be changed.
    pub(super) token: Option<Arc<str>>,
    /// How often it may be asked for.
    pub(super) rates: Arc<CommandRates>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Lets a request through, or says what it lacks. Whatever would change something is logged, with its outcome.
pub(super) async fn admit(State(access): State<Access>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let from = request.extensions().get::<Peer>().map(|peer| peer.0.to_string());
    let refusal = access.refusal(&method, &path, request.headers());
    if is_write(&method)
        && let Err(wait) = access.rates.take(refusal.is_some())
    {
        if access.rates.may_say() {
            tracing::warn!(%method, path, from, "Operators' requests come too fast: they are answered 429.");
        }
        return too_fast(wait);
    }
    let answer = match refusal {
        None => next.run(request).await,
        Some((StatusCode::UNAUTHORIZED, why)) => {
            let how = [(header::WWW_AUTHENTICATE, "Bearer")];
            (StatusCode::UNAUTHORIZED, how, Json(json!({ "error": why }))).into_response()
        }
        Some((status, why)) => (status, Json(json!({ "error": why }))).into_response(),
    };
    if is_write(&method) {
        let (status, from) = (answer.status().as_u16(), from.unwrap_or_default());
        if answer.status().is_success() {
            tracing::info!(%method, path, from, status, "An operator's request was carried out.");
        } else {
            tracing::warn!(%method, path, from, status, "An operator's request was refused.");
        }
    }
    answer
}

fn too_fast(wait: Duration) -> Response {
    // Whole seconds, and never 0: that would be at once.
    let after_s = wait.as_secs() + 1;
    let why = format!("too many requests that change something: again in {after_s} s");
    let headers = [(header::RETRY_AFTER, after_s.to_string())];
    (StatusCode::TOO_MANY_REQUESTS, headers, Json(json!({ "error": why }))).into_response()
}

fn is_write(method: &Method) -> bool {
    ![Method::GET, Method::HEAD].contains(method)
}

impl Access {
    fn refusal(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Option<(StatusCode, &'static str)> {
        // What health checkers ask says nothing worth stealing, and they name whatever they were told to.
        let health = ["/livez", "/readyz"].contains(&path);
        let foreign =
            || !headers.get_all(header::HOST).iter().all(|host| host.to_str().is_ok_and(is_loopback));
        // A page of a foreign site whose name now leads to 127.0.0.1 is the same origin to a browser.
        if self.loopback && !health && foreign() {
            return Some((
                StatusCode::FORBIDDEN,
                "asked by a foreign name: use http://127.0.0.1 or http://localhost, or listen on another address",
            ));
        }
        if !is_write(method) {
            return None;
        }
        let shown = headers.get(header::AUTHORIZATION);
        match self.token.as_deref() {
            Some(token) if shown.is_some_and(|shown| is_bearer(shown.as_bytes(), token)) => None,
            Some(_) => Some((
                StatusCode::UNAUTHORIZED,
                "for anything but GET the header `Authorization: Bearer …` with what admin.token_file holds is needed",
            )),
            None if path.starts_with("/admin/") => Some((
                StatusCode::UNAUTHORIZED,
                "nothing can be changed here without a token: name a file with one in admin.token_file",
            )),
            None => None,
        }
    }
}

/// Takes as long for a wrong token of the same length, whatever is wrong with it.
fn is_bearer(shown: &[u8], token: &str) -> bool {
    let Some(shown) = shown.strip_prefix(b"Bearer ") else { return false };
    let (shown, token) = (shown.trim_ascii(), token.as_bytes());
    let differ = shown.iter().zip(token).fold(0, |differ, (a, b)| differ | (a ^ b));
    shown.len() == token.len() && differ == 0
}

/// `host` or `host:port`.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(access: &Access, method: Method, path: &str, headers: &[(header::HeaderName, &str)]) -> u16 {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        access.refusal(&method, path, &headers).map_or(200, |(status, _)| status.as_u16())
    }

    #[test]
    fn a_foreign_name_reads_nothing_on_loopback() {
        let access = Access { loopback: true, ..Access::default() };
        let get = |path, host| asked(&access, Method::GET, path, &[(header::HOST, host)]);
        for host in ["127.0.0.1:7071", "localhost:7071", "localhost", "[::1]:7071", "127.0.0.2"] {
            assert_eq!(get("/status", host), 200, "{host}");
        }
        for host in ["evil.example:7071", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil", ""] {
            assert_eq!(get("/metrics", host), 403, "{host}");
            assert_eq!(get("/readyz", host), 200, "{host}");
        }
        assert_eq!(asked(&access, Method::GET, "/status", &[]), 200, "HTTP/1.0 names nobody; browsers do");
        let elsewhere = Access::default();
        assert_eq!(asked(&elsewhere, Method::GET, "/status", &[(header::HOST, "logic-1:7071")]), 200);
    }

    #[test]
    fn a_token_is_for_what_changes_something() {
        let access = Access { token: Some("hush".into()), ..Access::default() };
        let post = |shown: &[(header::HeaderName, &str)]| asked(&access, Method::POST, "/x", shown);
        assert_eq!(asked(&access, Method::GET, "/x", &[]), 200);
        assert_eq!(post(&[(header::AUTHORIZATION, "Bearer hush")]), 200);
        for wrong in ["Bearer hus", "Bearer husk", "Bearer hush!", "hush", "Basic hush"] {
            assert_eq!(post(&[(header::AUTHORIZATION, wrong)]), 401, "{wrong}");
        }
        assert_eq!(post(&[]), 401);
    }

    #[tokio::test(start_paused = true)]
    async fn who_guesses_takes_no_turn_from_who_has_the_token() {
        let rates = CommandRates::default();
        let refused = (0..1_000).filter(|_| rates.take(true).is_ok()).count();
        assert_eq!(refused, 50, "ten seconds of five");
        assert!((0..50).all(|_| rates.take(false).is_ok()));
        let wait = rates.take(false).expect_err("a loop that has run wild");
        assert_eq!(wait, Duration::from_millis(200));
        tokio::time::advance(wait).await;
        assert_eq!((rates.take(false), rates.take(false).is_err()), (Ok(()), true));
        assert_eq!(too_fast(wait).headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn without_a_token_nothing_is_changed_under_admin() {
        let access = Access::default();
        let post = |path| asked(&access, Method::POST, path, &[(header::AUTHORIZATION, "Bearer ")]);
        assert_eq!((post("/admin/drain"), post("/dev/restart/logic")), (401, 200));
        assert_eq!(asked(&access, Method::GET, "/admin/duties", &[]), 200);
    }
}
