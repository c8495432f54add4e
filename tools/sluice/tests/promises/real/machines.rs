//! Two machines, as far as one can be two: half of all instances at an address of its own. They are rolled by the script
//! of operations.md as it stands there; its `ssh` asks this test, which restarts who is meant as a unit would be.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures::future::join_all;
use sluice_launcher::{Node, Options, Port, Service, Setting, probe};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::pipe;

use super::{Real, SERVICES, run, term};
use crate::deploys::under_load;
use crate::kit::{Ground, SOON};
use crate::record::Sent;

const OPERATIONS: &str = include_str!("../../../../../docs/operations.md");
const MACHINES: [&str; 2] = ["127.0.0.1", "127.0.0.2"];
/// Says who is to be restarted, and ends when the old one has stopped.
const SSH: &str = "#!/bin/sh\nprintf '%s\\n' \"$*\" > \"$PIPES/asked\" && read -r answer < \"$PIPES/done\"\n";

fn script() -> &'static str {
    let section = OPERATIONS.split("### Across several machines").nth(1).unwrap();
    section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap()
}

/// Two of each, one on each machine, and the list of them for the script.
async fn two_machines(ports: &[Port]) -> (Real, String) {
    let (mut free, mut fleet) = (ports.iter().map(Port::number), String::new());
    let mut settings: Vec<Setting> = Vec::new();
    for service in SERVICES {
        for (number, machine) in (1..).zip(MACHINES) {
            let name = format!("{service}-{number}");
            let mut listens = |key: &str, port: u16| {
                settings.push(format!("{name}.{key}={machine}:{port}").parse().unwrap());
            };
            let admin = free.next().unwrap();
            listens("admin.listen", admin);
            if service != Service::Task {
                listens("grpc.listen", 0);
            }
            // the launcher has chosen a port for its own address
            if service == Service::Gateway && number > 1 {
                listens("listen", free.next().unwrap());
            }
            fleet.push_str(&format!("{machine} sluice-{service} http://{machine}:{admin}\n"));
        }
    }
    let options = Options { gateways: 2, logics: 2, tasks: 2, settings, ..Options::default() };
    (Real::with(options).await, fleet)
}

async fn is_ready(node: Node) -> bool {
    let answer = probe::get(&format!("{}/readyz", node.admin()), SOON).await;
    answer.is_ok_and(|answer| answer.status == 200)
}

/// Restarts as `systemctl restart` does: it returns when the old one has stopped, whenever the new one will be ready.
async fn restart(ground: &Real, asked: &str, done: &mut pipe::Sender) -> String {
    let words: Vec<&str> = asked.split(' ').collect();
    let ["-n", machine, "systemctl", "restart", unit] = words[..] else { panic!("{asked}") };
    let index = MACHINES.iter().position(|one| *one == machine).unwrap();
    let service: Service = unit.strip_prefix("sluice-").unwrap().parse().unwrap();
    let all = SERVICES.iter().flat_map(|service| ground.nodes(*service));
    let all = join_all(all.map(is_ready)).await;
    assert!(
        all.iter().all(|ready| *ready),
        "{asked}: nobody is taken away while another is missing: {all:?}"
    );
    term(&ground.node(service, index).unwrap()).await;
    done.write_all(b"\n").await.unwrap();
    ground.start_at(service, index).await.unwrap();
    format!("{machine} {unit}")
}

/// Runs the script; who was restarted, in order.
async fn roll(ground: &Real, dir: &Path) -> Vec<String> {
    let ssh = dir.join("ssh");
    std::fs::write(&ssh, SSH).unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let fifo = |name: &str| -> PathBuf {
        let path = dir.join(name);
        run(Command::new("mkfifo").arg(&path));
        path
    };
    // Held open at both ends, so that neither of two who come and go waits for the other or sees an end.
    let mut both = pipe::OpenOptions::new();
    both.read_write(true);
    let mut asked = BufReader::new(both.open_receiver(fifo("asked")).unwrap()).lines();
    let mut done = both.open_sender(fifo("done")).unwrap();
    let sluice = Path::new(env!("CARGO_BIN_EXE_sluice")).parent().unwrap();
    let path =
        format!("{}:{}:{}", dir.display(), sluice.display(), std::env::var("PATH").unwrap_or_default());
    let mut script = tokio::process::Command::new("sh")
        .args(["-c", script()])
        .current_dir(dir)
        .envs([("PATH", path), ("PIPES", dir.display().to_string())])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut restarted = Vec::new();
    loop {
        tokio::select! {
            line = asked.next_line() => {
                restarted.push(restart(ground, &line.unwrap().unwrap(), &mut done).await);
            }
            status = script.wait() => {
                assert!(status.unwrap().success(), "after {restarted:?}");
                return restarted;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_two_machines_are_rolled_as_the_document_says() {
    let ports: Vec<Port> = (0..7).map(|_| Port::claim().unwrap()).collect();
    let (ground, fleet) = two_machines(&ports).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("fleet"), &fleet).unwrap();
    let mut restarted = Vec::new();
    let (_, sent) =
        under_load(&ground, 8_000, async |ground| restarted.extend(roll(ground, dir.path()).await)).await;
    sent.iter().for_each(Sent::all_ok);
    let listed = fleet.lines().map(|line| line.rsplit_once(' ').unwrap().0);
    assert!(restarted.iter().eq(listed), "each once, in the order of the list: {restarted:?}");
    ground.stop().await;
}
