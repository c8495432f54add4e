//! `sluice instances`: who is registered, as one instance sees it.

use std::process::ExitCode;

use serde_json::Value;
use sluice_program::output;

use super::Admin;
use crate::status::aligned;

/// Show all registered instances, as any one of them sees the others
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice instances
  sluice instances --admin http://task-1:7072 --json | jq .count")]
pub(crate) struct Arguments {
    #[command(flatten)]
    admin: Admin,
    /// The page as it is
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let page = arguments.admin.get("/admin/instances").await?;
    if arguments.json {
        output::line(page)?;
    } else {
        output::text(&table(&page))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(page: &Value) -> String {
    let mut rows =
        vec![["SERVICE", "INSTANCE", "STATE", "TTL", "HEADROOM", "VERSION", "ADDRESS"].map(String::from)];
    for one in page["instances"].as_array().into_iter().flatten() {
        let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| one[name].as_u64().map(|number| number.to_string()).unwrap_or_default();
        let ttl = one["ttl_s"].as_u64().map(|left| format!("{left} s")).unwrap_or_default();
        rows.push([
            text("service"),
            text("id"),
            text("state"),
            ttl,
            number("headroom"),
            text("version"),
            text("address"),
        ]);
    }
    format!("{}{} registered\n", aligned(&rows), page["count"].as_u64().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_all_who_are_registered() {
        let page = json!({"count": 1, "instances": [
            {"service": "gateway", "id": "gateway-a-1", "state": "draining", "ttl_s": 8, "headroom": 7,
             "version": "0.1.0", "address": "a:7080"},
            {"service": "logic", "id": "seed-l:1", "state": "serving", "ttl_s": null, "headroom": null,
             "version": "", "address": "l:1"},
        ]});
        let text = table(&page);
        let lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[1], "gateway gateway-a-1 draining 8 s 7 0.1.0 a:7080");
        assert_eq!(lines[2..], ["logic seed-l:1 serving l:1", "1 registered"]);
    }
}
