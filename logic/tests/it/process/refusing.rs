//! A PostgreSQL that answers and stores nothing: readiness, metrics and the log say so and why, callers get an honest
//! answer, and all goes on by itself.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User, chown};
use sluice_launcher::{Cluster, Service};
use sluice_proto::grpc::Outcome::{self, Duplicate, NotStored, Stored, Unknown};
use sluice_proto::grpc::PublishItem;
use sluice_proto::grpc::logic_client::LogicClient;
use sluice_service::clock::Clock;
use sluice_testing::free_port;
use tempfile::TempDir;
use tonic::Code;

use super::{Logic, urls};
use crate::rig::{Caller, get, item, outcomes, publish, within};
use crate::stores::{eventually, signal_family, stores};

/// Until readiness, log and metric say it: a second or two, and what a busy machine adds.
const SAID_WITHIN: Duration = Duration::from_secs(8);

/// Stores, and a logic whose role owns its database and no more.
struct Bed {
    cluster: Cluster,
    logic: Logic,
    caller: Caller,
    keys: u32,
}

impl Bed {
    async fn start() -> Self {
        let cluster = stores().await;
        let admin = cluster.store(Service::Postgres).url().to_owned();
        sql(&admin, "create role app login");
        sql(&admin, "create database app owner app");
        let mut urls = urls(&cluster);
        urls.retain(|(key, _)| *key != "SLUICE_POSTGRES__URL");
        let (address, _) = admin.rsplit_once('/').unwrap();
        urls.push(("SLUICE_POSTGRES__URL", format!("{}/app", address.replace("postgres@", "app@"))));
        let logic = Logic::start(&urls).await;
        logic.ready().await;
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", logic.grpc())).unwrap();
        let caller = LogicClient::new(endpoint.connect().await.unwrap());
        Self { cluster, logic, caller, keys: 0 }
    }

    /// As a superuser, in the database of logic.
    fn sql(&self, text: &str) {
        sql(&self.url(), text);
    }

    fn url(&self) -> String {
        let store = self.cluster.store(Service::Postgres);
        format!("{}/app", store.url().rsplit_once('/').unwrap().0)
    }

    /// A message nobody sent before.
    fn item(&mut self, room: &str, data: &str) -> PublishItem {
        self.keys += 1;
        item(room, "ann", &format!("k{}", self.keys), data)
    }

    async fn publish(&mut self, data: &str) -> Outcome {
        let item = self.item("news", data);
        self.send(vec![item]).await[0]
    }

    async fn send(&self, items: Vec<PublishItem>) -> Vec<Outcome> {
        outcomes(&publish(&self.caller, call(items)).await)
    }

    async fn readyz(&self) -> (u16, String) {
        get(self.logic.admin(), "/readyz").await
    }

    async fn metric(&self, line: &str) -> bool {
        get(self.logic.admin(), "/metrics").await.1.lines().any(|it| it == line)
    }

    /// From `begun` on, while somebody publishes `data`: not ready, counted and logged in time.
    async fn says(&mut self, begun: Instant, data: &str, reason: &str, sqlstate: &str) {
        loop {
            let outcome = self.publish(data).await;
            let (status, said) = self.readyz().await;
            // The counter of failures moves with the line in the log.
            let logged =
                self.metric("sluice_logic_dependency_failures_total{dependency=\"postgres\"} 1").await;
            if status == 503 && logged {
                assert!(said.contains(sqlstate), "{said}");
                assert_ne!(outcome, Stored);
                break;
            }
            assert!(begun.elapsed() < SAID_WITHIN, "{status} {said}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(begun.elapsed() < SAID_WITHIN, "{:?}", begun.elapsed());
        assert!(self.metric("sluice_logic_store_up 0").await);
        let metrics = get(self.logic.admin(), "/metrics").await.1;
        let counted = format!("sluice_logic_store_refusals_total{{reason=\"{reason}\"}} ");
        let count =
            metrics.lines().find_map(|line| line.strip_prefix(&counted)).expect("the reason is counted");
        assert!(count.parse::<u64>().unwrap() > 0, "{metrics}");
    }

    /// Once the cause is gone.
    async fn recovers(mut self, sqlstate: &str) {
        eventually("it is ready again", async || self.readyz().await.0 == 200).await;
        assert_eq!(self.publish("1").await, Stored);
        eventually("it is up again", async || {
            self.metric("sluice_logic_dependency_up{dependency=\"postgres\"} 1").await
        })
        .await;
        let ended = self.logic.signal(Signal::SIGTERM).await;
        let postgres = |what: &str| {
            ended
                .log
                .lines()
                .filter(|line| line.contains(what) && line.contains("postgres"))
                .collect::<Vec<_>>()
        };
        let (lost, back) = (postgres("A dependency is lost."), postgres("A dependency is back."));
        assert!(lost.len() == 1 && back.len() == 1, "{}", ended.log);
        assert!(lost[0].contains("WARN") && lost[0].contains(sqlstate), "{lost:?}");
        assert_eq!(ended.said("panicked"), 0);
        self.cluster.stop().await;
    }
}

fn call(items: Vec<PublishItem>) -> sluice_proto::grpc::PublishRequest {
    sluice_proto::grpc::PublishRequest {
        items,
        not_after_ms: Clock::system().now_ms() + 60_000,
        ..Default::default()
    }
}

fn psql(url: &str) -> Command {
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", url]);
    command
}

fn sql(url: &str, text: &str) {
    let output =
        psql(url).args(["-c", "set default_transaction_read_only = off", "-c", text]).output().unwrap();
    assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_read_only_server_is_said_and_left_behind() {
    let mut bed = Bed::start().await;
    assert_eq!(bed.publish("1").await, Stored);
    bed.sql("alter system set default_transaction_read_only = on");
    let begun = Instant::now();
    bed.sql("select pg_reload_conf()");
    bed.says(begun, "1", "read_only", "25006").await;
    assert!(bed.readyz().await.1.contains("default_transaction_read_only"));
    assert_eq!(bed.publish("1").await, NotStored);
    bed.sql("alter system reset default_transaction_read_only");
    bed.sql("select pg_reload_conf()");
    bed.recovers("25006").await;
}

#[tokio::test]
async fn a_right_that_was_revoked_is_said_also_while_nobody_publishes() {
    let bed = Bed::start().await;
    bed.sql("revoke insert on messages from app");
    let begun = Instant::now();
    eventually("not ready", async || bed.readyz().await.0 == 503).await;
    eventually("logged", async || {
        bed.metric("sluice_logic_dependency_failures_total{dependency=\"postgres\"} 1").await
    })
    .await;
    assert!(begun.elapsed() < SAID_WITHIN, "{:?}", begun.elapsed());
    assert!(bed.readyz().await.1.contains("it should own the schema"));
    bed.sql("grant insert on messages to app");
    bed.recovers("42501").await;
}

#[tokio::test]
async fn no_connection_left_is_said() {
    let mut bed = Bed::start().await;
    let admin = bed.cluster.store(Service::Postgres).url().to_owned();
    // As `max_connections` does, for this role only: the test has to get in.
    bed.sql("alter role app connection limit 0");
    let begun = Instant::now();
    sql(&admin, "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'");
    bed.says(begun, "1", "connections", "53300").await;
    bed.sql("alter role app connection limit -1");
    bed.recovers("53300").await;
}

/// A small file system of its own, for a tablespace.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where the machine does not allow it.
    fn mount() -> Option<Self> {
        let place = tempfile::Builder::new().prefix("sluice-disk-").tempdir().unwrap().keep();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(&place).status();
        let disk = Self(place);
        if !Uid::effective().is_root() || !mounted.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: a full disk: this user may not mount a tmpfs");
            return None;
        }
        let postgres = User::from_name("postgres").unwrap().expect("the user postgres");
        chown(&disk.0, Some(postgres.uid), Some(postgres.gid)).unwrap();
        Some(disk)
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server may still have it open.
        drop(Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status());
        drop(std::fs::remove_dir(&self.0));
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_left_behind() {
    let Some(disk) = SmallDisk::mount() else { return };
    let mut bed = Bed::start().await;
    bed.sql(&format!("create tablespace small location '{}'", Path::new(&disk.0).display()));
    bed.sql("alter table messages set tablespace small");
    // What cannot be compressed, of 48 KiB.
    let data =
        format!("\"{}\"", (0..3_000).map(|_| format!("{:016x}", rand::random::<u64>())).collect::<String>());
    assert_eq!(bed.publish(&data).await, Stored);
    let begun = Instant::now();
    disk.fill();
    bed.says(begun, &data, "full", "53100").await;
    // Nobody publishes for longer than a failure counts: the probe goes on saying it.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    let (status, said) = bed.readyz().await;
    assert!(status == 503 && said.contains("free space"), "{status} {said}");
    std::fs::remove_file(disk.filler()).unwrap();
    bed.recovers("53100").await;
}

/// A standby that every commit waits for.
struct Standby {
    child: Child,
    _dir: TempDir,
}

impl Standby {
    async fn of(bed: &Bed) -> Self {
        let program = bed.cluster.store_program(Service::Postgres).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (data, original) = (dir.path().join("data"), bed.cluster.store_data(Service::Postgres).unwrap());
        let original = original.join("data");
        ran(Command::new(program.with_file_name("pg_basebackup"))
            .args(["--checkpoint=fast", "--no-sync", "--write-recovery-conf", "--dbname"])
            .args([bed.cluster.store(Service::Postgres).url(), "--pgdata"])
            .arg(&data));
        ran(Command::new("chown").args(["-R", "--reference"]).args([&original, &data]));
        let owner = original.metadata().unwrap();
        let mut command = Command::new(program);
        command.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-k", "", "-p", &free_port().to_string()]);
        // Not fewer than the primary has, or it refuses to follow.
        command.args(["-c", "max_connections=1000"]);
        command.uid(owner.uid()).gid(owner.gid()).current_dir(&data);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let standby = Self { child, _dir: dir };
        bed.sql("alter system set synchronous_standby_names = '*'");
        bed.sql("select pg_reload_conf()");
        let follows = "select count(*) from pg_stat_replication where sync_state = 'sync'";
        eventually("it acknowledges", async || {
            let output = psql(&bed.url()).args(["-At", "-c", follows]).output().unwrap();
            output.stdout == b"1\n"
        })
        .await;
        standby
    }

    fn signal(&self, signal: Signal) {
        signal_family(self.child.id(), signal);
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        self.signal(Signal::SIGCONT);
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGQUIT).ok();
        drop(self.child.wait());
    }
}

fn ran(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_frozen_standby_is_said_and_left_behind() {
    let mut bed = Bed::start().await;
    let standby = Standby::of(&bed).await;
    assert_eq!(bed.publish("1").await, Stored);
    let item = bed.item("news", "1");
    let begun = Instant::now();
    standby.signal(Signal::SIGSTOP);
    let said = async {
        eventually("not ready", async || bed.readyz().await.0 == 503).await;
        eventually("logged", async || {
            bed.metric("sluice_logic_dependency_failures_total{dependency=\"postgres\"} 1").await
        })
        .await;
        assert!(begun.elapsed() < SAID_WITHIN, "{:?}", begun.elapsed());
        assert!(bed.metric("sluice_logic_store_up 0").await);
        let (_, why) = bed.readyz().await;
        assert!(why.contains("synchronous_standby_names"), "{why}");
    };
    let mut caller = bed.caller.clone();
    let asked = caller.publish(within(Duration::from_secs(2), call(vec![item.clone()])));
    // It waits in the server, and may yet be stored: nobody is told anything else.
    match tokio::join!(asked, said).0 {
        Ok(reply) => assert_eq!(outcomes(reply.get_ref()), [Unknown]),
        Err(status) => assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}"),
    }
    standby.signal(Signal::SIGCONT);
    eventually("it is ready again", async || bed.readyz().await.0 == 200).await;
    let again = bed.send(vec![item]).await;
    assert!([[Duplicate], [Stored]].iter().any(|right| again == right), "{again:?}");
    bed.recovers("synchronous_standby_names").await;
}

/// A session that keeps a room locked until it is dropped.
struct Holder(Child);

impl Holder {
    fn of(url: &str, room: &str) -> Self {
        let mut child = psql(url).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let text = format!("begin; select from rooms where room = '{room}' for update;\n");
        child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_room_delays_no_other_for_long() {
    let mut bed = Bed::start().await;
    let lane = |room: &str| sluice_proto::ids::RoomId::parse(room).unwrap().lane();
    let room = |wanted: u8| (0..).map(|n| format!("room-{n}")).find(|room| lane(room) == wanted).unwrap();
    // The lane itself, and the one that shares its connection.
    let (same, shared) = (room(lane("news")), room((lane("news") + 8) % 16));
    let first = ["news", same.as_str(), shared.as_str()].map(|room| bed.item(room, "1"));
    for item in first {
        assert_eq!(bed.send(vec![item]).await, [Stored]);
    }
    let holder = Holder::of(&bed.url(), "news");
    let busy = async || {
        let item = item("news", "eve", "probe", "1");
        bed.send(vec![item]).await == [NotStored]
    };
    eventually("it is locked", busy).await;
    for _ in 0..3 {
        let (a, b, c) = (bed.item("news", "1"), bed.item(&same, "1"), bed.item(&shared, "1"));
        let eve = PublishItem { sender: "eve".into(), ..b.clone() };
        let begun = Instant::now();
        let (one, two) = tokio::join!(bed.send(vec![a, b, eve]), bed.send(vec![c]));
        // What ann sent behind the locked room waits with it.
        assert_eq!((one, two), (vec![NotStored, NotStored, Stored], vec![Stored]));
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        assert_eq!(bed.readyz().await.0, 200, "the store takes what is not locked");
    }
    drop(holder);
    // A duplicate, if it was stored before the room was locked.
    eventually("it is free", async || bed.send(vec![item("news", "eve", "probe", "1")]).await != [NotStored])
        .await;
    let ended = bed.logic.signal(Signal::SIGTERM).await;
    assert_eq!(ended.said("A dependency is lost."), 0, "{}", ended.log);
    bed.cluster.stop().await;
}
