//! The verbs of the command line against real services: what they say when something is missing, wrong or late, and
//! that data passes as it was published.

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_launcher::{Cluster, Credentials, Node, Options, Service, service_binary};
use sqlx::{Connection, PgConnection};

/// What is said at once is said within this, on a busy machine too; waiting in vain takes 10 s and more.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Numbers outside every type, members twice and out of order, what turns a line or clears a terminal.
const ODD: [&str; 4] = [
    r#"{"z":123456789012345678901234567890,"a":1.10,"a":2}"#,
    "[-0, 1E+2,\t0.10000000000000000000001]",
    "\"\u{9b}2J\u{85}\u{202e}\u{7f} \\u001b[2J\"",
    "{\"a\":\n1}",
];

fn sluice(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments).env_remove("SLUICE_TOKEN").env_remove("SLUICE_URL").stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

async fn cluster() -> Cluster {
    Cluster::start(Options { gateways: 1, logics: 1, tasks: 2, ..Options::default() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_needs_a_token_is_told_at_once_and_who_waits_is_told_why() {
    let cluster = cluster().await;
    let url = cluster.gateway(0).ws().to_owned();
    for verb in [&["pub", "news", "1"][..], &["sub", "news"]] {
        let began = Instant::now();
        let (code, _, said) = run(sluice(verb).args(["--url", &url]));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("a token is needed: --token, or SLUICE_TOKEN"), "{said}");
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    }

    let token = cluster.token("ann", &["*"], &["*"]).unwrap();
    let publish = |data: &str| {
        run(&mut sluice(&["pub", "news", data, "--timeout", "4", "--url", &url, "--token", &token]))
    };
    assert_eq!(publish("1").0, Some(0));
    let mut store = PgConnection::connect(cluster.store(Service::Postgres).url()).await.unwrap();
    let mut hold = store.begin().await.unwrap();
    sqlx::query("lock table messages in access exclusive mode").execute(&mut *hold).await.unwrap();
    let began = Instant::now();
    let (code, out, said) = publish("2");
    hold.rollback().await.unwrap();
    assert_eq!((code, out.as_str()), (Some(1), ""), "{said}");
    assert!((4..8).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert!(said.contains("not stored yet") && said.contains("again with --key "), "{said}");

    // nobody at all
    assert!(cluster.gateway(0).freeze());
    let (code, _, said) = publish("3");
    assert!(cluster.gateway(0).thaw());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("has not answered yet") && said.contains("nothing was published"), "{said}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_passes_as_it_was_published() {
    let cluster = cluster().await;
    let (url, token) = (cluster.gateway(0).ws().to_owned(), cluster.token("ann", &["*"], &["*"]).unwrap());
    let target = ["--url", url.as_str(), "--token", token.as_str()];
    for data in ODD {
        assert_eq!(run(sluice(&["pub", "odd", data]).args(target)).0, Some(0), "{data}");
    }
    let all = ["sub", "odd", "--after", "0", "--count", "4"];
    let (code, out, said) = run(sluice(&all).arg("--json").args(target));
    assert_eq!(code, Some(0), "{said}");
    let lines: Vec<&str> = out.lines().filter(|line| line.starts_with("{\"msg\"")).collect();
    for (line, data) in lines.iter().zip(ODD) {
        assert!(line.ends_with(&format!(",\"data\":{}}}", data.replace('\n', " "))), "{line}");
    }
    assert_eq!(lines.len(), ODD.len(), "{out}");
    let (_, out, _) = run(sluice(&all).args(target));
    assert!(!out.contains(|char: char| char.is_control() && char != '\n'), "{out:?}");
    assert_eq!(out.lines().filter(|line| !line.starts_with("-- ")).count(), ODD.len(), "{out}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_shows_all_instances_and_their_connections() {
    let cluster = cluster().await;
    let nodes: Vec<Node> = Service::SERVICES.iter().flat_map(|service| cluster.nodes(*service)).collect();
    let urls: Vec<&str> = nodes.iter().map(Node::admin).collect();
    let (url, token) = (cluster.gateway(0).ws().to_owned(), cluster.token("ann", &["*"], &["*"]).unwrap());
    let mut listener =
        sluice(&["sub", "news", "--url", &url, "--token", &token]).stdout(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    loop {
        let (code, out, _) = run(sluice(&["status"]).args(&urls));
        assert_eq!((code, out.lines().count()), (Some(0), nodes.len() + 2), "{out}");
        if out.ends_with("1 connection on 1 gateway\n") {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{out}");
    }
    listener.kill().unwrap();
    listener.wait().unwrap();
    let (_, out, _) = run(sluice(&["status", "--json"]).args(&urls));
    let pids: BTreeSet<u64> = out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["pid"].as_u64().unwrap())
        .collect();
    assert_eq!(pids, nodes.iter().map(|node| u64::from(node.pid())).collect());
    let gone = run(sluice(&["status", "http://127.0.0.1:1"]).args(&urls));
    assert_eq!(gone.0, Some(1), "{}", gone.1);
    cluster.stop().await;
}

/// `sluice roll --pid` of one process, started as the launcher started it.
fn roll(dir: &std::path::Path, node: &Node, pid: u32, admin: &str) -> (Option<i32>, String, String) {
    let binary = service_binary(node.service, None).unwrap();
    let environment = std::fs::read(format!("/proc/{}/environ", node.pid())).unwrap();
    let mut command =
        sluice(&["roll", "--pid", &format!("task-1={pid}"), "--admin", &format!("task-1={admin}")]);
    let listen = node.admin().trim_start_matches("http://");
    let start = format!("task-1={} --set admin.listen={listen}", binary.display());
    command.args(["--start", &start, "--ready-s", "20"]).current_dir(dir);
    for variable in environment.split(|byte| *byte == 0) {
        if let Some((name, value)) = String::from_utf8_lossy(variable).split_once('=') {
            command.env(name, value);
        }
    }
    run(&mut command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_signals_only_who_is_meant() {
    let cluster = cluster().await;
    let dir = tempfile::tempdir().unwrap();
    let (task, other, logic) = (cluster.task(0), cluster.task(1), cluster.logic(0));
    for (pid, admin, why) in [
        (logic.pid(), task.admin(), "that is a logic"),
        (task.pid(), logic.admin(), "is the admin page of a logic"),
        (task.pid(), other.admin(), "correct --pid or --admin"),
        (4_194_305, task.admin(), "there is no such process"),
    ] {
        let (code, _, said) = roll(dir.path(), &task, pid, admin);
        assert!(matches!(code, Some(1 | 2)) && said.contains(why), "{code:?} {said}");
        for node in [&task, &other, &logic] {
            assert!(
                std::path::Path::new(&format!("/proc/{}", node.pid())).exists(),
                "{} was ended: {said}",
                node.name()
            );
        }
        std::fs::remove_file(dir.path().join("sluice-roll.json")).ok();
    }
    let (code, out, said) = roll(dir.path(), &task, task.pid(), task.admin());
    assert_eq!(code, Some(0), "{out}{said}");
    let new = out.rsplit_once("all replaced: --pid task-1=").unwrap_or_else(|| panic!("{out}")).1.trim();
    assert_ne!(new, task.pid().to_string());
    assert!(
        Command::new("kill").args(["-TERM", new]).status().unwrap().success(),
        "{new} is the new process"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_with_connect_says_what_each_server_answers() {
    let cluster = cluster().await;
    checked(&cluster);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_with_connect_shows_its_certificates_and_passwords() {
    let options = Options { gateways: 0, logics: 0, tasks: 0, secure: true, ..Options::default() };
    let cluster = Cluster::start(options).await.unwrap();
    checked(&cluster);
    cluster.stop().await;
}

/// What a section has beside the URL.
fn opening(cluster: &Cluster, store: Service) -> String {
    let Some(Credentials { user, password_file, tls, .. }) = cluster.credentials(store) else {
        return String::new();
    };
    let files = [("ca_file", tls.ca), ("cert_file", tls.cert), ("key_file", tls.key)];
    // Those of PostgreSQL are in its URL.
    let files = files.into_iter().filter(|_| store != Service::Postgres);
    let lines = files.chain([("password_file", password_file)]);
    let lines: String = lines.map(|(key, file)| format!("{key} = {file:?}\n")).collect();
    let user = user.filter(|_| store == Service::Etcd).map(|user| format!("user = {user:?}\n"));
    lines + &user.unwrap_or_default()
}

fn checked(cluster: &Cluster) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = format!("token_secret = {:?}\n", cluster.token_secret());
    for (section, store) in
        [("postgres", Service::Postgres), ("nats", Service::Nats), ("redis", Service::Redis)]
    {
        let (url, opening) = (cluster.store(store).url().to_owned(), opening(cluster, store));
        config += &format!("[{section}]\nurl = {url:?}\n{opening}");
    }
    let (etcd, opening) = (cluster.store(Service::Etcd).url().to_owned(), opening(cluster, Service::Etcd));
    config += &format!("[etcd]\nendpoints = [{etcd:?}]\n{opening}");
    let file = dir.path().join("logic.toml");
    std::fs::write(&file, config).unwrap();
    let (code, out, said) = run(sluice(&["check", "--connect", "--logic"]).arg(&file));
    assert_eq!(code, Some(0), "{out}{said}");
    for answer in
        ["postgres.url: PostgreSQL 1", "nats.url: NATS 2", "redis.url: Redis ", "etcd.endpoints: etcd 3."]
    {
        assert!(out.contains(answer), "{answer}: {out}");
    }
}
