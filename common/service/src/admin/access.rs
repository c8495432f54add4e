//! Who may ask the admin pages: on loopback nobody who came by a foreign name, and for anything but reading who has the
//! token, if there is one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

/// What is asked of a request.
#[derive(Clone, Default)]
pub struct Access {
    /// The pages listen on loopback: whoever calls them by another name was led here by it.
    pub(super) loopback: bool,
    /// Needed for anything but reading; without one nothing under `/admin/` can be changed.
    pub(super) token: Option<Arc<str>>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Lets a request through, or says what it lacks. Whatever would change something is logged, with its outcome.
pub(super) async fn admit(State(access): State<Access>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let from = request.extensions().get::<Peer>().map(|peer| peer.0.to_string());
    let answer = match access.refusal(&method, &path, request.headers()) {
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
        let access = Access { loopback: true, token: None };
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
        let access = Access { loopback: false, token: Some("hush".into()) };
        let post = |shown: &[(header::HeaderName, &str)]| asked(&access, Method::POST, "/x", shown);
        assert_eq!(asked(&access, Method::GET, "/x", &[]), 200);
        assert_eq!(post(&[(header::AUTHORIZATION, "Bearer hush")]), 200);
        for wrong in ["Bearer hus", "Bearer husk", "Bearer hush!", "hush", "Basic hush"] {
            assert_eq!(post(&[(header::AUTHORIZATION, wrong)]), 401, "{wrong}");
        }
        assert_eq!(post(&[]), 401);
    }

    #[test]
    fn without_a_token_nothing_is_changed_under_admin() {
        let access = Access::default();
        let post = |path| asked(&access, Method::POST, path, &[(header::AUTHORIZATION, "Bearer ")]);
        assert_eq!((post("/admin/drain"), post("/dev/restart/logic")), (401, 200));
        assert_eq!(asked(&access, Method::GET, "/admin/duties", &[]), 200);
    }
}
