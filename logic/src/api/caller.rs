//! What a call that was let in brings along: whose key it showed, and its place in the counts.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::FromRequestParts;
use http::request::Parts;
use sluice_trace::Parent;

use super::counts::CountedCall;
use super::keys::ApiKey;
use super::problem::{Code, Problem};

/// Who calls.
#[derive(Clone)]
pub(super) struct Caller(pub(super) Arc<ApiKey>);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Problem::new(Code::Unauthorized, "this path asks for a key"))
    }
}

/// What the call is a part of, by its header `traceparent`; one that cannot be read is none.
pub(super) struct PartOf(pub(super) Parent);

impl<S: Sync> FromRequestParts<S> for PartOf {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Parent::of(&parts.headers)))
    }
}

/// A call that whoever answers may take along, to go on after its head was sent.
#[derive(Clone, Default)]
pub(super) struct Handed(Arc<Mutex<Option<CountedCall>>>);

impl Handed {
    pub(super) fn take(&self) -> Option<CountedCall> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn give_back(&self, call: CountedCall) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(call);
    }
}
