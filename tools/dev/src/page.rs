//! The page for people and the few addresses behind it. It outlives each service, or nobody could watch one go.
//!
//! Reads are for whoever is on this machine; what changes something needs [`HEADER`], which a page of another site
//! cannot send, and a `Host` that is loopback, which no foreign name can pretend to be.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use sluice_launcher::probe;
use sluice_lifecycle::{Lifecycle, Stage};
use sluice_service::admin::access::is_loopback;
use sluice_service::admin::{AdminPages, PageEntry};
use sluice_service::listen::{self, Bound};
use sluice_service::metrics::Registry;

use crate::HEADER;
use crate::error::Refused;
use crate::supervisor::Dev;

/// One document: it loads nothing, not even its own script.
const PAGE: &str = concat!(
    include_str!("../page/index.html"),
    "<script>\n",
    include_str!("../page/page.js"),
    "</script>\n</body>\n</html>\n",
);
/// Longest wait for what a service says of itself: it is in this process, and may be stopping.
const STATUS_WITHIN: Duration = Duration::from_secs(2);
/// The page is alone: nothing is loaded from anywhere, and it talks to gateways and to us.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; \
                      connect-src 'self' ws:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// What it adds for programs.
const PAGES: [PageEntry; 2] = [
    PageEntry::get("/admin/instances", "the services and where each stands"),
    PageEntry::get("/dev/state", "all that the page for people shows"),
];

pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<Bound> {
    listen::bind(&address.to_string()).await
}

/// Serves until the last stage.
pub(crate) fn serve(dev: Dev, bound: Bound, lifecycle: &Lifecycle) {
    let mut admin = AdminPages::new("dev", lifecycle.clone(), Registry::new("dev"));
    admin.more.extend(PAGES);
    let more = Router::new()
        .route(
            "/admin/instances",
            get(|State(dev): State<Dev>| async move { Json(dev.to_json()["services"].take()) }),
        )
        .route("/", get(page))
        .route("/dev/state", get(|State(dev): State<Dev>| async move { Json(dev.to_json()) }))
        .route("/dev/status/{name}", get(status))
        .route("/dev/restart/{name}", post(restart))
        .layer(from_fn(at_home))
        .with_state(dev);
    // Until the last stage, or nobody could watch the stop.
    admin.serve_with(more, bound, &lifecycle.scope(Stage::Gone));
}

async fn page() -> impl IntoResponse {
    ([(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-store")], Html(PAGE))
}

/// What a service says of itself, for the page: a browser lets no page ask another port.
async fn status(State(dev): State<Dev>, Path(name): Path<String>) -> Response {
    let Some(admin) = dev.admin(&name) else {
        return refuse(StatusCode::NOT_FOUND, &format!("there is no {name:?}"));
    };
    match probe::get(&format!("{admin}/status"), STATUS_WITHIN).await {
        Ok(answer) => ([(header::CONTENT_TYPE, "application/json")], answer.body).into_response(),
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

async fn restart(State(dev): State<Dev>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let (key, value) = HEADER;
    if headers.get(key).is_none_or(|sent| sent != value) {
        let text = format!("send the header {key}: {value} with it, so that no foreign page can");
        return refuse(StatusCode::FORBIDDEN, &text);
    }
    match dev.restart(&name).await {
        Ok(restarted) => Json(restarted).into_response(),
        Err(refused) => {
            let status = match refused {
                Refused::Unknown(..) => StatusCode::NOT_FOUND,
                Refused::Busy(_) => StatusCode::CONFLICT,
                Refused::Stopping | Refused::Late(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            refuse(status, &refused.to_string())
        }
    }
}

/// A name that somebody else made point to this machine is not ours.
async fn at_home(request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST);
    // All of them: a second header must not smuggle in a name.
    if hosts.iter().all(|host| host.to_str().is_ok_and(is_loopback)) {
        return next.run(request).await;
    }
    refuse(StatusCode::FORBIDDEN, "only for this machine: open it as http://127.0.0.1 or http://localhost")
}

fn refuse(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": text }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for outside in ["src=\"http", "href=\"http", "@import", "url(http", "import("] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }
}
