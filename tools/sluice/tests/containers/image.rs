//! The images alone: what they say of themselves, what they lack, and how they end before they have really begun.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::engine::{docker, output};

const IMAGES: [&str; 3] = ["sluice-gateway", "sluice-logic", "sluice-task"];

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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker Engine: make test-containers"]
async fn a_signal_in_the_first_50_ms_of_a_container_ends_it() {
    for image in IMAGES {
        for delay_ms in [0, 10, 25, 50] {
            let environment = [
                "--env=SLUICE_TOKEN_SECRET=0123456789abcdef",
                "--env=SLUICE_GRPC__ADVERTISE=nobody:1",
                "--env=SLUICE_ADVERTISE=ws://nobody/ws",
            ];
            let create =
                [["create", "--read-only", "--network=none"].as_slice(), &environment, &[image]].concat();
            let id = docker(&create).await;
            docker(&["start", &id]).await;
            sleep(Duration::from_millis(delay_ms)).await;
            let began = Instant::now();
            docker(&["kill", "-s", "TERM", &id]).await;
            let code = docker(&["wait", &id]).await;
            let took = began.elapsed();
            let log = docker(&["logs", &id]).await;
            docker(&["rm", "--force", &id]).await;
            // 143: before it had a handler, and so before it had begun anything
            assert!(["0", "143"].contains(&code.as_str()), "{image} after {delay_ms} ms: {code}, {log}");
            assert!(took < Duration::from_secs(9), "{image} after {delay_ms} ms took {took:?}: {log}");
        }
    }
}
