//! A part of a trace: begun where it is made, ended where its last copy is dropped.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::Kind;
use crate::parent::{Context, Parent};
use crate::tracer::Collecting;

/// A part of a trace, or nothing where none is recorded.
#[derive(Debug, Clone, Default)]
pub struct Span(Option<Arc<OpenSpan>>);

struct OpenSpan {
    collecting: Arc<Collecting>,
    name: &'static str,
    kind: SpanKind,
    context: Context,
    parent: Option<SpanId>,
    /// The parent is another process's.
    remote: bool,
    began: SystemTime,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    attributes: Vec<KeyValue>,
    status: Status,
}

/// What a span begins with.
pub(crate) struct Begun {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) context: Context,
    pub(crate) parent: Option<SpanId>,
    pub(crate) remote: bool,
}

impl Span {
    pub(crate) fn begin(collecting: &Arc<Collecting>, begun: Begun) -> Self {
        let Begun { name, kind, context, parent, remote } = begun;
        let kind = match kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Producer => SpanKind::Producer,
            Kind::Consumer => SpanKind::Consumer,
        };
        let (collecting, began) = (Arc::clone(collecting), SystemTime::now());
        let said = Mutex::default();
        Self(Some(Arc::new(OpenSpan { collecting, name, kind, context, parent, remote, began, said })))
    }

    /// As the parent of others.
    #[must_use]
    pub fn parent(&self) -> Parent {
        Parent(self.0.as_ref().map(|open| open.context))
    }

    /// What other services are told of it.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        self.0.as_ref().map(|open| open.context.to_string())
    }

    /// A part of it.
    #[must_use]
    pub fn child(&self, name: &'static str, kind: Kind) -> Self {
        self.0
            .as_ref()
            .map_or_else(Self::default, |open| open.collecting.child(name, kind, open.context, false))
    }

    /// Adds a text.
    pub fn text(&self, key: &'static str, value: &str) {
        if let Some(open) = &self.0 {
            open.say(key, value.to_owned().into());
        }
    }

    /// Adds a number.
    pub fn number(&self, key: &'static str, value: u64) {
        if let Some(open) = &self.0 {
            open.say(key, i64::try_from(value).unwrap_or(i64::MAX).into());
        }
    }

    /// It did not come to what was asked for.
    pub fn fail(&self, why: &'static str) {
        if let Some(open) = &self.0 {
            open.said().status = Status::error(why);
        }
    }
}

impl OpenSpan {
    fn say(&self, key: &'static str, value: Value) {
        self.said().attributes.push(KeyValue::new(key, value));
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        let Context { trace, span, .. } = self.context;
        let Said { attributes, status } = std::mem::take(&mut *self.said());
        self.collecting.ended(SpanData {
            span_context: SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id: self.parent.unwrap_or(SpanId::INVALID),
            parent_span_is_remote: self.remote,
            span_kind: self.kind.clone(),
            name: Cow::Borrowed(self.name),
            start_time: self.began,
            // A clock that was set back meanwhile must not give a span of negative length.
            end_time: SystemTime::now().max(self.began),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: self.collecting.scope().clone(),
        });
    }
}

impl fmt::Debug for OpenSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.context)
    }
}

/// Spans of some of many, by their number among all.
#[derive(Debug, Clone, Default)]
pub struct Spans(Vec<(u64, Span)>);

impl Spans {
    /// Adds one that is recorded.
    pub fn push(&mut self, number: u64, span: Span) {
        if span.0.is_some() {
            self.0.push((number, span));
        }
    }

    /// Whether none of all is recorded.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The span with this number.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&Span> {
        self.0.iter().find(|(at, _)| *at == number).map(|(_, span)| span)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Span)> {
        self.0.iter().map(|(number, span)| (*number, span))
    }

    /// A part of each.
    #[must_use]
    pub fn children(&self, name: &'static str, kind: Kind) -> Self {
        Self(self.0.iter().map(|(number, span)| (*number, span.child(name, kind))).collect())
    }

    /// None of them came to what was asked for.
    pub fn fail(&self, why: &'static str) {
        self.0.iter().for_each(|(_, span)| span.fail(why));
    }
}
