//! Who may ask the admin pages: on loopback nobody who came by a foreign name, and for anything but reading who has the
//! token, if there is one.

use std::net::IpAddr;
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
    /// Needed for anything but reading.
    pub(super) token: Option<Arc<str>>,
}

/// Lets a request through, or says what it lacks.
pub(super) async fn admit(State(access): State<Access>, request: Request, next: Next) -> Response {
    match access.refusal(request.method(), request.uri().path(), request.headers()) {
        None => next.run(request).await,
        Some((status, why)) => (status, Json(json!({ "error": why }))).into_response(),
    }
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
        let writes = ![Method::GET, Method::HEAD].contains(method);
        if let Some(token) = self.token.as_deref().filter(|_| writes)
            && !headers.get(header::AUTHORIZATION).is_some_and(|shown| is_bearer(shown.as_bytes(), token))
        {
            return Some((
                StatusCode::UNAUTHORIZED,
                "for anything but GET the header `Authorization: Bearer …` with what admin.token_file holds is needed",
            ));
        }
        None
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
}
