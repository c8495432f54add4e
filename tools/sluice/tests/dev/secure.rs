//! The command line at `wss://`, through deploy/haproxy.cfg with TLS before the gateways of a `sluice dev`.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::thread;
use std::time::Instant;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;

use crate::rig::{Dev, SOON, free_port, sluice, text};

/// A running HAProxy; ended when dropped.
struct HaProxy(Child);

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn haproxy() -> Option<&'static str> {
    let there = |program: &&str| Command::new(program).arg("-v").output().is_ok();
    ["haproxy", "/usr/sbin/haproxy"].into_iter().find(there)
}

/// The example with TLS, as docs/operations.md has it, and with the addresses of the test in place of its own.
fn example(dev: &Dev, port: u16, certificate: &Path) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/haproxy.cfg");
    let mut made = fs::read_to_string(file).unwrap();
    let bind = format!("bind 127.0.0.1:{port} ssl crt {} alpn http/1.1", certificate.display());
    let gateway = |number: usize| {
        let host = |key: &str| dev.first["gateways"][number][key].as_str().unwrap().to_owned();
        let clients = host("ws").trim_start_matches("ws://").trim_end_matches("/ws").to_owned();
        format!("{clients} no-check no-agent-check no-send-proxy-v2")
    };
    for (from, to) in [
        ("bind :8080", bind),
        ("gateway-1:8080", gateway(0)),
        ("gateway-2:8080", gateway(1)),
        ("    server gateway-3 gateway-3:8080\n", String::new()),
        ("bind :8404", format!("bind 127.0.0.1:{}", free_port())),
    ] {
        assert!(made.contains(from), "deploy/haproxy.cfg has no {from:?}");
        made = made.replace(from, &to);
    }
    made
}

fn start(program: &str, dir: &Path, port: u16, configuration: &str) -> HaProxy {
    let file = dir.join("haproxy.cfg");
    fs::write(&file, configuration).unwrap();
    let haproxy = HaProxy(Command::new(program).arg("-db").arg("-f").arg(&file).spawn().unwrap());
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < SOON, "HAProxy does not listen");
        thread::yield_now();
    }
    haproxy
}

/// The files of an authority, and of a certificate it signed for `localhost`, with its key.
fn certificates(dir: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let signed = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    fs::write(dir.join("rooms.pem"), signed.pem() + &key.serialize_pem()).unwrap();
}

#[test]
fn the_command_line_publishes_through_a_balancer_with_tls() {
    let Some(program) = haproxy() else {
        eprintln!("SKIPPED: haproxy is not there: wss:// is not tried through deploy/haproxy.cfg");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--gateways", "2", "--port", &free_port().to_string()]);
    let state: Value =
        serde_json::from_slice(&fs::read(dir.path().join("sluice-dev.json")).unwrap()).unwrap();
    let secret = state["token_secret"].as_str().unwrap();
    let mut mint = sluice();
    mint.args(["token", "--user", "alice", "--pub", "*", "--secret", secret]);
    let token = text(&mint.output().unwrap().stdout);
    certificates(dir.path());
    let port = free_port();
    let configuration = example(&dev, port, &dir.path().join("rooms.pem"));
    let _haproxy = start(program, dir.path(), port, &configuration);

    let publish = |url: &str, ca: Option<&str>| -> Output {
        let mut command = sluice();
        command.args(["pub", "news", "1", "--timeout", "20", "--url", url, "--token", &token]);
        if let Some(file) = ca {
            command.arg("--ca").arg(dir.path().join(file));
        }
        command.output().unwrap()
    };
    let url = format!("wss://localhost:{port}/ws");
    let done = publish(&url, Some("ca.pem"));
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(text(&done.stdout).contains(r#""seq":1"#), "{}", text(&done.stdout));

    for (url, ca, said) in [
        (url.as_str(), None, "is signed by no authority that is trusted here: name its CA"),
        (&format!("wss://127.0.0.1:{port}/ws"), Some("ca.pem"), "is for another name"),
        (dev.ws(0).replace("ws://", "wss://").as_str(), Some("ca.pem"), "use ws://"),
        (url.as_str(), Some("sluice-dev.json"), "holds no certificate"),
        (url.as_str(), Some("none.pem"), "none.pem"),
    ] {
        let refused = publish(url, ca);
        assert_eq!(refused.status.code(), Some(1), "{url} {ca:?}");
        assert!(text(&refused.stderr).contains(said), "{url} {ca:?}: {}", text(&refused.stderr));
    }
}
