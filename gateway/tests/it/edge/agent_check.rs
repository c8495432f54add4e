//! What a balancer hears while gateways are replaced.

use sluice_cluster::{Cluster, InstanceState};
use sluice_gateway::config::{Agent, Config};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::rig::Rig;

async fn weight(rig: &Rig) -> String {
    let mut stream = TcpStream::connect(rig.agent.unwrap()).await.unwrap();
    let mut line = String::new();
    stream.read_to_string(&mut line).await.unwrap();
    line
}

#[tokio::test]
async fn a_gateway_whose_turn_is_ahead_asks_for_half() {
    let agent = Agent { listen: "127.0.0.1:0".into() };
    let rig = Rig::with(Config { shards: 1, agent, ..Config::default() }, true).await;
    let first = rig.peer();
    assert_eq!(weight(&rig).await, "100%\n", "there are more of them");
    first.set_state(InstanceState::Draining).await;
    assert_eq!(weight(&rig).await, "100%\n", "nobody has been replaced yet");
    first.close().await.unwrap();
    let second = rig.peer();
    assert_eq!(weight(&rig).await, "50%\n");
    drop(second);
    assert!(rig.clone().stop().await.is_clean());
    assert!(TcpStream::connect(rig.agent.unwrap()).await.is_err(), "the page of health says the rest");
}

#[tokio::test]
async fn nobody_is_told_where_nothing_is_set() {
    let rig = Rig::start(1, false).await;
    assert_eq!(rig.agent, None);
}
