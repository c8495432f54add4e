//! deploy/compose.yaml: up from nothing, a message, and everything that may be done to one container under load.

use std::process::Stdio;
use std::time::{Duration, Instant};

use sluice_drill::run::During;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::sleep;

use crate::engine::{Project, SERVICES, STORE, STORES, composed, docker, output};
use crate::image::CUT;
use crate::load::{did, under_load};

/// Beyond every deadline of a call.
const AWAY: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker Engine: make test-containers"]
async fn one_of_each_carries_a_message_and_survives_what_is_done_to_its_containers() {
    let project = Project::up("sluice-test-one", "compose.yaml").await;
    project.healthy(&SERVICES).await;
    message("ws://127.0.0.1:8080/ws").await;
    assert!(project.log("logic").await.contains("ANYBODY CAN SIGN TOKENS"), "the default secret is in use");
    assert_eq!(project.exit_code("certs").await, 0, "{}", project.log("certs").await);
    let trusting = "SLUICE_GRPC__INSECURE";
    assert!(
        !composed("compose.yaml", &[]).await.contains(trusting),
        "services know each other by certificates"
    );
    for service in SERVICES {
        let id = project.id(service).await;
        let format = "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.Init}}";
        assert_eq!(docker(&["inspect", "--format", format, &id]).await, "true [ALL] true", "{service}");
        assert!(!project.log(service).await.contains(CUT), "{service}");
    }
    under_load(async |during| {
        for service in ["gateway", "logic", "task"] {
            term(&project, during, service).await;
            kill(&project, during, service).await;
        }
        for service in SERVICES.into_iter().chain(STORES) {
            pause(&project, during, service).await;
            disconnect(&project, during, service).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker Engine: make test-containers"]
async fn every_link_is_encrypted_and_no_server_lets_in_who_shows_nothing() {
    let (over, variables) = (["compose.secure.yaml"], &[("SLUICE_STORE_PASSWORD", "n0body0guesses0this")]);
    let project = Project::up_with("sluice-test-secure", "compose.yaml", &over, variables).await;
    project.healthy(&SERVICES).await;
    message("ws://127.0.0.1:8080/ws").await;
    // The address of the host, which the server sees as any other's: without a certificate, in clear, with the password.
    let plain = STORE.replace(":sluice@", ":n0body0guesses0this@");
    let store = ["store", "new-epoch", "--postgres", &plain];
    let refused = output(env!("CARGO_BIN_EXE_sluice"), &store).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("postgres.url"), "{said}");
    for service in SERVICES {
        assert!(!project.log(service).await.contains("n0body0guesses0this"), "{service}");
    }
}

/// From `sluice pub` to a client that is not ours.
pub async fn message(url: &str) {
    let script = format!("{}/tests/containers/client.py", env!("CARGO_MANIFEST_DIR"));
    let mut client = Command::new("python3")
        .args([&script, url])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    assert_eq!(
        lines.next_line().await.unwrap().as_deref(),
        Some("subscribed"),
        "python3 needs websockets: make deps"
    );
    let sent = output(env!("CARGO_BIN_EXE_sluice"), &["pub", "--url", url, "news", r#"{"t":"hi"}"#]).await;
    assert!(sent.status.success(), "{sent:?}");
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some(r#"{"t": "hi"}"#));
    assert!(client.wait().await.unwrap().success());
}

async fn term(project: &Project, during: &During, service: &str) {
    let (began, id) = (Instant::now(), project.id(service).await);
    docker(&["kill", "-s", "TERM", &id]).await;
    let code = project.exit_code(service).await;
    let took = began.elapsed();
    assert_eq!(code, 0, "{service}");
    every_stage(&project.log(service).await);
    docker(&["start", &id]).await;
    did(during, "term", service, began, Some((code, took))).await;
}

/// The log of a stop: a line for each stage, and a last one.
pub fn every_stage(log: &str) {
    let log = &log[log.rfind("Stopping").expect("it says that it stops")..];
    for stage in ["not-ready", "notify", "drain", "flush", "release", "gone"] {
        assert!(log.contains(&format!("stage=\"{stage}\"")), "{stage} is not in {log}");
    }
    assert!(log.contains("Stopped") && log.contains("exit_code=0"), "{log}");
}

async fn kill(project: &Project, during: &During, service: &str) {
    let (began, id) = (Instant::now(), project.id(service).await);
    docker(&["kill", &id]).await;
    assert_eq!(project.exit_code(service).await, 137);
    docker(&["start", &id]).await;
    did(during, "kill", service, began, None).await;
}

async fn pause(project: &Project, during: &During, service: &str) {
    let (began, id) = (Instant::now(), project.id(service).await);
    docker(&["pause", &id]).await;
    sleep(AWAY).await;
    docker(&["unpause", &id]).await;
    did(during, "pause", service, began, None).await;
}

async fn disconnect(project: &Project, during: &During, service: &str) {
    let (began, id) = (Instant::now(), project.id(service).await);
    let format = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}";
    let network = docker(&["inspect", "--format", format, &id]).await;
    docker(&["network", "disconnect", "--force", &network, &id]).await;
    sleep(AWAY).await;
    docker(&["network", "connect", "--alias", service, &network, &id]).await;
    did(during, "disconnect", service, began, None).await;
}
