//! The dashboards for Grafana, held to a Prometheus that has scraped a roll. Grafana itself is not here: that it shows what
//! is asked for as it was meant is seen by nobody.

use serde_json::Value;

use super::{Prometheus, deploy};

/// What a dashboard asks for.
struct Asked {
    /// Which panel, which annotation, which variable.
    of: String,
    expression: String,
    /// The labels that its legend shows.
    labels: Vec<String>,
}

/// Every expression of every dashboard, with what its variables stand for.
fn all() -> Vec<Asked> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(deploy().join("grafana")).unwrap() {
        let path = entry.unwrap().path();
        let board: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
        let mut ask = |what: &Value, expression: &str, legend: &Value| {
            let of = [&board["title"], what].map(|name| name.as_str().unwrap()).join(": ");
            let expression = expression.replace("$__rate_interval", "30s").replace("$instance", ".*");
            let parts = legend.as_str().unwrap_or_default().split("{{").skip(1);
            let labels = parts.map(|part| part.split("}}").next().unwrap().trim().to_owned()).collect();
            all.push(Asked { of, expression, labels });
        };
        for panel in list(&board["panels"]) {
            for target in list(&panel["targets"]) {
                ask(&panel["title"], target["expr"].as_str().unwrap(), &target["legendFormat"]);
            }
        }
        for annotation in list(&board["annotations"]["list"]) {
            if let Some(expression) = annotation["expr"].as_str() {
                ask(&annotation["name"], expression, &annotation["titleFormat"]);
            }
        }
        for variable in list(&board["templating"]["list"]) {
            let values = variable["definition"].as_str().and_then(|text| text.strip_prefix("label_values("));
            if let Some((series, label)) = values.and_then(|text| text.strip_suffix(')')?.rsplit_once(',')) {
                let legend = Value::from(format!("{{{{{}}}}}", label.trim()));
                ask(&variable["name"], series, &legend);
            }
        }
    }
    all
}

/// Asked for by panels, and not to be seen in this roll, as it did not happen, or at the end of a life alone.
const QUIET: [&str; 4] = [
    "sluice_gateway_upgrades_refused_total",
    "sluice_gateway_connections_ended_total",
    "sluice_gateway_throttled_total",
    "sluice_logic_api_calls_total",
];

/// Whatever a dashboard asks for is understood, has something to show of the roll, and has the labels of its legend.
pub async fn are_answered(prometheus: &Prometheus, since: u64) {
    let (mut empty, mut unlabelled) = (Vec::new(), Vec::new());
    let all = all();
    for Asked { of, expression, labels } in &all {
        let mut series = prometheus.since(since, expression).await;
        // A quantile of nothing is a series too.
        series.retain(|one| one["values"].as_array().unwrap().iter().any(|at| at[1] != "NaN"));
        if series.is_empty() {
            empty.push(format!("{of}: {expression}"));
        }
        let has = |label: &String| series.iter().any(|one| one["metric"].get(label).is_some());
        unlabelled
            .extend(labels.iter().filter(|label| !series.is_empty() && !has(label)).map(|label| (of, label)));
    }
    println!("{} expressions, without a series: {empty:#?}", all.len());
    assert!(unlabelled.is_empty(), "{unlabelled:?}");
    empty.retain(|asked| !QUIET.iter().any(|quiet| asked.contains(quiet)));
    assert!(empty.is_empty(), "{empty:#?}");
}
