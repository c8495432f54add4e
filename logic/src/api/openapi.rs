//! The API as OpenAPI 3.1, made from the code that serves it. `docs/openapi.json` is a copy for whoever has no server at
//! hand; a test keeps it the same.

use std::sync::LazyLock;

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::http;
use super::problem::Code;
use super::refusals::ProblemBody;
use super::types::{
    IdempotencyKeyName, KnownRoomName, MessageKey, RoomName, RoomPrefix, SessionName, UserName,
};

/// The document, as it is served.
pub static OPENAPI: LazyLock<String> = LazyLock::new(|| {
    let document = Document::openapi().to_pretty_json();
    // Only what cannot be JSON fails.
    document.unwrap_or_default()
});

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sluice",
        description = "The HTTP API of Sluice, for backends: publish, look, schedule, disconnect. Every call asks for a key, \
                       `Authorization: Bearer …`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        http::publish,
        http::broadcast,
        http::batch,
        http::history,
        http::export,
        http::presence,
        http::rooms,
        http::schedule,
        http::cancel,
        http::scheduled,
        http::disconnect,
        http::unsubscribe,
        http::info,
    ),
    // What only refusals name is not found by itself.
    components(schemas(
        ProblemBody,
        Code,
        IdempotencyKeyName,
        KnownRoomName,
        MessageKey,
        RoomName,
        RoomPrefix,
        SessionName,
        UserName,
    )),
    modifiers(&Keys),
)]
struct Document;

/// Keys are bearer tokens.
struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let key = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A key of the file api.keys_file; `sluice api-key new NAME` makes one"));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(key.build()));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_document_in_the_repository_is_the_one_that_is_served() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        let now = format!("{}\n", OPENAPI.trim_end());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&file, &now).expect("written");
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            kept == now,
            "docs/openapi.json differs from the code: UPDATE_DOCS=1 cargo nextest run -p sluice-logic \
             -E 'test(the_document_in_the_repository)'"
        );
    }

    /// What is named and not there.
    fn dangling(value: &Value, document: &Value) -> Vec<String> {
        let within = |values: Vec<&Value>| -> Vec<String> {
            values.iter().flat_map(|value| dangling(value, document)).collect()
        };
        match value {
            Value::Array(values) => within(values.iter().collect()),
            Value::Object(members) => {
                let named = members.get("$ref").and_then(Value::as_str);
                let mut found = within(members.values().collect());
                let gone = |name: &&str| document.pointer(name.trim_start_matches('#')).is_none();
                found.extend(named.filter(gone).map(str::to_owned));
                found
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        }
    }

    #[test]
    fn every_call_is_described_with_its_refusals() {
        let document: Value = serde_json::from_str(&OPENAPI).expect("JSON");
        assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
        assert_eq!(dangling(&document, &document), Vec::<String>::new());
        let paths = document["paths"].as_object().expect("paths");
        assert_eq!(paths.len(), 13);
        for (path, methods) in paths {
            for (method, call) in methods.as_object().expect("methods") {
                for status in ["200", "400", "401", "429", "503"] {
                    let said = &call["responses"][status]["description"];
                    assert!(said.as_str().is_some_and(|said| !said.is_empty()), "{method} {path} {status}");
                }
                assert!(call["security"].is_array() && call["summary"].is_string(), "{method} {path}");
            }
        }
    }
}
