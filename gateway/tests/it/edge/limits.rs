//! What clients are told about limits.

use serde_json::{Map, Value};

use super::rig::{Client, Rig};

const WIRE: &str = include_str!("../../../../proto/WIRE.md");

/// Name and number of each row of the document's table.
fn told() -> impl Iterator<Item = (String, Value)> {
    let table = WIRE.split("## Limits").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    table.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        let most = rest.split('|').next()?.trim().replace(',', "");
        Some((name.to_owned(), Value::from(most.parse::<u64>().unwrap())))
    })
}

/// The limits of `welcome` are the rows of the table in WIRE.md, with the numbers that are in force.
#[tokio::test]
async fn the_limits_in_welcome_are_those_of_the_document() {
    let rig = Rig::start(1, false).await;
    let (client, welcome) = Client::welcomed(&rig.url).await;
    let limits = welcome["welcome"]["limits"].as_object().unwrap();
    let told: Map<String, Value> = told().collect();
    assert!(told.len() >= 11, "{told:?}");
    assert_eq!(limits, &told);
    drop(client);
    rig.stop().await;
}
