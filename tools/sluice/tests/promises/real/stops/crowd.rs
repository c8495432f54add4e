//! Stops while very many clients are connected that do nothing.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use sluice_client::raw::{Frame, Socket};
use sluice_launcher::Service;
use sluice_load::dial::raise_file_limit;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::{Real, term};
use crate::kit::{Ground, SOON, socket_of};

/// In a run of all tests; `SLUICE_CLIENTS` says otherwise.
const CLIENTS: usize = 1_000;
/// Handshakes at once.
const AT_ONCE: usize = 64;

/// Reads to the end, as a client does: the code of its close, 0 without one.
async fn end(mut socket: Socket) -> u16 {
    loop {
        match socket.next().await {
            Frame::Close { code, .. } => return code,
            Frame::End(_) => return 0,
            Frame::Text(_) | Frame::Binary(_) | Frame::Ping | Frame::Pong => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_stops_in_time_with_very_many_idle_clients() {
    raise_file_limit().unwrap();
    let count = std::env::var("SLUICE_CLIENTS").map_or(CLIENTS, |count| count.parse().unwrap());
    let cluster = Real::start(1, 1, 1).await;
    let users: Vec<String> = (0..count).map(|n| format!("idle{n}")).collect();
    let connecting = users.iter().map(|user| socket_of(&cluster, user, 0));
    let mut clients: JoinSet<u16> = JoinSet::new();
    let mut connected = stream::iter(connecting).buffer_unordered(AT_ONCE);
    while let Some(socket) = connected.next().await {
        clients.spawn(end(socket));
    }
    drop(connected);
    for service in [Service::Task, Service::Logic] {
        let took = term(&cluster.node(service, 0).unwrap()).await.elapsed;
        println!("{service} with {count} idle clients: {took:?}");
        cluster.start_at(service, 0).await.unwrap();
    }
    assert_eq!(clients.len(), count);
    assert!(clients.try_join_next().is_none(), "a client lost its connection to the gateway");
    let took = term(&cluster.gateway(0)).await.elapsed;
    println!("gateway with {count} idle clients: {took:?}");
    let codes = timeout(SOON + Duration::from_secs(10), clients.join_all()).await.expect("all are told");
    let others = codes.iter().filter(|code| **code != 1012).count();
    assert_eq!(others, 0, "clients that heard no close with 1012");
    cluster.stop().await;
}
