//! deploy/compose.cluster.yaml: every instance is replaced under load that comes through HAProxy.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use sluice_launcher::probe;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::engine::{Project, STORE, output};
use crate::load::{clients, rate_per_s, records};
use crate::one::{every_stage, message};

const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");
const PROJECT: &str = "sluice-test-cluster";
/// Longest answer of HAProxy.
const LOOK: Duration = Duration::from_secs(2);
/// A line of a roll comes within this.
const SAID: Duration = Duration::from_secs(60);
const INSTANCES: [&str; 7] =
    ["gateway-1", "gateway-2", "gateway-3", "task-1", "task-2", "logic-1", "logic-2"];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker Engine: make test-containers"]
async fn a_cluster_is_rolled_under_load_and_nobody_is_moved_more_than_twice() {
    let project = Project::up(PROJECT, "compose.cluster.yaml").await;
    project.healthy(&INSTANCES).await;
    listens().await;
    message("ws://127.0.0.1:8080/ws").await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (state, records_dir) = (path("state.json"), path("records"));
    let (clients, rate) = (clients().to_string(), rate_per_s().to_string());
    let file = project.file.display().to_string();
    let roll = ["roll", "--file", &file, "--project", PROJECT, "--state", &state];
    let proof = ["--prove", "--clients", &clients, "--rate", &rate, "--store", STORE, "--dir", &records_dir];
    let rolled = output(SLUICE, &[roll.as_slice(), &proof].concat()).await;
    println!("{}{}", String::from_utf8_lossy(&rolled.stdout), String::from_utf8_lossy(&rolled.stderr));
    assert!(rolled.status.success(), "{}; the records are in {}", rolled.status, dir.keep().display());
    for instance in INSTANCES {
        every_stage(&project.log(instance).await);
    }
    moves(dir.path().join("records").as_path());
    interrupted(&[roll.as_slice(), &["--only", "gateway-1", "--only", "gateway-2"]].concat(), &project).await;
    assert!(!dir.path().join("state.json").exists(), "nothing is left to go on with");
    balancer(&project.log("haproxy").await);
}

/// Waits until HAProxy, which has no health check of its own, answers with what a gateway says.
async fn listens() {
    let began = Instant::now();
    loop {
        let answer = probe::get("http://127.0.0.1:8080/ws", LOOK).await;
        if answer.as_ref().is_ok_and(|answer| answer.status != 503) {
            return;
        }
        assert!(began.elapsed() < SAID, "{answer:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Two gateways are to be replaced: the first Ctrl-C ends it after the first of them, two more in the middle of the
/// second, and what is called then goes on.
async fn interrupted(roll: &[&str], project: &Project) {
    let (mut first, mut lines) = begun(roll);
    says(&mut lines, "rolls project").await;
    says(&mut lines, "gateway-1    stopping").await;
    interrupt(&first).await;
    let (code, said) = ended(&mut first).await;
    assert!(
        code == Some(4) && said.contains("1 replaced. The same command goes on from here"),
        "{code:?} {said}"
    );
    project.healthy(&INSTANCES).await;

    let (mut second, mut lines) = begun(roll);
    says(&mut lines, "gateway-2    stopping").await;
    interrupt(&second).await;
    says(&mut lines, "once more to leave at once").await;
    interrupt(&second).await;
    let (code, said) = ended(&mut second).await;
    assert!(
        code == Some(4) && said.contains("gateway-2 was being replaced and may be down"),
        "{code:?} {said}"
    );

    let last = output(SLUICE, roll).await;
    let said = String::from_utf8_lossy(&last.stdout);
    println!("{said}");
    assert!(last.status.success(), "{last:?}");
    assert!(said.contains("goes on with") && said.contains("gateway-1    replaced earlier"), "{said}");
    project.healthy(&INSTANCES).await;
}

fn begun(arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = Command::new(SLUICE);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let output = child.stdout.take().unwrap();
    (child, BufReader::new(output).lines())
}

/// Reads until a line says this.
async fn says(lines: &mut Lines<BufReader<ChildStdout>>, words: &str) {
    loop {
        let line = timeout(SAID, lines.next_line()).await.expect(words).unwrap().expect(words);
        println!("{line}");
        if line.contains(words) {
            return;
        }
    }
}

async fn interrupt(child: &Child) {
    let pid = child.id().unwrap().to_string();
    assert!(output("kill", &["-INT", &pid]).await.status.success());
}

/// Its exit code and last words.
async fn ended(child: &mut Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
    (child.wait().await.unwrap().code(), said)
}

/// How often clients that stay of their own will were moved.
fn moves(dir: &std::path::Path) {
    let (mut staying, mut at, mut moves) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::<u64, u32>::new());
    for line in records(dir) {
        let (client, what) = (line[1].as_u64().unwrap(), &line[2]);
        if let Some(role) = what["client"]["role"].as_str() {
            staying.insert(client, ["beacon", "sender", "observer"].contains(&role));
        }
        if let Some(instance) = what["open"]["instance"].as_str() {
            let before = at.insert(client, instance.to_owned());
            if before.is_some_and(|before| before != instance) && staying[&client] {
                *moves.entry(client).or_default() += 1;
            }
        }
    }
    let mut counts = BTreeMap::<u32, u32>::new();
    for (client, _) in staying.iter().filter(|(_, stays)| **stays) {
        *counts.entry(moves.get(client).copied().unwrap_or_default()).or_default() += 1;
    }
    println!("moves of a client → clients: {counts:?}");
    assert!(counts.keys().all(|moves| *moves <= 2), "{counts:?}");
}

/// A line that says UP is stamped by whoever reads it from HAProxy, this much later at most: on a busy machine clients
/// are served meanwhile. A line that says DOWN comes late too, which only makes the spell shorter.
const STAMPED_LATE_MS: u64 = 500;
const FOREVER: u64 = u64::MAX;

/// No client is sent to a server between the balancer's seeing it down and its seeing it up again.
fn balancer(log: &str) {
    let mut down: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    let mut sent: Vec<(&str, u64, &str)> = Vec::new();
    for line in log.lines() {
        let Some((at, rest)) = line.split_once(' ') else { continue };
        if let Some(rest) = rest.strip_prefix("Server gateways/") {
            let (server, what) = rest.split_once(' ').unwrap();
            let at = clock_ms(at.split_once('T').unwrap().1);
            let spells = down.entry(server).or_default();
            match what.starts_with("is UP") {
                true => spells.last_mut().into_iter().for_each(|spell| spell.1 = at - STAMPED_LATE_MS),
                false if what.starts_with("is DOWN") => spells.push((at, FOREVER)),
                false => {}
            }
        }
        if let Some((server, at)) = connected(rest) {
            sent.push((server, at, line));
        }
    }
    assert_eq!(down.len(), 3, "each gateway was seen down: {down:?}");
    for (server, at, line) in &sent {
        let spell = down.get(server).and_then(|spells| spells.iter().find(|(from, to)| from < at && at < to));
        assert_eq!(spell, None, "{server} got a client at {at} ms of the day: {line}");
    }
    println!("HAProxy sent {} clients, none to a gateway that it had seen draining", sent.len());
}

/// The server of a client, and when HAProxy had connected it: that is later than it accepted the client, who waits while
/// no gateway is there, or while one that has just closed its door is tried in vain.
///
/// `172.18.0.1:5000 [21/Nov/2026:19:43:00.454] clients gateways/gateway-1 0/0/0/120/1554 101 …`: milliseconds of the
/// request, the queue, the connecting, the answer, and all of it; −1 where it did not come to that.
fn connected(line: &str) -> Option<(&str, u64)> {
    let (accepted, rest) = line.split_once("] clients gateways/")?;
    let accepted = accepted.split_once('[')?.1.split_once(':')?.1;
    let (server, rest) = rest.split_once(' ')?;
    let timers = rest.split('/').take(3).map(|ms| ms.parse::<u64>().unwrap_or_default());
    Some((server, clock_ms(accepted) + timers.sum::<u64>()))
}

/// Milliseconds of the day, from what begins with `19:43:00.454`.
fn clock_ms(time: &str) -> u64 {
    let part = |range: std::ops::Range<usize>| time[range].parse::<u64>().unwrap();
    ((part(0..2) * 60 + part(3..5)) * 60 + part(6..8)) * 1_000 + part(9..12)
}
