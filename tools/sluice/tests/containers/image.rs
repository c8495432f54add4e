//! The images alone: what they say of themselves, what they lack, and how they end before they have really begun.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::engine::{composed, docker, output};

const IMAGES: [&str; 3] = ["sluice-gateway", "sluice-logic", "sluice-task"];
/// What each cannot do without; none of it leads anywhere.
const ENVIRONMENT: [&str; 4] = [
    "--env=SLUICE_TOKEN_SECRET=0123456789abcdef",
    "--env=SLUICE_GRPC__ADVERTISE=nobody:1",
    "--env=SLUICE_GRPC__INSECURE=true",
    "--env=SLUICE_ADVERTISE=ws://nobody/ws",
];
/// What a service says at its start when the engine kills too early.
pub const CUT: &str = "The stop will be cut";
/// Longest stop of something that has begun: the total, and a slow machine.
const STOP: Duration = Duration::from_secs(9);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker Engine: make test-containers"]
async fn images_say_their_version_and_have_no_shell_and_no_root() {
    for image in IMAGES {
        let inspect = async |format: &str| docker(&["image", "inspect", "--format", format, image]).await;
        let version = inspect(r#"{{index .Config.Labels "org.opencontainers.image.version"}}"#).await;
        assert_eq!(version, env!("CARGO_PKG_VERSION"), "{image}: VERSION in deploy/Dockerfile");
        assert_eq!(inspect("{{.Config.StopSignal}}").await, "SIGTERM");
        assert_eq!(inspect("{{json .Config.Entrypoint}}").await, format!(r#"["/usr/local/bin/{image}"]"#));
        let user = inspect("{{.Config.User}}").await;
        assert!(!["", "0", "root"].contains(&user.as_str()), "{image} runs as {user:?}");
        let shell = output("docker", &["run", "--rm", "--entrypoint", "/bin/sh", image, "-c", "true"]).await;
        assert!(!shell.status.success(), "{image} has a shell");
        let megabytes = inspect("{{.Size}}").await.parse::<u64>().unwrap() / 1_000_000;
        println!("{image}: {megabytes} MB");
    }
}

/// As the compose files have it.
async fn created(image: &str, more: &[&str]) -> String {
    let like = [
        "create",
        "--init",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges:true",
        "--network=none",
    ];
    docker(&[like.as_slice(), &ENVIRONMENT, more, &[image]].concat()).await
}

/// Signals it, and waits for its end: its exit code and what it said.
async fn ended(id: &str) -> (String, String) {
    let began = Instant::now();
    docker(&["kill", "-s", "TERM", id]).await;
    let code = timeout(STOP, docker(&["wait", id])).await;
    let log = docker(&["logs", id]).await;
    docker(&["rm", "--force", id]).await;
    (code.unwrap_or_else(|_| format!("none after {:?}", began.elapsed())), log)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker Engine: make test-containers"]
async fn a_signal_in_the_first_50_ms_of_a_container_ends_it() {
    for image in IMAGES {
        for delay_ms in [0, 10, 25, 50] {
            let id = created(image, &[]).await;
            docker(&["start", &id]).await;
            sleep(Duration::from_millis(delay_ms)).await;
            let (code, log) = ended(&id).await;
            println!("{image}, signalled {delay_ms} ms after its start: {code}");
            // 143: before it had a handler, and so before it had begun anything
            assert!(["0", "143"].contains(&code.as_str()), "{image} after {delay_ms} ms: {code}, {log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker Engine: make test-containers"]
async fn a_patience_of_the_engine_below_the_total_is_said_loudly() {
    let config = composed("compose.yaml", &[("SLUICE_STOP_GRACE_S", "5")]).await.replace(['\'', '"'], "");
    for line in ["stop_grace_period: 5s", "SLUICE_SHUTDOWN__KILL_AFTER_MS: 5000"] {
        assert_eq!(config.matches(line).count(), IMAGES.len(), "{line}: {config}");
    }
    for image in IMAGES {
        let id = created(image, &["--env=SLUICE_SHUTDOWN__KILL_AFTER_MS=5000"]).await;
        docker(&["start", &id]).await;
        let began = Instant::now();
        while !docker(&["logs", &id]).await.contains(CUT) {
            assert!(began.elapsed() < STOP, "{image} says nothing");
            sleep(Duration::from_millis(50)).await;
        }
        docker(&["rm", "--force", &id]).await;
    }
}
