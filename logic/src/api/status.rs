//! A problem as gRPC tells it, and which one a status stands for. Pure.

use tonic::metadata::MetadataValue;
use tonic::{Code as GrpcCode, Status};

use super::problem::{Code, Problem};

/// Where a status says which code it stands for.
const CODE: &str = "x-sluice-code";
/// Where it says whether sending the same again can succeed.
const RETRY: &str = "x-sluice-retry";
/// Where it says when, seconds.
const RETRY_AFTER: &str = "x-sluice-retry-after";

/// A problem as gRPC tells it.
pub(super) fn status(problem: &Problem) -> Status {
    let code = match problem.code {
        Code::BadRequest | Code::UnsupportedMediaType => GrpcCode::InvalidArgument,
        Code::Unauthorized => GrpcCode::Unauthenticated,
        Code::Forbidden => GrpcCode::PermissionDenied,
        Code::NotFound | Code::MethodNotAllowed => GrpcCode::Unimplemented,
        Code::TooLarge => GrpcCode::OutOfRange,
        Code::Conflict => GrpcCode::AlreadyExists,
        Code::RateLimited | Code::TooManyScheduled => GrpcCode::ResourceExhausted,
        Code::NotSent | Code::Unavailable => GrpcCode::Unavailable,
        Code::Internal => GrpcCode::Internal,
    };
    let mut status = Status::new(code, problem.detail.clone());
    let metadata = status.metadata_mut();
    metadata.insert(CODE, MetadataValue::from_static(problem.code.as_str()));
    metadata.insert(RETRY, MetadataValue::from_static(if problem.code.retry() { "true" } else { "false" }));
    if let Some(seconds) = problem.retry_after_s {
        metadata.insert(RETRY_AFTER, seconds.into());
    }
    status
}

/// The code that a status stands for; one that is not ours is a mistake in the call.
pub(super) fn code_of(status: &Status) -> Code {
    let said = status.metadata().get(CODE).and_then(|code| code.to_str().ok());
    let known = Code::ALL.into_iter().find(|code| Some(code.as_str()) == said);
    known.unwrap_or(Code::BadRequest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_stands_for_a_problem_and_says_which() {
        for code in Code::ALL {
            let status = status(&Problem::new(code, "why"));
            assert_eq!((code_of(&status), status.message()), (code, "why"));
            let says = |name: &str| status.metadata().get(name).map(|value| value.to_str().expect("text"));
            assert_eq!(says(RETRY), Some(if code.retry() { "true" } else { "false" }));
            assert_eq!(says(RETRY_AFTER).is_some(), code.retry());
        }
        assert_eq!(code_of(&Status::unimplemented("no such call")), Code::BadRequest);
    }
}
