//! What every call may be answered instead, as the document describes it. The answers themselves are made from
//! [`Problem`](super::problem::Problem).

use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use super::problem::Code;
use super::types::Unreached;

/// Why a call failed (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// `urn:sluice:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// For people, the same for each problem of the code.
    pub title: String,
    /// The status of HTTP.
    pub status: u16,
    /// For people: what was wrong and how to mend it.
    pub detail: String,
    /// The code, for programs.
    pub code: Code,
    /// Whether sending the same again, with the same idempotency key, can succeed.
    pub retry: bool,
    /// The id of the request, as in the header `X-Request-Id`.
    pub request_id: String,
    /// When to come again, seconds; where `retry` is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// Of a process that starts or stops: `starting`, `draining`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Of a process that starts or stops: the stage it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Of `disconnect` and `unsubscribe`: registered gateways that were not told. The other members of an answer to the
    /// call stand beside it, and say what was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreached: Option<Vec<Unreached>>,
}

/// What every call may be answered instead.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum Refusals {
    /// `bad_request`: something in the request breaks a rule
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(ProblemBody),
    /// `unauthorized`: no key, or one that is not good
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(ProblemBody),
    /// `forbidden`: the key lacks the scope
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(ProblemBody),
    /// `method_not_allowed`: the path is asked with another method
    #[response(status = 405, content_type = "application/problem+json")]
    MethodNotAllowed(ProblemBody),
    /// `conflict`: the idempotency key was used for other data; final
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(ProblemBody),
    /// `too_large`: the body, or `data`, is larger than allowed
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(ProblemBody),
    /// `unsupported_media_type`: the body is said to be something else than JSON
    #[response(status = 415, content_type = "application/problem+json")]
    UnsupportedMediaType(ProblemBody),
    /// `rate_limited`: the key calls too often, or has too many calls under way; `too_many_scheduled`: as many messages
    /// that it scheduled wait as may; nothing was done
    #[response(status = 429, content_type = "application/problem+json")]
    RateLimited(ProblemBody),
    /// `not_sent`: nothing was done, as while the process starts or stops; `unavailable`: no answer in time, what was sent
    /// may or may not be done, or of `disconnect` and `unsubscribe`: not on all gateways
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(ProblemBody),
}
