//! What clients are told about limits.

use serde_json::Value;

use super::rig::{Client, Rig};

const WIRE: &str = include_str!("../../../../proto/WIRE.md");

/// Each limit of `welcome` has a row in WIRE.md with the number that is in force.
#[tokio::test]
async fn the_limits_in_welcome_are_those_of_the_document() {
    let rig = Rig::start(1, false).await;
    let (client, welcome) = Client::welcomed(&rig.url).await;
    let limits = welcome["welcome"]["limits"].as_object().unwrap();
    assert!(limits.len() >= 11, "{limits:?}");
    for (name, limit) in limits {
        let row = WIRE.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let told = row.and_then(|row| row.split('|').nth(2)).map(|cell| cell.trim().replace(',', ""));
        assert_eq!(
            told.map(|told| Value::from(told.parse::<u64>().unwrap())).as_ref(),
            Some(limit),
            "{name}"
        );
    }
    drop(client);
    rig.stop().await;
}
