//! A log line as one JSON object: flat, numbers as numbers, `service` and `instance` in each.
//!
//! Lists of names and numbers (`{accepted=12 rejected=0}`, as the lifecycle writes its counts) are objects. Spans are
//! left out: no service uses them.

use std::fmt::{self, Debug, Write as _};
use std::sync::PoisonError;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::INSTANCE;

/// Keys that each line has by itself; a field of that name gets a `_` behind it.
const OWN: [&str; 6] = ["timestamp", "level", "service", "instance", "message", "target"];
/// Fields of a record that came over the crate `log`, and are no news.
const OF_LOG: &str = "log.";

pub(super) struct Json {
    pub(super) service: &'static str,
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let level = event.metadata().level();
        write!(line, r#"{{"timestamp":"{time}","level":"{level}","service":"{}""#, self.service)?;
        {
            let instance = INSTANCE.read().unwrap_or_else(PoisonError::into_inner);
            if !instance.is_empty() {
                write!(line, r#","instance":{}"#, Value::from(instance.as_str()))?;
            }
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(message) = fields.message {
            write!(line, r#","message":{}"#, Value::from(message))?;
        }
        let target = fields.target.as_deref().unwrap_or_else(|| event.metadata().target());
        writeln!(line, r#"{},"target":{}}}"#, fields.text, Value::from(target))
    }
}

/// The fields of an event, as they stand in the line.
#[derive(Default)]
struct Fields {
    message: Option<String>,
    target: Option<String>,
    text: String,
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl fmt::Display) {
        let name = field.name();
        let own = if OWN.contains(&name) { "_" } else { "" };
        // Writing into a String cannot fail.
        let _ = write!(self.text, r#","{name}{own}":{value}"#);
    }

    fn put_text(&mut self, field: &Field, text: &str) {
        match field.name() {
            "message" => self.message = Some(text.to_owned()),
            "log.target" => self.target = Some(text.to_owned()),
            name if name.starts_with(OF_LOG) => {}
            _ => self.put(field, Value::from(text)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        match numbers(&text) {
            Some(numbers) => self.put(field, numbers),
            None => self.put_text(field, &text),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put_text(field, &value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if !field.name().starts_with(OF_LOG) {
            self.put(field, value);
        }
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::from(value));
    }
}

/// `{a=1 b=2}` as an object.
fn numbers(text: &str) -> Option<Value> {
    let pairs = text.strip_prefix('{')?.strip_suffix('}')?.split(' ').map(|pair| {
        let (name, number) = pair.split_once('=')?;
        Some((name.to_owned(), Value::from(number.parse::<u64>().ok()?)))
    });
    pairs.collect::<Option<serde_json::Map<_, _>>>().map(Value::Object)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Written {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn a_line_is_one_flat_object_and_numbers_are_numbers() {
        let written = Written::default();
        let log =
            tracing_subscriber::fmt().event_format(Json { service: "gateway" }).with_writer(written.clone());
        tracing::subscriber::with_default(log.finish(), || {
            let absent: Option<&str> = None;
            let counts = format_args!("{{accepted=12 rejected=0}}").to_string();
            tracing::info!(ms = 1_u128, share = 0.5, ok = true, absent, text = "a \"b\"\n", counts = %counts, instance = "other", "Said {}.", 7);
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert_eq!(line["timestamp"].as_str().unwrap().len(), "2026-01-01T00:00:00.000000Z".len());
        let expected = serde_json::json!({
            "timestamp": line["timestamp"], "level": "INFO", "service": "gateway", "message": "Said 7.", "ms": 1,
            "share": 0.5, "ok": true, "text": "a \"b\"\n", "counts": {"accepted": 12, "rejected": 0},
            "instance_": "other", "target": "sluice_service::telemetry::json::tests",
        });
        assert_eq!(line, expected);
    }
}
