//! deploy/compose.serve.yaml: a configuration that is made once, a message, an orderly stop, a kill, and another container
//! on the same volumes; what was answered is there after each.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_client::raw::{Handshake, Socket};
use sluice_launcher::token::{Grants, mint};
use tokio::time::timeout;

use crate::engine::{Project, docker, output};
use crate::image::CUT;

const URLS: [&str; 2] = ["ws://127.0.0.1:8080/ws", "ws://127.0.0.1:8090/ws"];
/// A frame, on a machine that is busy.
const SOON: Duration = Duration::from_secs(20);

/// The secret of the configuration in the container: there is no shell that could show it.
async fn secret(id: &str) -> String {
    // A tar archive, whose only file is text.
    let archive = docker(&["cp", &format!("{id}:/config/sluice.toml"), "-"]).await;
    let secret = archive.split("token_secret = \"").nth(1).and_then(|rest| rest.split('"').next());
    secret.unwrap_or_else(|| panic!("{archive}")).to_owned()
}

async fn frame(socket: &mut Socket) -> Value {
    timeout(SOON, socket.json()).await.expect("a frame in time").unwrap_or_else(|frame| panic!("{frame:?}"))
}

async fn connect(url: &str, secret: &str) -> Socket {
    let all = || vec!["*".to_owned()];
    let token = mint(secret, "ann", Grants { sub: all(), publish: all() }, 10 * SOON).unwrap();
    let mut socket = Socket::connect(&Handshake::new(url).token(token)).await.unwrap();
    let welcome = frame(&mut socket).await;
    assert_eq!(welcome["welcome"]["user"], "ann", "{welcome}");
    socket
}

/// All that is in the room, by each gateway: messages `0..count`, in order.
async fn holds(secret: &str, count: u64) {
    for url in URLS {
        let mut socket = connect(url, secret).await;
        socket.send(json!({ "sub": "news", "after": 0 }).to_string()).await.unwrap();
        let ok = frame(&mut socket).await;
        assert_eq!((&ok["head"], &ok["recovered"]), (&json!(count), &json!(true)), "{ok}");
        for n in 0..count {
            let message = frame(&mut socket).await;
            assert_eq!((&message["seq"], &message["data"]), (&json!(n + 1), &json!(n)), "{message}");
        }
    }
}

/// One more message, answered ok.
async fn publish(secret: &str, n: u64) {
    let mut socket = connect(URLS[0], secret).await;
    socket.send(json!({ "pub": "news", "data": n }).to_string()).await.unwrap();
    let ok = frame(&mut socket).await;
    assert_eq!((&ok["ok"], &ok["seq"]), (&json!("pub"), &json!(n + 1)), "{ok}");
}

/// As the first lines of the file have it.
async fn init(project: &Project) -> std::process::Output {
    let init = [
        "run",
        "--rm",
        "-T",
        "serve",
        "serve",
        "--init",
        "--config",
        "/config/sluice.toml",
        "--set",
        "dir=/data",
    ];
    project.try_compose(&init).await
}

async fn ends_with(project: &Project, signal: &str, code: i32) {
    let id = project.id("serve").await;
    docker(&["kill", "-s", signal, &id]).await;
    assert_eq!(project.exit_code("serve").await, code, "{}", project.log("serve").await);
    docker(&["start", &id]).await;
    project.healthy(&["serve"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker Engine: make test-containers"]
async fn one_process_keeps_what_was_answered_over_stops_kills_and_containers() {
    let project = Project::alone("sluice-test-serve", "compose.serve.yaml");
    let (made, again) = (init(&project).await, init(&project).await);
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(made.status.success() && said.contains("sluice_"), "the key of the API is shown: {made:?}");
    assert!(!again.status.success(), "nothing is overwritten: {again:?}");

    project.compose(&["up", "--detach", "--no-build"]).await;
    project.healthy(&["serve"]).await;
    let id = project.id("serve").await;
    let format = "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.Init}}";
    assert_eq!(docker(&["inspect", "--format", format, &id]).await, "true [ALL] true");
    let user = docker(&["inspect", "--format", "{{.Config.User}}", &id]).await;
    assert!(!["", "0", "root"].contains(&user.as_str()), "it runs as {user:?}");
    let shell = output("docker", &["exec", &id, "/bin/sh", "-c", "true"]).await;
    assert!(!shell.status.success(), "it has a shell");
    assert!(!project.log("serve").await.contains(CUT), "the engine kills later than it stops");

    let secret = secret(&id).await;
    publish(&secret, 0).await;
    holds(&secret, 1).await;
    ends_with(&project, "TERM", 0).await;
    assert!(project.log("serve").await.contains("exit_code=0"));
    holds(&secret, 1).await;
    publish(&secret, 1).await;
    ends_with(&project, "KILL", 137).await;
    holds(&secret, 2).await;
    publish(&secret, 2).await;
    let backup =
        ["exec", &id, "/usr/local/bin/sluice", "store", "backup", "/data/monday.db", "--dir", "/data"];
    assert!(docker(&backup).await.contains("3 messages in 1 rooms"));

    project.compose(&["up", "--detach", "--no-build", "--force-recreate"]).await;
    project.healthy(&["serve"]).await;
    assert_ne!(project.id("serve").await, id, "another container");
    holds(&secret, 3).await;
    publish(&secret, 3).await;
}
