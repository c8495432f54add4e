//! `GET /` of an admin port: what answers here, where it stands, and which pages it has. Also what is said of a page
//! that there is not.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse as _, Response};
use serde_json::{Value, json};

use super::AdminPages;

/// A page, and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageEntry {
    method: &'static str,
    path: &'static str,
    what: &'static str,
}

impl PageEntry {
    /// One that is read.
    #[must_use]
    pub const fn get(path: &'static str, what: &'static str) -> Self {
        Self { method: "GET", path, what }
    }

    /// One that changes something; `{…}` in its path stands for a name.
    #[must_use]
    pub const fn post(path: &'static str, what: &'static str) -> Self {
        Self { method: "POST", path, what }
    }

    fn to_json(self) -> Value {
        json!({ "method": self.method, "path": self.path, "what": self.what })
    }

    fn to_html(self) -> String {
        let Self { method, path, what } = self;
        match method {
            "GET" => format!("<li><a href=\"{path}\">{path}</a>: {what}</li>\n"),
            // A link would ask with GET.
            _ => format!("<li>{method} {path}: {what}</li>\n"),
        }
    }
}

/// What every service has.
const PAGES: [PageEntry; 4] = [
    PageEntry::get("/livez", "whether the process lives"),
    PageEntry::get("/readyz", "whether it wants work, and why not"),
    PageEntry::get("/status", "stage, work, what a stop waits for, whether a kill would be noticed"),
    PageEntry::get("/metrics", "figures, OpenMetrics"),
];

/// Answers what has no route.
pub(super) async fn index(
    State(admin): State<Arc<AdminPages>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if uri.path() != "/" {
        let pages: Vec<_> = admin.pages().map(|page| page.path).collect();
        let said = json!({ "error": format!("no page {}", uri.path()), "pages": pages });
        return (StatusCode::NOT_FOUND, Json(said)).into_response();
    }
    if ![Method::GET, Method::HEAD].contains(&method) {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    if wants_html(&headers) {
        Html(admin.index_html()).into_response()
    } else {
        Json(admin.index()).into_response()
    }
}

/// Browsers name it; programs take anything, and JSON is easier to read for them.
fn wants_html(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    accepted.any(|accept| accept.contains("text/html"))
}

impl AdminPages {
    fn pages(&self) -> impl Iterator<Item = PageEntry> {
        PAGES.into_iter().chain(self.more.iter().copied())
    }

    fn message(&self) -> String {
        let Self { service, lifecycle, .. } = self;
        format!(
            "This is a sluice {service}, version {}; it is {}.",
            env!("CARGO_PKG_VERSION"),
            lifecycle.stage().state()
        )
    }

    fn index(&self) -> Value {
        let stage = self.lifecycle.stage();
        json!({
            "message": self.message(),
            "service": self.service,
            "instance": (self.instance)(),
            "version": env!("CARGO_PKG_VERSION"),
            "state": stage.state().as_str(),
            "stage": stage.as_str(),
            "pages": self.pages().map(PageEntry::to_json).collect::<Vec<_>>(),
        })
    }

    /// Constants and an instance id, which has no sign that HTML would read.
    fn index_html(&self) -> String {
        let (service, instance, message) = (self.service, (self.instance)(), self.message());
        let pages: String = self.pages().map(PageEntry::to_html).collect();
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>sluice {service}</title>\n\
             <h1>{instance}</h1>\n<p>{message}</p>\n<ul>\n{pages}</ul>\n</html>\n"
        )
    }
}
