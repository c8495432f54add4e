//! The pages: what is asked, what is answered. Whoever gets here with anything but GET has shown the token.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_cluster::{Command, Duty, pages};
use sluice_service::admin::PageEntry;
use sluice_service::clock::Clock;

use crate::Operator;

/// The routes below, as `GET /` names them.
pub(crate) const PAGES: [PageEntry; 8] = [
    PageEntry::get("/admin/instances", "who lives"),
    PageEntry::get("/admin/duties", "who owns what"),
    PageEntry::post("/admin/instances/{id}/{command}", "has an instance stop, drain or undrain"),
    PageEntry::post("/admin/duties/{duty}/release", "takes a duty from its owner"),
    PageEntry::post("/admin/duties/{duty}/{part}/release", "the same of a duty that has parts"),
    PageEntry::post("/admin/command", "any of these, as JSON: command, target"),
    PageEntry::post("/admin/drain", "moves what this instance has to others; it stays"),
    PageEntry::post("/admin/undrain", "has this instance back"),
];

/// Stands for every duty in a command.
const ALL: &str = "all";

/// `POST /admin/command`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    command: String,
    target: String,
    /// Needed for all duties at once.
    #[serde(default)]
    emergency: bool,
}

pub(crate) fn routes(operator: Operator) -> Router {
    Router::new()
        .route("/admin/instances", get(instances))
        .route("/admin/duties", get(duties))
        .route("/admin/instances/{id}/{command}", post(to_instance))
        // Names of duties have one part or two.
        .route("/admin/duties/{duty}/release", post(release))
        .route("/admin/duties/{duty}/{part}/release", post(release_part))
        .route("/admin/command", post(command))
        .route("/admin/drain", post(|State(it): State<Operator>| async move { it.here(Command::Drain) }))
        .route("/admin/undrain", post(|State(it): State<Operator>| async move { it.here(Command::Undrain) }))
        .with_state(operator)
}

async fn instances(State(operator): State<Operator>) -> Json<Value> {
    let leases = operator.cluster.leases().await;
    let view = operator.cluster.view().borrow().clone();
    Json(pages::instances(&view, &leases, Clock::system().now_ms()))
}

async fn duties(State(operator): State<Operator>) -> Json<Value> {
    Json(pages::duties(&operator.cluster.duties(), Clock::system().now_ms()))
}

async fn to_instance(
    State(operator): State<Operator>,
    Path((id, command)): Path<(String, String)>,
) -> Response {
    operator.command(&command, &id).await
}

async fn release(State(operator): State<Operator>, Path(duty): Path<String>) -> Response {
    operator.release(&duty).await
}

async fn release_part(
    State(operator): State<Operator>,
    Path((duty, part)): Path<(String, String)>,
) -> Response {
    operator.release(&format!("{duty}/{part}")).await
}

async fn command(State(operator): State<Operator>, body: Bytes) -> Response {
    let wish: Wish = match serde_json::from_slice(&body) {
        Ok(wish) => wish,
        Err(error) => {
            let form = r#"{"command":"stop|drain|undrain|release","target":"INSTANCE or DUTY"}"#;
            return refuse(StatusCode::BAD_REQUEST, &format!("{error}: send {form}"));
        }
    };
    match wish.command.as_str() {
        "release" if wish.target == ALL && wish.emergency => operator.release_everything().await,
        "release" if wish.target == ALL => {
            let why = "all duties at once are released in an emergency only: add \"emergency\":true";
            refuse(StatusCode::BAD_REQUEST, why)
        }
        "release" => operator.release(&wish.target).await,
        command => operator.command(command, &wish.target).await,
    }
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}

impl Operator {
    /// Has this process do it.
    fn here(&self, command: Command) -> Response {
        let me = self.cluster.me().borrow().clone();
        match self.carry_out(command) {
            Ok(()) => accepted(command, me.as_str()),
            Err(_stopping) => refuse(StatusCode::CONFLICT, &format!("{me} stops already")),
        }
    }

    async fn command(&self, command: &str, id: &str) -> Response {
        let command: Command = match command.parse() {
            Ok(command) => command,
            Err(unknown) => return refuse(StatusCode::NOT_FOUND, &unknown.to_string()),
        };
        // Also while the registry is away.
        if self.cluster.me().borrow().as_str() == id {
            return self.here(command);
        }
        let listed = self.cluster.view().borrow().instances.get(id).filter(|one| !one.is_seed()).cloned();
        let Some(instance) = listed else {
            let why = format!("no instance {id:?} is registered: GET /admin/instances names all");
            return refuse(StatusCode::NOT_FOUND, &why);
        };
        match self.cluster.command(&instance.id, command).await {
            Ok(()) => accepted(command, id),
            Err(why) => {
                refuse(StatusCode::SERVICE_UNAVAILABLE, &format!("it was not carried to {id}: {why}"))
            }
        }
    }

    async fn release(&self, name: &str) -> Response {
        let duty: Duty = match name.parse() {
            Ok(duty) => duty,
            Err(unknown) => return refuse(StatusCode::NOT_FOUND, &unknown.to_string()),
        };
        match self.cluster.release_duty(duty).await {
            Ok(Some(owner)) => {
                tracing::warn!(%duty, %owner, "An operator takes a duty from its owner.");
                Json(json!({ "released": duty.to_string(), "owner": owner.as_str() })).into_response()
            }
            Ok(None) => refuse(StatusCode::CONFLICT, &format!("nobody owns {duty}")),
            Err(why) => refuse(StatusCode::SERVICE_UNAVAILABLE, &format!("{duty} was not released: {why}")),
        }
    }

    async fn release_everything(&self) -> Response {
        let released = match self.cluster.release_everything().await {
            Ok(released) => released,
            Err(why) => {
                return refuse(
                    StatusCode::SERVICE_UNAVAILABLE,
                    &format!("not everything was released: {why}"),
                );
            }
        };
        let duties = released.duties.iter();
        let duties: Vec<Value> = duties
            .map(|(duty, owner)| json!({ "duty": duty.to_string(), "owner": owner.as_str() }))
            .collect();
        let registrations: Vec<String> = released.registrations.iter().map(ToString::to_string).collect();
        tracing::warn!(
            duties = duties.len(),
            registrations = registrations.join(" "),
            "EMERGENCY RELEASE: an operator took every duty from its owner and removed registrations of the gone."
        );
        Json(json!({ "released": duties, "registrations_removed": registrations })).into_response()
    }
}

/// It is under way; `/admin/instances` and `/status` say how far.
fn accepted(command: Command, target: &str) -> Response {
    (StatusCode::ACCEPTED, Json(json!({ "command": command.as_str(), "target": target }))).into_response()
}
