//! What a plain client does about refusals, against gateways that only refuse.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::super::client_state::ClientState;
use super::super::plan::Plan;
use super::super::shared::Endpoints;
use super::*;
use crate::clock::Clock;
use crate::records::Records;

/// Refuses everybody with this header, and counts them.
async fn refusing(gateways: &mut JoinSet<()>, header: &'static str, asked: Arc<AtomicU32>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    gateways.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            asked.fetch_add(1, Relaxed);
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            let head = format!("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n{header}\r\nfull");
            stream.write_all(head.as_bytes()).await.unwrap();
        }
    });
    url
}

#[tokio::test]
async fn a_gateway_that_told_when_to_come_is_not_asked_before() {
    let asked = [Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0))];
    let mut gateways = JoinSet::new();
    let urls = vec![
        refusing(&mut gateways, "Retry-After: 300\r\n", Arc::clone(&asked[0])).await,
        refusing(&mut gateways, "", Arc::clone(&asked[1])).await,
    ];
    let error = Socket::connect(&urls[0], None, &Trust::default(), false).await.unwrap_err();
    let told = ConnectError { reason: "HTTP 503: full".into(), retry_after_s: Some(300) };
    assert_eq!(error, told);

    let folder = tempfile::tempdir().unwrap();
    let plan = Plan { clients: 1, beacon_per_s: 0, ..Plan::default() };
    let (clock, spec) = (Clock::start(), plan.specs().remove(0));
    let (_phase, seen) = watch::channel(LoadPhase::Gather);
    let shared = Arc::new(LoadShared::new(plan, Endpoints::fixed(urls, |_| None), clock, seen));
    let records = Records::create(folder.path(), 1, clock).unwrap();
    let state = Arc::new(ClientState::new(&spec.user, &spec.rooms));
    let recorder = Recorder::begin(Arc::clone(&shared), state, records.writer(spec.client), &spec);
    let mut clients = JoinSet::new();
    clients.spawn(live(shared, spec, Arc::new(recorder)));
    let again = async {
        while asked[1].load(Relaxed) < 4 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), again).await.expect("the other one is asked again and again");
    clients.shutdown().await;
    assert!(asked[0].load(Relaxed) <= 2, "the first attempt, and ours: {}", asked[0].load(Relaxed));
}
