//! Why a call of the API failed, as RFC 9457 tells it: our codes, and `retry` as on the wire.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sluice_proto::ids::InvalidName;
use sluice_proto::wire::ErrorCode;
use sluice_store::Class;
use utoipa::ToSchema;

use crate::defaults::API_RETRY_AFTER_S;
use crate::error::CallError;

/// The content type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Machine-readable reasons: those of the wire, and what only HTTP has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Something in the request breaks a rule.
    BadRequest,
    /// No key, or one that is not good.
    Unauthorized,
    /// The key lacks the scope.
    Forbidden,
    /// There is no such path.
    NotFound,
    /// The path is asked with another method.
    MethodNotAllowed,
    /// The body, or `data`, is larger than allowed.
    TooLarge,
    /// The body is said to be something else than JSON.
    UnsupportedMediaType,
    /// The idempotency key was used for other data: final.
    Conflict,
    /// The key calls too often: nothing was done.
    RateLimited,
    /// As many messages that the key scheduled wait as may: cancel some, or wait until some are published.
    TooManyScheduled,
    /// Nothing was done: send again.
    NotSent,
    /// No answer in time: what was sent may or may not be done; send again with the same idempotency key.
    Unavailable,
    /// A bug in the server.
    Internal,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::Conflict,
        Self::RateLimited,
        Self::TooManyScheduled,
        Self::NotSent,
        Self::Unavailable,
        Self::Internal,
    ];

    /// As it stands in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Conflict => "conflict",
            Self::RateLimited => "rate_limited",
            Self::TooManyScheduled => "too_many_scheduled",
            Self::NotSent => "not_sent",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// For people, the same for each problem of the code.
    const fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The request breaks a rule",
            Self::Unauthorized => "A good key is needed",
            Self::Forbidden => "The key lacks the scope",
            Self::NotFound => "There is no such path",
            Self::MethodNotAllowed => "The path is not asked like that",
            Self::TooLarge => "It is larger than allowed",
            Self::UnsupportedMediaType => "The body is not JSON",
            Self::Conflict => "The idempotency key was used for other data",
            Self::RateLimited => "The key calls too often",
            Self::TooManyScheduled => "Too many messages that the key scheduled wait",
            Self::NotSent => "Nothing was done",
            Self::Unavailable => "Whether it was done is not known",
            Self::Internal => "A mistake of the server",
        }
    }

    /// The status of HTTP.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Conflict => StatusCode::CONFLICT,
            Self::RateLimited | Self::TooManyScheduled => StatusCode::TOO_MANY_REQUESTS,
            Self::NotSent | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether sending the same again, with the same idempotency key, can succeed.
    #[must_use]
    pub const fn retry(self) -> bool {
        matches!(self, Self::RateLimited | Self::NotSent | Self::Unavailable)
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The code, for programs.
    pub code: Code,
    /// For people: what was wrong and how to mend it.
    pub detail: String,
    /// When to come again, seconds.
    pub retry_after_s: Option<u64>,
    /// More members, as state and stage of a process that stops.
    pub more: Map<String, Value>,
}

impl Problem {
    /// Of this code, with what was wrong.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let retry_after_s = code.retry().then_some(API_RETRY_AFTER_S);
        Self { code, detail: detail.into(), retry_after_s, more: Map::new() }
    }

    /// The request breaks a rule.
    #[must_use]
    pub fn bad(detail: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, detail)
    }

    /// The body of the answer.
    #[must_use]
    pub fn to_json(&self, request_id: &str) -> Value {
        let Self { code, detail, retry_after_s, more } = self;
        let mut problem = json!({
            "type": format!("urn:sluice:problem:{}", code.as_str()),
            "title": code.title(),
            "status": code.status().as_u16(),
            "detail": detail,
            "code": code.as_str(),
            "retry": code.retry(),
            "request_id": request_id,
        });
        if let Some(problem) = problem.as_object_mut() {
            problem.extend(retry_after_s.map(|seconds| ("retry_after_s".to_owned(), json!(seconds))));
            problem.extend(more.clone());
        }
        problem
    }
}

/// The headers; whoever knows the id of the request adds the body.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"sluice\""));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<InvalidName> for Problem {
    fn from(error: InvalidName) -> Self {
        Self::bad(error.to_string())
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        let code = match &error {
            CallError::Invalid(_) => Code::BadRequest,
            CallError::Auth(_) | CallError::NoTicket => Code::Unauthorized,
            CallError::Full(_) | CallError::NotNow(_) => Code::NotSent,
            CallError::Presence(_) | CallError::TicketsAway(_) => Code::Unavailable,
            CallError::Store(error) => match error.class() {
                Class::Reject => Code::BadRequest,
                Class::Retry | Class::TooLate | Class::Unknown => Code::Unavailable,
            },
        };
        Self::new(code, error.to_string())
    }
}

/// The code of an item that was refused, as the wire has it.
#[must_use]
pub fn code_of_wire(code: &str) -> Code {
    let known = |wire: ErrorCode| wire.as_str() == code;
    if known(ErrorCode::TooLarge) {
        Code::TooLarge
    } else if known(ErrorCode::Conflict) {
        Code::Conflict
    } else if known(ErrorCode::TooManyScheduled) {
        Code::TooManyScheduled
    } else {
        Code::BadRequest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_how_and_whether_again() {
        let problem = Problem::new(Code::NotSent, "logic is starting");
        let json = problem.to_json("r1");
        assert_eq!(
            (&json["status"], &json["code"], &json["retry"], &json["retry_after_s"], &json["request_id"]),
            (&json!(503), &json!("not_sent"), &json!(true), &json!(1), &json!("r1"))
        );
        let response = problem.into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let refused = Problem::new(Code::Unauthorized, "no").into_response();
        assert!(refused.headers().contains_key(header::WWW_AUTHENTICATE));
        assert_eq!(Problem::bad("x").to_json("")["retry"], json!(false));
        assert_eq!(code_of_wire("conflict"), Code::Conflict);
    }
}
