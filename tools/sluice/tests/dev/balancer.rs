//! deploy/nginx.conf before the gateways of a `sluice dev`: what a browser's page needs passes through it, with TLS.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::rig::{Dev, SOON, free_port, sluice, text};

/// A running nginx; ended when dropped.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its master, whose workers end with it; by then the test has its answer.
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

fn is_there(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The example, with the addresses and files of the test in place of its own.
fn example(dir: &Path, port: u16, gateways: [&str; 2]) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/nginx.conf");
    let given = fs::read_to_string(file).unwrap();
    let mut made = given.clone();
    let host = |ws: &str| ws.trim_start_matches("ws://").trim_end_matches("/ws").to_owned();
    let third = "        server gateway-3:8080 max_fails=1 fail_timeout=1s;\n";
    for (from, to) in [
        ("gateway-1:8080", host(gateways[0])),
        ("gateway-2:8080", host(gateways[1])),
        (third, String::new()),
        ("listen 443 ssl", format!("listen 127.0.0.1:{port} ssl")),
        ("/etc/nginx/rooms", dir.join("rooms").display().to_string()),
        ("worker_rlimit_nofile 65536;", format!("pid {0}/pid; error_log {0}/log;", dir.display())),
        ("worker_connections 32768", "worker_connections 64".to_owned()),
    ] {
        assert!(made.contains(from), "deploy/nginx.conf has no {from:?}");
        made = made.replace(from, &to);
    }
    made.replace("http {\n", &format!("http {{\n    access_log off;\n{}", folders(dir)))
}

/// Where nginx keeps what it may not write elsewhere.
fn folders(dir: &Path) -> String {
    let all = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    all.map(|name| format!("    {name}_temp_path {}/{name};\n", dir.display())).concat()
}

/// What a page is told through nginx with this configuration: its status, or `pub`.
fn answer(dir: &Path, port: u16, configuration: &str, token: &str) -> String {
    let file = dir.join("nginx.conf");
    fs::write(&file, configuration).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(dir).arg("-c").arg(&file).args(["-e", "stderr", "-g", "daemon off;"]);
    let _nginx = Nginx(command.spawn().unwrap());
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < SOON, "nginx does not listen");
        thread::yield_now();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dev/behind.py");
    let mut python = Command::new("python3");
    let output = python.arg(script).args([&format!("wss://localhost:{port}/ws"), token]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_page_passes_through_the_example_for_nginx() {
    if !is_there("nginx", &["-v"])
        || !is_there("openssl", &["version"])
        || !is_there("python3", &["-c", "import websockets"])
    {
        eprintln!(
            "SKIPPED: nginx, openssl or python3 with `websockets` is not there: deploy/nginx.conf is not tried"
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--gateways", "2", "--port", &free_port().to_string()]);
    let state: Value =
        serde_json::from_slice(&fs::read(dir.path().join("sluice-dev.json")).unwrap()).unwrap();
    let mut mint = sluice();
    mint.args([
        "token",
        "--user",
        "alice",
        "--pub",
        "*",
        "--token-secret",
        state["token_secret"].as_str().unwrap(),
    ]);
    let token = text(&mint.output().unwrap().stdout);
    let certificate = dir.path().join("rooms");
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]);
    openssl
        .arg("-keyout")
        .arg(certificate.with_extension("key"))
        .arg("-out")
        .arg(certificate.with_extension("pem"));
    assert!(openssl.stderr(Stdio::null()).status().unwrap().success());

    let port = free_port();
    let good = example(dir.path(), port, [dev.ws(0), dev.ws(1)]);
    assert_eq!(answer(dir.path(), port, &good, &token), "pub");

    // Without its Host no page is let in: a gateway that knows its names says 421, any other 403.
    let port = free_port();
    let bad =
        example(dir.path(), port, [dev.ws(0), dev.ws(1)]).replace("proxy_set_header Host $http_host;", "");
    assert_eq!(answer(dir.path(), port, &bad, &token), "421");
}
