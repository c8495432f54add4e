//! What a gateway measures of its clients, as a scrape shows it.

use serde_json::json;
use sluice_gateway::config::Config;
use sluice_service::clock::Clock;

use super::rig::{Client, Rig};

/// The scripted store has stored everything at 1, by its clock.
const LATE_MS: i64 = 1_501;

#[tokio::test]
async fn what_clients_send_and_get_is_measured() {
    let config = Config { shards: 1, connections_max: 77, ..Config::default() };
    let rig = Rig::at(Clock::manual(LATE_MS), config, false).await;
    let mut client = Client::connect(&rig).await;
    rig.logic.store("news", 3);
    client.say(json!({"sub": "news", "after": 0})).await;
    let ok = client.hear().await;
    assert_eq!((&ok["ok"], &ok["recovered"]), (&json!("sub"), &json!(true)), "{ok}");
    for seq in 1..=3 {
        assert_eq!(client.hear().await["seq"], seq);
    }
    client.say(json!({"sub": "empty", "after": 9})).await;
    assert_eq!(client.hear().await["recovered"], false);
    client.say(json!({"pub": "news", "data": 1, "id": 1})).await;
    let said = [client.hear().await, client.hear().await];
    assert!(said.iter().any(|frame| frame["ok"] == "pub") && said.iter().any(|frame| frame["msg"] == "news"));
    rig.metrics_have(&[
        "sluice_gateway_connections_max 77",
        "sluice_gateway_publish_seconds_count 1",
        // The past was read by who asked for it, and is no delivery of now.
        "sluice_gateway_delivery_seconds_count 1",
        "sluice_gateway_delivery_seconds_sum 1.5",
        "sluice_gateway_delivery_seconds_bucket{le=\"1.024\"} 0",
        "sluice_gateway_delivery_seconds_bucket{le=\"2.048\"} 1",
        "sluice_gateway_resumes_total{recovered=\"true\"} 1",
        "sluice_gateway_resumes_total{recovered=\"false\"} 1",
        "sluice_gateway_subscriptions 2",
        "sluice_gateway_subscriptions_catching_up 0",
        "sluice_gateway_skips_total 0",
    ])
    .await;

    rig.logic.store("trimmed", 4);
    rig.logic.trim(3);
    client.say(json!({"sub": "trimmed", "after": 0})).await;
    assert_eq!(client.hear().await["ok"], "sub");
    assert_eq!(client.hear().await["skipped"], "trimmed");
    assert_eq!(client.hear().await["seq"], 3);
    rig.metrics_have(&["sluice_gateway_skips_total 1", "sluice_gateway_messages_skipped_total 2"]).await;
    client.goodbye().await;
    rig.stop().await;
}

/// A client that waits for its page is behind until it has it, or is gone.
#[tokio::test]
async fn who_catches_up_is_counted_while_it_does() {
    let rig = Rig::start(1, false).await;
    rig.logic.store("news", 3);
    rig.logic.hold_reads(true);
    let mut clients = [Client::connect(&rig).await, Client::connect(&rig).await];
    for client in &mut clients {
        client.say(json!({"sub": "news", "after": 0})).await;
        assert_eq!(client.hear().await["ok"], "sub");
    }
    rig.metrics_have(&["sluice_gateway_subscriptions_catching_up 2"]).await;
    let [mut stays, goes] = clients;
    goes.goodbye().await;
    rig.metrics_have(&["sluice_gateway_subscriptions_catching_up 1"]).await;
    rig.logic.hold_reads(false);
    for seq in 1..=3 {
        assert_eq!(stays.hear().await["seq"], seq);
    }
    rig.metrics_have(&["sluice_gateway_subscriptions_catching_up 0", "sluice_gateway_subscriptions 1"]).await;
    rig.stop().await;
}
