//! What a browser loads of the page for people, compiled in: the document, its modules, and the SDK that they are written
//! on. Nothing is loaded from elsewhere.

use axum::Router;
use axum::http::header;
use axum::response::Html;
use axum::routing::get;

const DOCUMENT: &str = include_str!("../../page/index.html");
const MODULES: [(&str, &str); 4] = [
    ("/page/client.js", include_str!("../../page/client.js")),
    ("/page/page.js", include_str!("../../page/page.js")),
    ("/page/services.js", include_str!("../../page/services.js")),
    ("/page/show.js", include_str!("../../page/show.js")),
];
/// Committed as it was built: a build of `sluice dev` needs no tool but Rust's. `.ci/check` compares it with its source.
const SDK: &str = include_str!("../../../../client/js/sluice.js");

/// The page is alone: its scripts are ours, and it talks to gateways and to us.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src data:; \
                      connect-src 'self' ws:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let document = get(|| async { ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(DOCUMENT)) });
    // Pages of a front end's own server import it too: it is public, and says nothing of this process.
    let sdk = [(header::CONTENT_TYPE, JAVASCRIPT), (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
    let router =
        Router::new().route("/", document).route("/sluice.js", get(move || async move { (sdk, SDK) }));
    MODULES.iter().fold(router, |router, &(path, text)| {
        router.route(path, get(move || async move { ([(header::CONTENT_TYPE, JAVASCRIPT)], text) }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        let modules = MODULES.map(|(_, text)| text);
        for text in modules.into_iter().chain([DOCUMENT, SDK]) {
            for outside in ["src=\"http", "href=\"http", "@import", "url(http", "import(", "from \"http"] {
                assert!(!text.contains(outside), "{outside}");
            }
        }
    }

    #[test]
    fn every_module_that_is_imported_is_served() {
        let served = |path: &str| path == "/sluice.js" || MODULES.iter().any(|(name, _)| *name == path);
        for (_, text) in MODULES {
            for imported in text.lines().filter(|line| line.starts_with("import ")) {
                let (_, from) = imported.split_once("from \"").expect("one line for each import");
                let path = from.trim_end_matches("\";").replacen("./", "/page/", 1);
                assert!(served(&path), "{path}");
            }
        }
        assert!(DOCUMENT.contains("src=\"/page/page.js\""));
    }
}
