//! Nothing is traced: what the services call, without a size and without an effect.

use sluice_lifecycle::Scope;
use sluice_service::metrics::Registry;

use crate::{Kind, Trace};

/// The span of whoever calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parent(());

impl Parent {
    /// Reads what stands in a `traceparent`.
    #[must_use]
    pub fn read(_: &str) -> Self {
        Self(())
    }

    /// The same of a header or of metadata.
    #[must_use]
    pub fn of(_: &http::HeaderMap) -> Self {
        Self(())
    }

    /// Whether its trace is recorded.
    #[must_use]
    pub const fn is_recorded(&self) -> bool {
        false
    }
}

/// A part of a trace.
#[derive(Debug, Clone, Default)]
pub struct Span(());

impl Span {
    /// As the parent of others.
    #[must_use]
    pub const fn parent(&self) -> Parent {
        Parent(())
    }

    /// What other services are told of it.
    #[must_use]
    pub const fn traceparent(&self) -> Option<String> {
        None
    }

    /// A part of it.
    #[must_use]
    pub const fn child(&self, _: &'static str, _: Kind) -> Self {
        Self(())
    }

    /// Adds a text.
    pub const fn text(&self, _: &'static str, _: &str) {}

    /// Adds a number.
    pub const fn number(&self, _: &'static str, _: u64) {}

    /// It did not come to what was asked for.
    pub const fn fail(&self, _: &'static str) {}
}

/// Spans of some of many, by their number among all.
#[derive(Debug, Clone, Default)]
pub struct Spans(());

impl Spans {
    /// Adds one that is recorded.
    pub const fn push(&mut self, _: u64, _: Span) {}

    /// Whether none of all is recorded.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        true
    }

    /// The span with this number.
    #[must_use]
    pub const fn get(&self, _: u64) -> Option<&Span> {
        None
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Span)> {
        std::iter::empty()
    }

    /// A part of each.
    #[must_use]
    pub const fn children(&self, _: &'static str, _: Kind) -> Self {
        Self(())
    }

    /// None of them came to what was asked for.
    pub const fn fail(&self, _: &'static str) {}
}

/// Begins traces.
#[derive(Debug, Clone, Default)]
pub struct Tracer(());

impl Tracer {
    /// One that traces nothing.
    #[must_use]
    pub fn start(_: &Trace, _: (&'static str, &str), _: &Scope, _: &Registry) -> Self {
        Self(())
    }

    /// Where a publish comes in.
    #[must_use]
    pub const fn entry(&self, _: &'static str, _: Kind, _: Parent) -> Span {
        Span(())
    }

    /// A part of what came in elsewhere.
    #[must_use]
    pub const fn child(&self, _: &'static str, _: Kind, _: Parent) -> Span {
        Span(())
    }
}
