//! What `sluice serve` does on this machine, as `make serve-figures` prints it: durable publishes a second, how soon it
//! answers again after a kill, what it holds at rest. It measures and judges nothing but that all was answered.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use sluice_client::raw::Socket;

use crate::rig::{Dev, connect, frame, serve, token};

/// Connections that publish, each to a room of its own.
const CLIENTS: usize = 32;
/// Unanswered publishes of each.
const WINDOW: usize = 64;
/// How long they publish.
const LASTS: Duration = Duration::from_secs(10);
/// Kills, one after the other.
const KILLS: usize = 5;

/// Publishes of one user are counted: here they are what is measured.
fn serve_unlimited(folder: &Path) -> Dev {
    let mut command = serve(folder);
    command.args(["--set", "limits.user.publishes_per_s=0"]);
    Dev::spawn(command)
}

async fn publish(socket: &mut Socket, room: usize, n: usize) {
    let frame = json!({ "pub": format!("room-{room}"), "data": { "n": n, "text": "x".repeat(100) } });
    socket.send(frame.to_string()).await.unwrap();
}

/// Publishes with a full window until the time is over, and counts what was answered.
async fn load(url: String, room: usize) -> usize {
    let (mut socket, _) = connect(&url, Some(&token(&format!("u{room}")))).await;
    let (begun, mut sent, mut answered) = (Instant::now(), 0, 0);
    while begun.elapsed() < LASTS || answered < sent {
        while begun.elapsed() < LASTS && sent < answered + WINDOW {
            publish(&mut socket, room, sent).await;
            sent += 1;
        }
        assert_eq!(frame(&mut socket).await["ok"], "pub");
        answered += 1;
    }
    answered
}

fn resident_mib(serve: &Dev) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", serve.first["pid"])).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
}

/// Syncs a second of one page after the other: what the disk gives to whoever waits for each.
fn syncs_per_s(folder: &Path) -> f64 {
    let mut file = File::create(folder.join("syncs")).unwrap();
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(1) {
        file.write_all(&[0; 4_096]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / begun.elapsed().as_secs_f64()
}

/// From SIGKILL until a publish is answered `ok` by the process that follows.
async fn recovery(serve: &mut Dev, folder: &Path, kill: usize) -> Duration {
    let begun = Instant::now();
    serve.kill();
    *serve = serve_unlimited(folder);
    let (mut socket, _) = connect(serve.ws(0), Some(&token("ann"))).await;
    publish(&mut socket, 0, kill).await;
    assert_eq!(frame(&mut socket).await["ok"], "pub");
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: make serve-figures"]
async fn figures() {
    // Not in /tmp, which may be memory that syncs for nothing.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let averages = std::fs::read_to_string("/proc/loadavg").unwrap();
    let averages = averages.split_whitespace().take(3).collect::<Vec<_>>().join(", ");
    let processors = std::thread::available_parallelism().unwrap();
    let build = if cfg!(debug_assertions) { "a debug build, whose figures say little" } else { "optimised" };
    let syncs = syncs_per_s(dir.path());
    let folder = dir.path().join("data");
    let mut serve = serve_unlimited(&folder);
    let at_rest = resident_mib(&serve);

    let begun = Instant::now();
    let all = join_all((0..CLIENTS).map(|room| load(serve.ws(room % 2).to_owned(), room))).await;
    let (answered, took) = (all.iter().sum::<usize>(), begun.elapsed().as_secs_f64());
    let rate = answered as f64 / took;
    let after = resident_mib(&serve);
    let mut kills = Vec::new();
    for kill in 1..=KILLS {
        kills.push(recovery(&mut serve, &folder, kill).await.as_millis());
    }
    let in_order = kills.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    kills.sort_unstable();

    println!("\n{processors} processors, load average before it {averages}, {build}\n");
    println!("| `sluice serve` | |\n|---|---|");
    println!("| durable publishes | {rate:.0}/s: {answered} answered `ok` in {took:.1} s |");
    println!("| of | {CLIENTS} connections with {WINDOW} unanswered each, 100 bytes |");
    println!("| syncs of 4 KiB, one after the other | {syncs:.0}/s |");
    println!(
        "| `kill -9` until `ok` again | p50 {} ms, longest {} ms ({in_order}) |",
        kills[KILLS / 2],
        kills[KILLS - 1]
    );
    println!("| memory at rest, after the load | {at_rest} MiB, {after} MiB |\n");
}
