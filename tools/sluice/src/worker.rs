//! `sluice worker`: all that one instance says of itself, found by its id among many.

use std::process::ExitCode;

use serde_json::Value;
use sluice_program::output;

use crate::page::Asked;

/// Show one instance by its id: state, work, what a stop waits for
///
/// Exit code 0 when it is found, else 1.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice worker gateway-1f3k http://gateway-1:8081 http://gateway-2:8081   # the beginning of an id will do
  sluice worker 4711 http://127.0.0.1:8081 http://127.0.0.1:7071 --json    # so will a pid")]
pub(crate) struct Arguments {
    /// Instance id, or its beginning, or the pid
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    asked: Asked,
    /// One JSON object: all that the page says
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let pages = arguments.asked.pages().await;
    let pages: Vec<(&str, Value)> =
        pages.into_iter().filter_map(|(url, page)| Some((url, page.ok()?))).collect();
    let found: Vec<_> = pages.iter().filter(|(_, page)| is_meant(page, &arguments.id)).collect();
    let [(url, page)] = found.as_slice() else {
        let there = if found.is_empty() { pages.iter().collect() } else { found };
        anyhow::bail!("{}", refusal(&arguments.id, &there));
    };
    if arguments.json {
        output::line(page)?;
    } else {
        output::text(&format!("admin              {url}\n{}", lines(page)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn instance(page: &Value) -> &str {
    page.get("instance").and_then(Value::as_str).unwrap_or_default()
}

fn is_meant(page: &Value, id: &str) -> bool {
    let pid = page.get("pid").and_then(Value::as_u64).map(|pid| pid.to_string());
    (!id.is_empty() && instance(page).starts_with(id)) || pid.as_deref() == Some(id)
}

/// None, or several.
fn refusal(id: &str, pages: &[&(&str, Value)]) -> String {
    let there: Vec<String> = pages.iter().map(|(url, page)| format!("{} at {url}", instance(page))).collect();
    match there.as_slice() {
        [] => format!("nobody answers who could be {id}"),
        there => format!("{id} is not exactly one of those who answer: {}", there.join(", ")),
    }
}

/// What is a number or a word, a line each; the stages of a stop after them.
fn lines(page: &Value) -> String {
    let fields = page.as_object().into_iter().flatten();
    let stages = page.get("report").and_then(Value::as_array).into_iter().flatten();
    let stages = stages.map(|stage| {
        let word = |name: &str| stage.get(name).map(shown).unwrap_or_default();
        format!(
            "stage {:<12} {}, {} of {} ms\n",
            word("stage"),
            word("outcome"),
            word("elapsed_ms"),
            word("allowed_ms")
        )
    });
    let fields = fields.filter(|(name, value)| *name != "report" && !value.is_null());
    fields.map(|(name, value)| format!("{name:<18} {}\n", shown(value))).chain(stages).collect()
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_found_by_its_id_or_its_beginning_or_its_pid() {
        let page = json!({"instance": "gateway-1f3k", "pid": 47});
        for id in ["gateway-1f3k", "gateway-1", "47"] {
            assert!(is_meant(&page, id), "{id}");
        }
        for id in ["gateway-2", "4", "", "1f3k"] {
            assert!(!is_meant(&page, id), "{id}");
        }
        let url = "http://a:1";
        assert!(refusal("x", &[&(url, page)]).contains("gateway-1f3k at http://a:1"));
        assert!(refusal("x", &[]).contains("nobody answers"));
    }

    #[test]
    fn a_stop_is_shown_stage_by_stage() {
        let page = json!({"stage": "flush", "in_flight": 2, "reason": null, "blockers": {"status": 1},
            "report": [{"stage": "drain", "outcome": "done", "elapsed_ms": 952, "allowed_ms": 2300}]});
        let text = lines(&page);
        let words: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            words,
            ["blockers {\"status\":1}", "in_flight 2", "stage flush", "stage drain done, 952 of 2300 ms"]
        );
    }
}
