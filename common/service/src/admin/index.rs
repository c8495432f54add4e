//! `GET /` of an admin port: what answers here, where it stands, and which pages it has. Also what is said of a page
//! that there is not.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse as _, Response};
use serde_json::{Value, json};

use super::AdminPages;

/// The pages, and what each is for.
const PAGES: [(&str, &str); 6] = [
    ("/livez", "whether the process lives"),
    ("/readyz", "whether it wants work, and why not"),
    ("/status", "stage, work, what a stop waits for, whether a kill would be noticed"),
    ("/metrics", "figures, OpenMetrics"),
    ("/admin/instances", "who lives"),
    ("/admin/duties", "who owns what"),
];

/// Answers what has no route.
pub(super) async fn index(
    State(admin): State<Arc<AdminPages>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if uri.path() != "/" {
        let pages = PAGES.map(|(path, _)| path);
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
            "pages": PAGES.map(|(path, what)| json!({ "path": path, "what": what })),
        })
    }

    /// Constants and an instance id, which has no sign that HTML would read.
    fn index_html(&self) -> String {
        let (service, instance, message) = (self.service, (self.instance)(), self.message());
        let page = |(path, what)| format!("<li><a href=\"{path}\">{path}</a>: {what}</li>\n");
        let pages: String = PAGES.map(page).concat();
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>sluice {service}</title>\n\
             <h1>{instance}</h1>\n<p>{message}</p>\n<ul>\n{pages}</ul>\n</html>\n"
        )
    }
}
