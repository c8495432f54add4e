//! Why etcd did not do what was asked, in words for operators.

use etcd_client::Error;

use super::access;

/// Why etcd did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The lease has expired or was lost: register anew.
    #[error("the lease is gone")]
    LeaseGone,
    /// No answer: done or not.
    #[error("etcd did not answer in time")]
    Timeout,
    /// etcd answered with another error.
    #[error("{}", describe(.0))]
    Etcd(#[from] Error),
}

pub(super) type Result<T, E = RegistryError> = std::result::Result<T, E>;

/// An error of etcd in words for operators: those of the libraries name their own parts.
pub(super) fn describe(error: &Error) -> String {
    let said = innermost(error);
    match access::fix_of(&said) {
        Some(fix) => format!("etcd cannot be used: {said}; {fix}"),
        None => format!("etcd cannot be used: {said}"),
    }
}

fn innermost(error: &Error) -> String {
    let Error::GRpcStatus(status) = error else { return error.to_string() };
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(status);
    let mut last = status.message().to_owned();
    // The innermost one is the system's: "Connection refused".
    while let Some(inner) = cause {
        last = inner.to_string();
        cause = inner.source();
    }
    last
}
