//! The API over HTTP: paths, bodies and answers. What a call means is decided by the service.

mod admit;
mod body;

use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::extract::State;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::value::RawValue;
use sluice_proto::api::DESCRIPTORS;

use self::admit::{admit, admit_grpc, identify};
use self::body::{BulkBody, IdempotencyKey, JsonBody, Params, one_key};
use super::Api;
use super::caller::{Caller, Handed, PartOf};
use super::calls::Broadcast;
use super::export::NDJSON;
use super::grpc::Grpc;
use super::problem::{Code, Problem};
use super::refusals::Refusals;
use super::send::{Draft, When};
use super::types::{
    BatchBody, BatchItem, BroadcastBody, CancelBody, Cancelled, DisconnectBody, Disconnected, ExportQuery,
    History, HistoryQuery, IdempotencyKeyName, Info, Presence, PresenceQuery, PublishBody, Published,
    Results, Rooms, RoomsQuery, ScheduleBody, Scheduled, ScheduledQuery, UnsubscribeBody, Unsubscribed,
    WaitingMessages,
};

const IDEMPOTENCY: &str =
    "The idempotency key, in the place of `key`: the message is stored once for room, sender and key";

type Answer<T> = Result<Json<T>, Problem>;
type Service = State<Arc<Api>>;

/// All paths; `document` describes them. Every call is counted under the last part of its path.
pub(super) fn router(api: Arc<Api>, document: &'static LazyLock<String>) -> Router {
    let call = |name: &'static str, path: MethodRouter<Arc<Api>>| {
        let counted = axum::middleware::from_fn_with_state((Arc::clone(&api), name), admit);
        (format!("/v1/{name}"), path.fallback(other_method).layer(counted))
    };
    let calls = [
        call("publish", post(publish)),
        call("broadcast", post(broadcast)),
        call("batch", post(batch)),
        call("history", get(history)),
        call("export", get(export)),
        call("presence", get(presence)),
        call("rooms", get(rooms)),
        call("schedule", post(schedule)),
        call("cancel", post(cancel)),
        call("scheduled", get(scheduled)),
        call("disconnect", post(disconnect)),
        call("unsubscribe", post(unsubscribe)),
        call("info", get(info)),
    ];
    let router = calls.into_iter().fold(Router::new(), |router, (path, call)| router.route(&path, call));
    router
        .merge(grpc_routes(&api))
        .route("/v1/", get(page))
        .route("/v1/openapi.json", get(move || openapi_json(document)))
        .method_not_allowed_fallback(other_method)
        .fallback(no_such_path)
        .layer(axum::middleware::from_fn(identify))
        .with_state(api)
}

/// The calls of gRPC, and what describes them.
fn grpc_routes(api: &Arc<Api>) -> Router<Arc<Api>> {
    let admit = axum::middleware::from_fn_with_state(Arc::clone(api), admit_grpc);
    let calls = Grpc(Arc::clone(api)).into_server();
    let routes = Router::new().route_service("/sluice.api.v1.Api/{call}", calls).route_layer(admit);
    let reflection =
        || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    match (reflection().build_v1(), reflection().build_v1alpha()) {
        (Ok(now), Ok(before)) => routes
            .route_service("/grpc.reflection.v1.ServerReflection/{call}", now)
            .route_service("/grpc.reflection.v1alpha.ServerReflection/{call}", before),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "The API cannot describe itself over gRPC.");
            routes
        }
    }
}

/// To try it by hand; it loads nothing from elsewhere.
async fn page() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [(header::CONTENT_SECURITY_POLICY, policy), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, Html(include_str!("page.html"))).into_response()
}

async fn openapi_json(document: &'static LazyLock<String>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document.as_str()).into_response()
}

async fn no_such_path(uri: http::Uri) -> Problem {
    let detail = format!("there is no {:?}: /v1/openapi.json lists all calls", uri.path());
    Problem::new(Code::NotFound, detail)
}

async fn other_method(method: http::Method, uri: http::Uri) -> Problem {
    let detail = format!("{} is not asked with {method}: /v1/openapi.json says how", uri.path());
    Problem::new(Code::MethodNotAllowed, detail)
}

/// Publishes a message: answered once it is committed.
#[utoipa::path(
    post,
    path = "/v1/publish",
    request_body = PublishBody,
    params(("Idempotency-Key" = Option<IdempotencyKeyName>, Header, description = IDEMPOTENCY)),
    responses((status = 200, body = Published, description = "It is committed"), Refusals),
    security(("key" = [])),
)]
pub(super) async fn publish(
    State(api): Service,
    Caller(key): Caller,
    PartOf(parent): PartOf,
    header: IdempotencyKey,
    JsonBody(body): JsonBody<PublishBody>,
) -> Answer<Published> {
    let PublishBody { room, data, key: given, from } = body;
    let draft = Draft { room, data: text(data), key: one_key(given, header)?, from, when: When::Now, parent };
    api.publish(&key, draft).await.map(Json)
}

/// Publishes a message to many rooms: each has its own outcome.
#[utoipa::path(
    post,
    path = "/v1/broadcast",
    request_body = BroadcastBody,
    params(("Idempotency-Key" = Option<IdempotencyKeyName>, Header, description = IDEMPOTENCY)),
    responses((status = 200, body = Results, description = "What became of it in each room, in order"), Refusals),
    security(("key" = [])),
)]
pub(super) async fn broadcast(
    State(api): Service,
    Caller(key): Caller,
    PartOf(parent): PartOf,
    header: IdempotencyKey,
    BulkBody(body, _turn): BulkBody<BroadcastBody>,
) -> Answer<Results> {
    let BroadcastBody { rooms, data, key: given, from } = body;
    let broadcast = Broadcast { rooms, data: text(data), key: one_key(given, header)?, from, parent };
    api.broadcast(&key, broadcast).await.map(Json)
}

/// Publishes many messages, also for later: each has its own outcome.
#[utoipa::path(
    post,
    path = "/v1/batch",
    request_body = BatchBody,
    params(("Idempotency-Key" = Option<IdempotencyKeyName>, Header, description = IDEMPOTENCY)),
    responses((status = 200, body = Results, description = "What became of each message, in order"), Refusals),
    security(("key" = [])),
)]
pub(super) async fn batch(
    State(api): Service,
    Caller(key): Caller,
    PartOf(parent): PartOf,
    header: IdempotencyKey,
    BulkBody(body, _turn): BulkBody<BatchBody>,
) -> Answer<Results> {
    let draft = |(place, item): (usize, BatchItem)| {
        let when = When::of(item.delay_ms, item.at)
            .map_err(|problem| Problem::bad(format!("messages[{place}]: {}", problem.detail)))?;
        let key = item.key.or_else(|| header.of_item(place));
        Ok(Draft { room: item.room, data: text(item.data), key, from: item.from, when, parent })
    };
    let drafts = body.messages.into_iter().enumerate().map(draft).collect::<Result<_, Problem>>()?;
    api.batch(&key, drafts).await.map(Json)
}

/// Keeps a message and publishes it when it is due.
#[utoipa::path(
    post,
    path = "/v1/schedule",
    request_body = ScheduleBody,
    params(("Idempotency-Key" = Option<IdempotencyKeyName>, Header, description = IDEMPOTENCY)),
    responses((status = 200, body = Scheduled, description = "It is committed that it will be published"), Refusals),
    security(("key" = [])),
)]
pub(super) async fn schedule(
    State(api): Service,
    Caller(key): Caller,
    PartOf(parent): PartOf,
    header: IdempotencyKey,
    JsonBody(body): JsonBody<ScheduleBody>,
) -> Answer<Scheduled> {
    let ScheduleBody { room, data, key: given, from, delay_ms, at } = body;
    let when = When::of(delay_ms, at)?;
    let draft = Draft { room, data: text(data), key: one_key(given, header)?, from, when, parent };
    api.schedule(&key, draft).await.map(Json)
}

/// Takes a scheduled message back.
#[utoipa::path(
    post,
    path = "/v1/cancel",
    request_body = CancelBody,
    responses((status = 200, body = Cancelled, description = "Whether it is not published"), Refusals),
    security(("key" = [])),
)]
pub(super) async fn cancel(
    State(api): Service,
    Caller(key): Caller,
    JsonBody(body): JsonBody<CancelBody>,
) -> Answer<Cancelled> {
    let CancelBody { room, key: of, from } = body;
    api.cancel(&key, room, of, from).await.map(Json)
}

/// A page of a room: the newest messages, those below a position, or those above one.
#[utoipa::path(
    get,
    path = "/v1/history",
    params(HistoryQuery),
    responses((status = 200, body = History, description = "The page, oldest first"), Refusals),
    security(("key" = [])),
)]
pub(super) async fn history(
    State(api): Service,
    Caller(key): Caller,
    Params(query): Params<HistoryQuery>,
) -> Answer<History> {
    api.history(&key, query).await.map(Json)
}

/// Who is in a room, or whether a user is connected.
#[utoipa::path(
    get,
    path = "/v1/presence",
    params(PresenceQuery),
    responses((status = 200, body = Presence, description = "Who is there"), Refusals),
    security(("key" = [])),
)]
pub(super) async fn presence(
    State(api): Service,
    Caller(key): Caller,
    Params(query): Params<PresenceQuery>,
) -> Answer<Presence> {
    api.presence(&key, query).await.map(Json)
}

/// Rooms by prefix, with their heads and subscribers.
#[utoipa::path(
    get,
    path = "/v1/rooms",
    params(RoomsQuery),
    responses((status = 200, body = Rooms, description = "The page"), Refusals),
    security(("key" = [])),
)]
pub(super) async fn rooms(
    State(api): Service,
    Caller(key): Caller,
    Params(query): Params<RoomsQuery>,
) -> Answer<Rooms> {
    api.rooms(&key, query).await.map(Json)
}

/// What waits in a room for its time.
#[utoipa::path(
    get,
    path = "/v1/scheduled",
    params(ScheduledQuery),
    responses((status = 200, body = WaitingMessages, description = "The page"), Refusals),
    security(("key" = [])),
)]
pub(super) async fn scheduled(
    State(api): Service,
    Caller(key): Caller,
    Params(query): Params<ScheduledQuery>,
) -> Answer<WaitingMessages> {
    api.scheduled(&key, query).await.map(Json)
}

/// Ends connections of a user on every gateway, and revokes the tokens unless they are to be kept.
#[utoipa::path(
    post,
    path = "/v1/disconnect",
    request_body = DisconnectBody,
    responses((status = 200, body = Disconnected, description = "All gateways have done it"), Refusals),
    security(("key" = [])),
)]
pub(super) async fn disconnect(
    State(api): Service,
    Caller(key): Caller,
    JsonBody(body): JsonBody<DisconnectBody>,
) -> Answer<Disconnected> {
    api.disconnect(&key, body).await.map(Json)
}

/// Ends subscriptions of a user on every gateway, and no connection.
#[utoipa::path(
    post,
    path = "/v1/unsubscribe",
    request_body = UnsubscribeBody,
    responses((status = 200, body = Unsubscribed, description = "All gateways have done it"), Refusals),
    security(("key" = [])),
)]
pub(super) async fn unsubscribe(
    State(api): Service,
    Caller(key): Caller,
    JsonBody(body): JsonBody<UnsubscribeBody>,
) -> Answer<Unsubscribed> {
    api.unsubscribe(&key, body).await.map(Json)
}

/// What answers here, and what the key may do.
#[utoipa::path(
    get,
    path = "/v1/info",
    responses((status = 200, body = Info, description = "About this process, the key and the deployment"), Refusals),
    security(("key" = [])),
)]
pub(super) async fn info(State(api): Service, Caller(key): Caller) -> Json<Info> {
    Json(api.info(&key))
}

/// A room from a position on, one message a line, to where its head was at the beginning. The last line, `{"end":…}`,
/// says why it ends and where to go on; without it the answer was cut.
#[utoipa::path(
    get,
    path = "/v1/export",
    params(ExportQuery),
    responses((status = 200, body = String, content_type = NDJSON, description = "Messages, one a line"), Refusals),
    security(("key" = [])),
)]
pub(super) async fn export(
    State(api): Service,
    Caller(key): Caller,
    Extension(calls): Extension<Handed>,
    Params(query): Params<ExportQuery>,
) -> Result<Response, Problem> {
    let Some(call) = calls.take() else { return Err(Problem::new(Code::Internal, "the call is gone")) };
    match api.export(&key, query, call).await {
        Ok(export) => {
            let body = Body::from_stream(export.lines());
            Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON))], body).into_response())
        }
        Err(refused) => {
            let (call, problem) = *refused;
            calls.give_back(call);
            Err(problem)
        }
    }
}

fn text(data: Box<RawValue>) -> Bytes {
    String::from(Box::<str>::from(data)).into()
}
