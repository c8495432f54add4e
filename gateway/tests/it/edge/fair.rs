//! One client that behaves badly, and what others feel of it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::rig::{Client, Rig};

/// Others have their answers within this, on a machine that has other work too: a flood that is not read in turns has
/// no end.
const SOON: Duration = Duration::from_secs(2);

/// A frame of a client, masked with zeros.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

/// Writes the same frame until told to stop, and reads whatever comes.
fn flood(url: &str, frame: &[u8], stop: &AtomicBool) -> std::io::Result<()> {
    let address = url.trim_start_matches("ws://").split('/').next().unwrap_or_default();
    let mut stream = TcpStream::connect(address)?;
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    stream.set_nonblocking(true)?;
    let (chunk, mut answers, mut at) = (frame.repeat(4_096), vec![0; 1 << 20], 0);
    while !stop.load(Relaxed) {
        for outcome in [
            stream.write(&chunk[at..]).map(|count| at = (at + count) % chunk.len()),
            stream.read(&mut answers).map(drop),
        ] {
            match outcome {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        thread::yield_now();
    }
    Ok(())
}

/// The longest of some round trips of another client beside three that flood.
async fn longest_beside(frame: Vec<u8>) -> Duration {
    let rig = Rig::start(1, false).await;
    let mut honest = Client::connect(&rig).await;
    let (stop, mut floods) = (Arc::new(AtomicBool::new(false)), Vec::new());
    for _ in 0..3 {
        let (url, frame, stop) = (rig.url.clone(), frame.clone(), Arc::clone(&stop));
        floods.push(thread::spawn(move || flood(&url, &frame, &stop)));
    }
    let mut longest = Duration::ZERO;
    for id in 0..40 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let asked = Instant::now();
        honest.say(json!({"ping": 1, "id": id})).await;
        assert_eq!(honest.hear().await["id"], json!(id));
        longest = longest.max(asked.elapsed());
    }
    stop.store(true, Relaxed);
    for flood in floods {
        flood.join().unwrap().expect("nobody ends it");
    }
    rig.stop().await;
    longest
}

/// Its requests are all answered, one share after the other, and others have theirs in between.
#[tokio::test(flavor = "multi_thread")]
async fn requests_without_end_delay_nobody() {
    let longest = longest_beside(frame(1, br#"{"ping":1}"#)).await;
    assert!(longest < SOON, "{longest:?}");
}

/// Frames of the protocol count like others, although nobody is asked about them.
#[tokio::test(flavor = "multi_thread")]
async fn protocol_pings_without_end_delay_nobody() {
    let longest = longest_beside(frame(9, b"")).await;
    assert!(longest < SOON, "{longest:?}");
}
