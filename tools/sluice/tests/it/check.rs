//! `sluice check`: what differs, what cannot be meant, what this build cannot do, what servers answer.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{sluice, text};

const SECRET: &str = "token_secret = \"0123456789abcdef0123456789abcdef\"\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// Its exit code and what it prints.
fn check(files: &[(&str, &Path)], more: &[&str]) -> (Option<i32>, String) {
    let mut command = sluice();
    command.arg("check").args(more);
    for (flag, file) in files {
        command.arg(flag).arg(file);
    }
    let output = command.output().unwrap();
    (output.status.code(), text(&[output.stdout, output.stderr].concat()))
}

#[test]
fn all_files_are_compared() {
    let folder = Folder::new();
    let logic = folder.file("logic.toml", &format!("{SECRET}[redis]\nurl = \"redis://:one@redis:6379\"\n"));
    let task = folder.file("task.toml", "[redis]\nurl = \"redis://:one@redis:6379\"\n");
    let gateway = folder.file("gateway.toml", "");
    let (code, said) = check(&[("--logic", &logic), ("--task", &task), ("--gateway", &gateway)], &[]);
    assert_eq!(code, Some(0), "{said}");

    let another = folder.file("gateway-2.toml", "prefix = \"other\"\n[retention]\ndedupe_min_s = 7200\n");
    let other_password = folder.file("task-2.toml", "[redis]\nurl = \"redis://:two@redis:6379\"\n");
    let files = [
        ("--logic", logic.as_path()),
        ("--task", &task),
        ("--task", &other_password),
        ("--gateway", &gateway),
        ("--gateway", &another),
    ];
    let (code, said) = check(&files, &[]);
    assert_eq!(code, Some(2), "{said}");
    for key in ["prefix", "retention.dedupe_min_s", "redis.url"] {
        assert!(said.contains(&format!("\n{key} differs, must be the same everywhere")), "{key}: {said}");
    }
    assert!(!said.contains(":one@") && !said.contains(":two@"), "{said}");

    let elsewhere = folder.file(
        "task-3.toml",
        "[redis]\nurl = \"redis://:one@redis:6379\"\n[nats]\nurl = \"nats://n2:4222\"\n",
    );
    let (code, said) = check(&[("--logic", &logic), ("--task", &elsewhere)], &[]);
    assert_eq!(code, Some(0), "a cluster has many addresses: {said}");
    assert!(said.contains("nats.url differs, do both lead to the same place?"), "{said}");
}

#[test]
fn urls_that_cannot_be_meant_or_used_are_said() {
    let folder = Folder::new();
    for (service, config, says) in [
        ("logic", "[postgres]\nurl = \"postgresql:/sluice\"", "must begin with postgres://"),
        ("logic", "[postgres]\nurl = \"postgres://u:p/w@db:5432/sluice\"", "must be written %2F"),
        ("logic", "[postgres]\nurl = \"mysql://db/sluice\"", "the store of this build is PostgreSQL"),
        ("task", "[redis]\nurl = \"redis+cluster://redis:6379/1\"", "has one database"),
        ("task", "[redis]\nca_file = \"/none\"", "redis.url must then begin with rediss://"),
        (
            "task",
            "[etcd]\nendpoints = [\"https://etcd:2379\"]\nuser = \"ann\"",
            "etcd.user and etcd.password",
        ),
        ("task", "[nats]\nkey_file = \"/dev/null\"", "nats.cert_file and nats.key_file need each other"),
        ("task", "[logic]\nseeds = [\"http://logic:7070\"]", "logic.seeds"),
        ("gateway", "advertise = \"https://chat.example/ws\"", "clients connect by WebSocket"),
        ("gateway", "[grpc]\nadvertise = \"https://gateway:7080\"", "grpc.advertise"),
        ("logic", "[grpc]\nlisten = \"0.0.0.0:7070\"\nadvertise = \"logic:7070\"", "grpc.insecure = true"),
        ("task", "[tls]\nca = \"ca.pem\"", "tls.cert and tls.key: not set"),
    ] {
        let secret = if service == "logic" { SECRET } else { "" };
        let file = folder.file("one.toml", &format!("{secret}{config}\n"));
        let (code, said) = check(&[(&format!("--{service}"), &file)], &[]);
        assert_eq!(code, Some(2), "{config}: {said}");
        assert!(said.contains(says), "{config}: {said}");
    }
}

#[test]
fn services_that_let_in_strangers_say_so() {
    let folder = Folder::new();
    let grpc = "[grpc]\nlisten = \"0.0.0.0:7080\"\nadvertise = \"gateway:7080\"\ninsecure = true\n";
    let gateway = folder.file("gateway.toml", grpc);
    let (code, said) = check(&[("--gateway", &gateway)], &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("WHOEVER REACHES 0.0.0.0:7080 CAN BE ANY SERVICE"), "{said}");
}

#[test]
fn a_platform_that_kills_too_early_is_found_in_its_file() {
    let folder = Folder::new();
    let slow = folder.file("gateway.toml", "[shutdown]\ntotal_ms = 15000\n");
    let quick = folder.file("task.toml", "");
    let unit = |service: &str, seconds: u32| {
        let text = format!("[Service]\nExecStart=/usr/bin/sluice-{service}\nTimeoutStopSec={seconds}\n");
        folder.file(&format!("sluice-{service}.service"), &text)
    };
    let (gateway, task) = (unit("gateway", 12), unit("task", 12));
    let files = [("--gateway", slow.as_path()), ("--task", &quick)];
    let (code, said) = check(&[files[0], files[1], ("--platform", &task)], &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("leaves time for a stop"), "{said}");
    let (code, said) = check(&[files[0], files[1], ("--platform", &task), ("--platform", &gateway)], &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("line 3: TimeoutStopSec is 12s, but a stop of gateway may take 15s"), "{said}");
    let (code, said) = check(&[files[1], ("--platform", &quick)], &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no unit of systemd"), "{said}");
}

/// What people apply, as `.ci/kubernetes` renders it; where nothing can be rendered that is said.
#[test]
fn overlays_and_chart_leave_time_for_a_stop() {
    let folder = Folder::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.ci/kubernetes");
    for source in ["base", "small", "production", "chart", "chart-production"] {
        let rendered = Command::new(&script).args(["print", source]).output().unwrap();
        if rendered.status.code() == Some(3) {
            eprintln!("SKIPPED: {}", text(&rendered.stderr));
            return;
        }
        assert!(rendered.status.success(), "{source}: {}", text(&rendered.stderr));
        let manifests = folder.file(source, &text(&rendered.stdout));
        let (code, said) = check(&[("--kubernetes", &manifests)], &[]);
        assert_eq!(code, Some(0), "{source}: {said}");
        assert!(said.ends_with("pods are stopped and rolled in time"), "without a warning, {source}: {said}");
        let rendered = text(&rendered.stdout);
        // Each of them has gateways that stop as long as their own file says.
        let short =
            rendered.replacen("terminationGracePeriodSeconds: 20", "terminationGracePeriodSeconds: 13", 1);
        let short =
            short.replacen("terminationGracePeriodSeconds: 40", "terminationGracePeriodSeconds: 33", 1);
        assert_ne!(short, rendered, "{source}");
        let (code, said) = check(&[("--kubernetes", &folder.file("short", &short))], &[]);
        assert_eq!(code, Some(2), "{source}: {said}");
    }
}

/// With secrets and certificates where pods have them.
#[test]
fn services_accept_their_files_for_kubernetes() {
    let folder = Folder::new();
    let dir = folder.0.path().display().to_string();
    let certs = folder.0.path().join("certs");
    assert!(sluice().args(["certs", "--dir"]).arg(&certs).output().unwrap().status.success());
    let copy = |from: &str, to: &str| folder.file(to, &std::fs::read_to_string(certs.join(from)).unwrap());
    copy("ca.pem", "stores.pem");
    for secret in ["token_secret", "postgres", "redis", "sentinels", "nats", "etcd"] {
        folder.file(secret, "0123456789abcdef0123456789abcdef\n");
    }
    folder.file("api-keys.toml", "");
    let overlays = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes");
    for overlay in ["base", "overlays/production"] {
        let files = ["gateway", "logic", "task"].map(|service| {
            std::fs::create_dir_all(folder.0.path().join(service)).unwrap();
            copy("ca.pem", &format!("{service}/ca.crt"));
            copy(&format!("{service}.pem"), &format!("{service}/tls.crt"));
            copy(&format!("{service}.key"), &format!("{service}/tls.key"));
            let name = format!("{service}.toml");
            let given = std::fs::read_to_string(overlays.join(overlay).join(&name)).unwrap();
            let moved = given.replace("/etc/sluice/secrets", &dir);
            folder.file(&name, &moved.replace("/etc/sluice/tls", &format!("{dir}/{service}")))
        });
        let mut command = sluice();
        // What a pod is told by its environment.
        command.arg("check").env("SLUICE_GRPC__ADVERTISE", "10.0.0.9:7070");
        for (flag, file) in ["--gateway", "--logic", "--task"].iter().zip(&files) {
            command.arg(flag).arg(file);
        }
        let output = command.output().unwrap();
        let said = text(&[output.stdout, output.stderr].concat());
        assert_eq!(output.status.code(), Some(0), "{overlay}: {said}");
    }
}

#[test]
fn manifests_are_read_from_standard_input_and_held_to_the_files_of_services() {
    let folder = Folder::new();
    let slow = folder.file("gateway.toml", "[shutdown]\ntotal_ms = 15000\n");
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes/base/gateway.yaml");
    let (code, said) = check(&[("--kubernetes", &base)], &[]);
    assert_eq!(code, Some(0), "no other configuration is asked for: {said}");
    let mut command = sluice();
    command.args(["check", "--kubernetes", "-", "--gateway"]).arg(&slow);
    let output = command.stdin(std::fs::File::open(&base).unwrap()).output().unwrap();
    let said = text(&[output.stdout, output.stderr].concat());
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("manifests: a stop or a roll of its pods is noticed"), "{said}");
    assert!(said.contains("is 20, but preStop takes 5s, a stop of gateway 15s"), "{said}");
    let (code, said) = check(&[("--kubernetes", &slow)], &[]);
    assert_eq!(code, Some(1), "{said}");
}

#[test]
fn servers_are_tried_when_that_is_asked_for() {
    let folder = Folder::new();
    let logic = folder.file(
        "logic.toml",
        &format!(
            "{SECRET}[postgres]\nurl = \"postgres://u:hush@127.0.0.1:1/sluice\"\n[nats]\nurl = \"nats://127.0.0.1:1\"\n\
             [redis]\nurl = \"redis://127.0.0.1:1\"\n[etcd]\nendpoints = [\"http://127.0.0.1:1\"]\n"
        ),
    );
    assert_eq!(check(&[("--logic", &logic)], &[]).0, Some(0), "nobody is asked without --connect");
    let (code, said) = check(&[("--logic", &logic)], &["--connect"]);
    assert_eq!(code, Some(2), "{said}");
    for key in ["postgres.url", "nats.url", "redis.url", "etcd.endpoints"] {
        assert!(said.contains(&format!("{key}: ")), "{key}: {said}");
    }
    assert!(!said.contains("hush"), "{said}");
    for internal in ["grpc request error", "source:", "Transport", "tonic", "error communicating"] {
        assert!(!said.contains(internal), "words of a driver, {internal}: {said}");
    }
}
