//! `sluice serve`: what it refuses, what its first configuration is good for, how it stops, and who may ask it for what.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_client::{Client, Error, Options};
use sluice_launcher::probe;
use sluice_launcher::token::{Grants, mint};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::rig::{Dev, SECRET, SOON, connect, frame, last_words, run, serve, sluice, text, token};

/// The stop is asked to take less than a second; this much it may take on a busy machine.
const AT_MOST: Duration = Duration::from_secs(5);

/// Its words on standard error, where it does not start.
fn refused(dir: &Path, settings: &[&str], secret: &str) -> String {
    let mut command = serve(dir);
    command.env("SLUICE_TOKEN_SECRET", secret);
    for setting in settings {
        command.args(["--set", setting]);
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty());
    text(&output.stderr)
}

#[test]
fn without_tokens_it_does_not_start_and_names_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let said = refused(&data, &[], "");
    assert!(said.starts_with("sluice serve: ") && said.contains("sluice serve --init"), "{said}");
    for (settings, why) in [
        (&["admin.listen=0.0.0.0:0"][..], "admin.token_file"),
        (&["api.listen=127.0.0.1:0"], "api.keys_file"),
        (&["listen=[]"], "listen is empty"),
        (&["anonymous=true"], "unknown key"),
    ] {
        let said = refused(&data, settings, SECRET);
        assert!(said.contains(why), "{settings:?}: {said}");
    }
    assert!(refused(&data, &[], "sluice-default-secret-change-me").contains("published"));
    assert!(!data.exists(), "nothing was begun");
}

#[test]
fn a_folder_has_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Dev::serve(dir.path());
    let said = refused(dir.path(), &[], SECRET);
    assert!(said.contains("`sluice serve` runs in") && said.contains("stop it first"), "{said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("listen={}", taken.local_addr().unwrap());
    let other = tempfile::tempdir().unwrap();
    let output = serve(other.path()).args(["--set", &listen]).output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("cannot listen"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_configuration_lets_in_who_has_a_token_or_a_key_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("sluice.toml");
    let path = config.to_str().unwrap();
    let made = run(&["serve", "--init", "--config", path]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let said = text(&made.stdout);
    let key =
        said.split_whitespace().find(|word| word.starts_with("sluice_")).unwrap_or_else(|| panic!("{said}"));
    let again = run(&["serve", "--init", "--config", path]);
    assert!(!again.status.success() && text(&again.stderr).contains("exists"), "{}", text(&again.stderr));

    let mut command = sluice();
    command.args(["serve", "--config", path]);
    for setting in
        ["listen=127.0.0.1:0", "admin.listen=127.0.0.1:0", "api.listen=127.0.0.1:0", "log.level=warn"]
    {
        command.args(["--set", setting]);
    }
    let serve = Dev::spawn(command);
    let refused = Client::connect(Options::new(serve.ws(0))).await.err();
    assert!(matches!(refused, Some(Error::TokenNeeded | Error::Refused(_))), "{refused:?}");

    let text_of = std::fs::read_to_string(&config).unwrap();
    let secret = text_of.split("token_secret = \"").nth(1).unwrap().split('"').next().unwrap();
    let grants = Grants { sub: vec!["news".into()], publish: vec!["news".into()] };
    let (mut socket, _) = connect(serve.ws(0), Some(&mint(secret, "ann", grants, SOON).unwrap())).await;
    socket.send(json!({ "sub": "news" }).to_string()).await.unwrap();
    assert_eq!(frame(&mut socket).await["ok"], "sub");

    let api = serve.first["logics"][0]["http"].as_str().unwrap();
    let publish = |key: &str| run(&["api", "publish", "news", "17", "--url", api, "--api-key", key]);
    let output = tokio::task::block_in_place(|| publish(key));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(frame(&mut socket).await["data"], 17);
    let stranger = key.replace(|c: char| c.is_ascii_digit(), "x");
    assert!(!tokio::task::block_in_place(|| publish(&stranger)).status.success());
}

#[tokio::test]
async fn a_signal_ends_it_with_0_and_every_client_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut serve = Dev::serve(dir.path());
    let mut clients = Vec::new();
    for n in 0..10 {
        let (mut socket, _) = connect(serve.ws(n % 2), Some(&token(&format!("u{n}")))).await;
        socket.send(json!({ "pub": format!("room-{n}"), "data": n }).to_string()).await.unwrap();
        clients.push(socket);
    }
    serve.signal("-TERM");
    for client in clients {
        let (frames, code) = last_words(client).await;
        assert_eq!(code, 1012, "{frames:?}");
        assert!(frames.iter().any(|frame| frame["ok"] == "pub"), "answered: {frames:?}");
    }
    let (status, elapsed) = serve.wait();
    assert_eq!(status.code(), Some(0));
    assert!(elapsed < AT_MOST, "{elapsed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_page_shows_all_services_and_asks_for_its_token_before_it_changes_anything() {
    let dir = tempfile::tempdir().unwrap();
    let token_file = dir.path().join("admin.token");
    std::fs::write(&token_file, "0123456789abcdef\n").unwrap();
    let mut command = serve(dir.path());
    command.arg("--set").arg(format!("admin.token_file={}", token_file.display()));
    let serve = Dev::spawn(command);
    let get = async |path: &str| probe::get(&format!("{}{path}", serve.page()), SOON).await.unwrap();

    assert_eq!(get("/readyz").await.status, 200);
    for name in ["gateway-1", "gateway-2", "logic", "task"] {
        let metrics = get(&format!("/services/{name}/metrics")).await;
        assert!(metrics.status == 200 && metrics.body.contains("sluice_"), "{name}");
        let status: Value =
            serde_json::from_str(&get(&format!("/services/{name}/status")).await.body).unwrap();
        assert_eq!(status["stage"], "ready", "{name}: {status}");
    }
    for none in ["/services/gateway-3/metrics", "/services/logic/admin", "/dev/state"] {
        assert_eq!(get(none).await.status, 404, "{none}");
    }

    let url = format!("{}/serve/restart/gateway-1", serve.page());
    let unasked = probe::post_header(&url, ("x-sluice-dev", "1"), SOON).await.unwrap();
    assert_eq!(unasked.status, 401, "{}", unasked.body);
    let folder = dir.path().to_str().unwrap();
    let roll = |more: &[&str]| run(&[&["serve", "restart", "gateway-1", "--dir", folder], more].concat());
    let output = tokio::task::block_in_place(|| roll(&[]));
    assert!(text(&output.stderr).contains("--token-file"), "{}", text(&output.stderr));
    let output = tokio::task::block_in_place(|| roll(&["--token-file", token_file.to_str().unwrap()]));
    assert!(text(&output.stdout).contains("gateway-1 is ready again"), "{}", text(&output.stderr));
    let instances: Value = serde_json::from_str(&get("/admin/instances").await.body).unwrap();
    assert_eq!((&instances[0]["life"], &instances[1]["life"]), (&json!(2), &json!(1)), "{instances}");
}

/// Its settings under a limit of open files, and what it says on standard error.
fn limited(dir: &Path, files: u32, connections_max: u32) -> (Dev, String) {
    let inner = serve(dir);
    let log = dir.join("log");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]).arg(inner.get_program());
    command.args(inner.get_args()).args(["--set", &format!("connections_max={connections_max}")]);
    command.env("SLUICE_TOKEN_SECRET", SECRET).stderr(std::fs::File::create(&log).unwrap());
    // Its line on standard output comes after all that is said at a start.
    let mut serve = Dev::spawn(command);
    serve.signal("-TERM");
    serve.wait();
    (serve, std::fs::read_to_string(log).unwrap())
}

#[test]
fn both_gateways_together_are_held_against_the_limit_of_open_files() {
    let dir = tempfile::tempdir().unwrap();
    // Enough for either of them alone.
    let (_serve, said) = limited(dir.path(), 5_000, 2_000);
    assert_eq!(said.matches("Too few files may be open").count(), 1, "{said}");
    assert!(said.contains("to 8096 or lower connections_max"), "{said}");
    let (_serve, said) = limited(dir.path(), 8_096, 2_000);
    assert!(!said.contains("Too few files"), "{said}");
}

/// Ports on which a process listens.
fn ports_of(pid: &Value) -> Vec<u16> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    let sockets: Vec<String> = links
        .filter_map(|link| {
            let link = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
            Some(link)
        })
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let listening = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_ours = fields[3] == "0A" && sockets.iter().any(|socket| *socket == fields[9]);
        let port = u16::from_str_radix(fields[1].split_once(':')?.1, 16).ok()?;
        is_ours.then_some(port)
    });
    listening.collect()
}

/// What a port answers to somebody who speaks gRPC in clear.
async fn answer_in_clear(port: u16) -> Vec<u8> {
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    tcp.write_all(preface).await.unwrap();
    let mut answer = vec![0; 16];
    let count = timeout(SOON, tcp.read(&mut answer)).await.expect("an answer or an end in time");
    answer.truncate(count.unwrap_or(0)); // a reset is none
    answer
}

#[tokio::test]
async fn nobody_else_on_this_machine_can_be_one_of_its_services() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Dev::serve(dir.path());
    let (mut alerts, mut seen) = (0, Vec::new());
    for port in ports_of(&serve.first["pid"]) {
        let answer = answer_in_clear(port).await;
        // A frame of HTTP/2 begins with its length and its type, here that of settings.
        assert_ne!(answer.get(3), Some(&4), "{port} speaks gRPC with everybody: {answer:?}");
        alerts += usize::from(answer.starts_with(&[0x15, 3]));
        seen.push((port, answer));
    }
    assert_eq!(alerts, 3, "both gateways and the logic want a certificate: {seen:?}");
}
