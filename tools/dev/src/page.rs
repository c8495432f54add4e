//! The page of the process: for people in `sluice dev`, for operators and their tools in `sluice serve`. It outlives each
//! service, or nobody could watch one go.
//!
//! In `sluice dev` reads are for whoever is on this machine; what changes something needs [`HEADER`], which a page of another site
//! cannot send, and a `Host` that is loopback, which no foreign name can pretend to be. In `sluice serve` that is so while
//! it listens on loopback without a token; else the token is asked for.

mod files;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use sluice_launcher::probe;
use sluice_lifecycle::{Lifecycle, Stage};
use sluice_service::admin::access::is_loopback;
use sluice_service::admin::{AdminPages, Check, PageEntry};
use sluice_service::listen::{self, Bound};
use sluice_service::metrics::{CONTENT_TYPE, Registry};

use crate::HEADER;
use crate::error::Refused;
use crate::supervisor::Dev;

/// Longest wait for what a service says of itself: it is in this process, and may be stopping.
const STATUS_WITHIN: Duration = Duration::from_secs(2);

/// What that of `sluice dev` adds for programs.
const DEV_PAGES: [PageEntry; 3] = [
    PageEntry::get("/admin/instances", "the services and where each stands"),
    PageEntry::get("/sluice.js", "the SDK, for a page of your own to import"),
    PageEntry::get("/dev/state", "all that the page for people shows"),
];

/// What that of `sluice serve` adds.
const SERVE_PAGES: [PageEntry; 3] = [
    PageEntry::get("/admin/instances", "the services and where each stands"),
    PageEntry::get("/services/NAME/metrics", "what a service counts; NAME is gateway-1, logic or task"),
    PageEntry::get("/services/NAME/status", "what a service says of itself"),
];

pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<Bound> {
    listen::bind(&address.to_string()).await
}

/// Whom the page is for.
pub(crate) enum Pages {
    /// With buttons, on this machine.
    ForPeople,
    /// For operators, who show this token where there is one.
    ForOperators(Option<Arc<str>>),
}

impl Pages {
    /// Serves until the last stage, or nobody could watch the stop.
    pub(crate) fn serve(self, dev: Dev, bound: Bound, lifecycle: &Lifecycle) {
        let scope = lifecycle.scope(Stage::Gone);
        let instances = get(|State(dev): State<Dev>| async move { Json(dev.to_json()["services"].take()) });
        let router = Router::new().route("/admin/instances", instances);
        match self {
            Self::ForPeople => {
                let mut admin = AdminPages::new("dev", lifecycle.clone(), Registry::new("dev"));
                admin.more.extend(DEV_PAGES);
                admin.ready = ready(&dev);
                let state = get(|State(dev): State<Dev>| async move { Json(dev.to_json()) });
                let router = router
                    .merge(files::router())
                    .route("/dev/state", state)
                    .route("/dev/status/{name}", get(status))
                    .route("/dev/restart/{name}", post(restart))
                    .layer(from_fn(at_home));
                admin.serve_with(router.with_state(dev), bound, &scope);
            }
            Self::ForOperators(token) => {
                let mut admin = AdminPages::new("serve", lifecycle.clone(), Registry::new("serve"));
                admin.more.extend(SERVE_PAGES);
                admin.ready = ready(&dev);
                let restart = if token.is_some() { post(restart_shown) } else { post(restart) };
                admin.token = token;
                let router = router
                    .route("/services/{name}/{page}", get(service_page))
                    .route("/serve/restart/{name}", restart);
                admin.serve_with(router.with_state(dev), bound, &scope);
            }
        }
    }
}

/// Also why publishes are refused for now, as on a full disk: whoever watches the process watches this.
fn ready(dev: &Dev) -> Check {
    let dev = dev.clone();
    Arc::new(move || dev.ready())
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

/// One of the admin pages of a service, which listen for this machine alone.
async fn service_page(State(dev): State<Dev>, Path((name, page)): Path<(String, String)>) -> Response {
    let Some(admin) = dev.admin(&name) else {
        return refuse(StatusCode::NOT_FOUND, &format!("there is no {name:?}"));
    };
    let kind = match page.as_str() {
        "status" | "readyz" => "application/json",
        "metrics" => CONTENT_TYPE,
        _ => return refuse(StatusCode::NOT_FOUND, "there are metrics, status and readyz of each service"),
    };
    match probe::get(&format!("{admin}/{page}"), STATUS_WITHIN).await {
        Ok(answer) => {
            let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
            (status, [(header::CONTENT_TYPE, kind)], answer.body).into_response()
        }
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

async fn restart(State(dev): State<Dev>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let (key, value) = HEADER;
    if headers.get(key).is_none_or(|sent| sent != value) {
        let text = format!("send the header {key}: {value} with it, so that no foreign page can");
        return refuse(StatusCode::FORBIDDEN, &text);
    }
    roll(&dev, &name).await
}

/// Who comes here has shown the token, which no foreign page has.
async fn restart_shown(State(dev): State<Dev>, Path(name): Path<String>) -> Response {
    roll(&dev, &name).await
}

async fn roll(dev: &Dev, name: &str) -> Response {
    match dev.restart(name).await {
        Ok(restarted) => Json(restarted).into_response(),
        Err(refused) => {
            let status = match refused {
                Refused::Unknown(..) => StatusCode::NOT_FOUND,
                Refused::Busy(_) => StatusCode::CONFLICT,
                Refused::Stopping | Refused::Late(..) => StatusCode::SERVICE_UNAVAILABLE,
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
