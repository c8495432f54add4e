//! What every request passes: it gets an id, is counted, shows its key, and has its time. The id and the problem meet
//! on the way out.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};
use tokio::time::timeout;
use tonic::Status;

use crate::api::Api;
use crate::api::caller::{Caller, Handed};
use crate::api::keys::ApiKey;
use crate::api::problem::{Code, Problem};
use crate::api::send::unknown;
use crate::api::status::{code_of, status};
use crate::defaults::{API_BODY_WITHIN, API_TURN_WITHIN, CALL_WITHIN};

/// Names a request; a caller may choose it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken over.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Gives every answer the id of its request, and every problem its body.
pub(super) async fn identify(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let text = problem.to_json(id.to_str().unwrap_or_default()).to_string();
        response.headers_mut().insert(header::CONTENT_LENGTH, text.len().into());
        *response.body_mut() = Body::from(text);
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    // Answers are somebody's, and of this moment.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The caller's, where it is one that can be shown, else a fresh one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID);
    let shown = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    given.filter(shown).cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&format!("{:032x}", rand::random::<u128>()))
            .unwrap_or_else(|_| HeaderValue::from_static("-"))
    })
}

/// Lets a call in, or says why not; counts it either way.
pub(super) async fn admit(
    State((api, method)): State<(Arc<Api>, &'static str)>,
    request: Request,
    next: Next,
) -> Response {
    admitted(&api, method, request, next).await
}

/// The same for a call of gRPC, which is told as gRPC tells.
pub(super) async fn admit_grpc(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let name = request.uri().path().rsplit('/').next().unwrap_or_default();
    let method =
        GRPC_METHODS.into_iter().find(|(grpc, _)| *grpc == name).map_or("other", |(_, method)| method);
    let response = admitted(&api, method, request, next).await;
    match response.extensions().get::<Problem>() {
        Some(problem) => status(problem).into_http(),
        None => response,
    }
}

/// Calls of gRPC, and how they are counted.
const GRPC_METHODS: [(&str, &str); 13] = [
    ("Publish", "publish"),
    ("Broadcast", "broadcast"),
    ("Batch", "batch"),
    ("History", "history"),
    ("Export", "export"),
    ("Presence", "presence"),
    ("Rooms", "rooms"),
    ("Schedule", "schedule"),
    ("Cancel", "cancel"),
    ("Scheduled", "scheduled"),
    ("Disconnect", "disconnect"),
    ("Unsubscribe", "unsubscribe"),
    ("Info", "info"),
];

async fn admitted(api: &Arc<Api>, method: &'static str, mut request: Request, next: Next) -> Response {
    let version = request.version();
    let handed = Handed::default();
    handed.give_back(api.counts.begin(method));
    let answer = async {
        api.admits()?;
        let key = key_of(api, request.headers())?;
        if let Some(mut call) = handed.take() {
            call.is_of(key.name());
            handed.give_back(call);
        }
        key.charge(1)?;
        let places = places(api, &key).await?;
        request.extensions_mut().insert(Caller(key));
        request.extensions_mut().insert(handed.clone());
        let answer = timeout(API_BODY_WITHIN + API_TURN_WITHIN + CALL_WITHIN, next.run(request));
        // A stop that has no more time for it says so, rather than to cut it.
        let answer = api.give_up.run_until_cancelled(answer).await;
        drop(places);
        match answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(_)) | None => Err(unknown()),
        }
    };
    let mut response = answer.await.unwrap_or_else(|problem| {
        if problem.code == Code::Unauthorized {
            tracing::debug!(method, "A call of the API came without a good key.");
        }
        problem.into_response()
    });
    if let Some(mut call) = handed.take() {
        let problem = response.extensions().get::<Problem>().map(|problem| problem.code);
        let of_grpc = || response.extensions().get::<Status>().map(code_of);
        let of_http = || (response.status() >= StatusCode::BAD_REQUEST).then_some(Code::BadRequest);
        call.ends_with(problem.or_else(of_grpc).or_else(of_http));
    }
    // A process that stops is not asked again on this connection; HTTP/2 has words of its own for that.
    if api.admits().is_err() && version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The key that a request shows, if it is good.
fn key_of(api: &Api, headers: &HeaderMap) -> Result<Arc<ApiKey>, Problem> {
    let missing = || {
        let detail = "a key is needed: send the header Authorization: Bearer sluice_…; `sluice api-key new NAME` makes one";
        Problem::new(Code::Unauthorized, detail)
    };
    let mut shown = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(shown), None) = (shown.next(), shown.next()) else { return Err(missing()) };
    let (scheme, key) = shown.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    api.keys.of(key.trim(), api.clock.now_ms())
}

/// A place among the calls of the key and one among all; the body is not read before.
async fn places<'a>(
    api: &'a Api,
    key: &Arc<ApiKey>,
) -> Result<(OwnedSemaphorePermit, SemaphorePermit<'a>), Problem> {
    // Of the key first: whoever has many calls waits for its own, and holds no place of others meanwhile.
    let places = async {
        let of_key = Arc::clone(&key.calls).acquire_owned().await.ok()?;
        Some((of_key, api.calls.acquire().await.ok()?))
    };
    let full = || {
        Problem::new(Code::RateLimited, "too many calls are under way: wait for answers before you send more")
    };
    timeout(API_TURN_WITHIN, places).await.ok().flatten().ok_or_else(full)
}
