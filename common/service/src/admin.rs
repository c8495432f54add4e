//! The admin page of a service: is it alive, is it ready, what is it waiting for. What changes anything is added by
//! others, and asks for the token.
//!
//! Starts first and stops last. A connection that does not speak, or never finishes, holds nothing up.

pub mod access;
mod index;
mod stage_metric;
mod status;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use sluice_lifecycle::{Lifecycle, Scope};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::access::Access;
pub use self::index::PageEntry;
use crate::dependency::Dependencies;
use crate::listen::Bound;
use crate::metrics::{CONTENT_TYPE, Registry};

/// A request's head must have arrived within this, also on a connection kept alive.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Answers in flight get this long when the process is about to end.
const LAST_ANSWERS: Duration = Duration::from_millis(200);
/// Connections served at once; the others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;

/// A value that is made when it is asked for.
pub type PageSource = Arc<dyn Fn() -> Value + Send + Sync>;
/// A reason not to be ready, when there is one.
pub type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What the pages show.
#[derive(Clone)]
pub struct AdminPages {
    /// `gateway`, `logic` or `task`.
    pub service: &'static str,
    /// The instance id, as text; it may change.
    pub instance: Arc<dyn Fn() -> String + Send + Sync>,
    /// Behind `/readyz` and `/status`.
    pub lifecycle: Lifecycle,
    /// The metrics that `/metrics` shows.
    pub metrics: Registry,
    /// An object whose fields are added to `/status`.
    pub status: PageSource,
    /// What else must hold for `/readyz` to say 200.
    pub ready: Check,
    /// Whether new work is taken, as far as the service itself can tell: `accepting` in `/status`.
    pub accepts: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Whether an operator has it drained: then it is not `accepting`, whatever the service can tell.
    pub drained: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The routes of [`AdminPages::serve_with`], as `GET /` names them.
    pub more: Vec<PageEntry>,
    /// What it depends on: whatever is lost is shown by `/readyz` and `/status`, also of a service that is ready.
    pub dependencies: Dependencies,
    /// What is allowed by the configuration, and hardly meant: in `/status`, as in the log at the start.
    pub warnings: Vec<String>,
    /// Needed for anything but reading: without one nothing under `/admin/` can be changed.
    pub token: Option<Arc<str>>,
    /// Why somebody would notice a kill now, if anybody would: clients would wait, or come back unasked.
    pub missed: Check,
}

impl AdminPages {
    /// Pages with nothing of their own: fill in what the service has.
    #[must_use]
    pub fn new(service: &'static str, lifecycle: Lifecycle, metrics: Registry) -> Self {
        stage_metric::register(&metrics, lifecycle.clone());
        let dependencies = Dependencies::new(&metrics);
        Self {
            service,
            instance: Arc::new(String::new),
            lifecycle,
            metrics,
            status: Arc::new(|| json!({})),
            ready: Arc::new(|| Ok(())),
            accepts: Arc::new(|| true),
            drained: Arc::new(|| false),
            more: Vec::new(),
            dependencies,
            warnings: Vec::new(),
            token: None,
            missed: Arc::new(|| Ok(())),
        }
    }

    /// Starts serving, until the stage of `scope` begins (the last one). Services may add routes of their own
    /// with [`AdminPages::serve_with`].
    pub fn serve(self, bound: Bound, scope: &Scope) {
        self.serve_with(Router::new(), bound, scope);
    }

    /// Like [`AdminPages::serve`], with more routes.
    pub fn serve_with(self, more: Router, bound: Bound, scope: &Scope) {
        let access = Access {
            loopback: bound.address().ip().is_loopback(),
            token: self.token.clone(),
            ..Access::default()
        };
        let router = self.router().merge(more).layer(axum::middleware::map_response(no_store));
        let router = router.layer(axum::middleware::from_fn_with_state(access, access::admit));
        scope.spawn("admin-accept", accept(bound, router, scope.clone()));
    }

    fn router(self) -> Router {
        Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/status", get(|State(admin): State<Arc<Self>>| async move { Json(admin.status()) }))
            .route("/metrics", get(metrics))
            // Not a route of `/`: a service that has pages for people puts its own there.
            .fallback(index::index)
            .with_state(Arc::new(self))
    }
}

impl fmt::Debug for AdminPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminPages").field("service", &self.service).finish_non_exhaustive()
    }
}

/// 200 only in stage ready and when all checks pass; a balancer must see the turn at once.
async fn readyz(State(admin): State<Arc<AdminPages>>) -> Response {
    let stage = admin.lifecycle.stage();
    // Also between the request for a stop and its first stage: balancers must not see a ready
    // process that stops.
    let reason = if admin.lifecycle.progress().borrow().is_ready() {
        (admin.ready)().err()
    } else {
        Some(format!("the service is {}", stage.state()))
    };
    let degraded = admin.dependencies.degraded();
    match reason {
        None => Json(json!({ "stage": stage.as_str(), "degraded": degraded })).into_response(),
        Some(reason) => {
            let body = json!({ "stage": stage.as_str(), "reason": reason, "degraded": degraded });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

async fn metrics(State(admin): State<Arc<AdminPages>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], admin.metrics.encode())
}

async fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn accept(bound: Bound, router: Router, scope: Scope) {
    let stop = scope.token();
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let next = async { (Arc::clone(&free).acquire_owned().await, bound.accept().await) };
        let (permit, (tcp, from)) = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            next = next => next,
        };
        let router = router.clone().layer(Extension(access::Peer(from)));
        let scope_of_connection = scope.clone();
        scope.spawn_transient("admin-connection", async move {
            connection(tcp, router, &scope_of_connection).await;
            drop(permit);
        });
    }
}

async fn connection(tcp: TcpStream, router: Router, scope: &Scope) {
    let stop = scope.token();
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            // hyper panics at it without the timer above.
            .header_read_timeout(HEAD_WITHIN)
            .serve_connection(TokioIo::new(tcp), TowerToHyperService::new(router))
    );
    // A broken admin connection is nobody's concern.
    tokio::select! {
        biased;
        _ = connection.as_mut() => {}
        () = stop.cancelled() => {
            // An answer in flight may be the one that says how the stop went.
            connection.as_mut().graceful_shutdown();
            let _ = timeout(LAST_ANSWERS, connection).await;
        }
    }
}
