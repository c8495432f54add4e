//! Each server works, is its own process, keeps or loses its data as asked, and leaves nothing behind.

use std::time::Duration;

use redis::AsyncTypedCommands as _;
use sluice_launcher::{Cluster, Event, Options, Service, Signal};
use sqlx::{Connection, PgConnection};

use super::clients::{etcd, nats, postgres, redis};
use super::{exists, start, stores_only};

async fn put_everywhere(cluster: &Cluster) {
    let mut sql = postgres(cluster).await;
    sqlx::query("create table if not exists t (n int)").execute(&mut sql).await.unwrap();
    sqlx::query("insert into t values (1)").execute(&mut sql).await.unwrap();
    redis(cluster).await.set("k", 1).await.unwrap();
    etcd(cluster).await.put("k", "1", None).await.unwrap();
    let nats = nats(cluster).await;
    let config = async_nats::jetstream::stream::Config {
        name: "S".into(),
        storage: async_nats::jetstream::stream::StorageType::File,
        ..Default::default()
    };
    async_nats::jetstream::new(nats).create_stream(config).await.unwrap();
}

async fn rows(cluster: &Cluster) -> i64 {
    sqlx::query_scalar("select count(*) from t").fetch_one(&mut postgres(cluster).await).await.unwrap()
}

async fn etcd_keys(cluster: &Cluster) -> i64 {
    etcd(cluster).await.get("k", None).await.unwrap().count()
}

async fn has_stream(cluster: &Cluster) -> bool {
    async_nats::jetstream::new(nats(cluster).await).get_stream("S").await.is_ok()
}

#[tokio::test]
async fn every_pid_is_the_servers_own_and_all_stop() {
    let cluster = start().await;
    let dir = cluster.dir().to_owned();
    let mut pids = Vec::new();
    for (service, program) in [
        (Service::Nats, "nats-server"),
        (Service::Etcd, "etcd"),
        (Service::Redis, "redis-"),
        (Service::Postgres, "postgres"),
    ] {
        let pid = cluster.store(service).pid();
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert!(exe.file_name().unwrap().to_str().unwrap().starts_with(program), "{exe:?}");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let group = stat.rsplit(')').next().unwrap().split_whitespace().nth(2).unwrap().to_owned();
        assert_eq!(group, pid.to_string(), "{service} leads its own process group");
        assert!(dir.join(format!("{service}.log")).exists());
        pids.push(pid);
    }
    let mut events = cluster.events();
    let stopped = cluster.stop().await;
    assert_eq!(stopped.killed, Vec::<String>::new());
    assert_eq!(stopped.exits.len(), 4);
    for pid in &pids {
        assert!(!exists(*pid), "{pid}");
    }
    let mut exits = Vec::new();
    while let Ok(event) = events.try_recv() {
        let Event::Exit { pid, .. } = event else { panic!("{event:?}") };
        exits.push(pid);
    }
    exits.sort_unstable();
    pids.sort_unstable();
    assert_eq!(exits, pids);
    drop(cluster);
    assert!(!dir.exists(), "a temporary folder is removed");
}

#[tokio::test]
async fn stores_keep_or_lose_their_data_as_asked() {
    let cluster = start().await;
    put_everywhere(&cluster).await;
    let before: Vec<String> = Service::STORES.map(|store| cluster.store(store).url().to_owned()).into();

    for store in [Service::Postgres, Service::Etcd, Service::Nats] {
        let old = cluster.store(store).pid();
        let new = cluster.restart_store(store).await.unwrap();
        assert_ne!(old, new.pid());
    }
    assert_eq!((rows(&cluster).await, etcd_keys(&cluster).await, has_stream(&cluster).await), (1, 1, true));

    cluster.wipe_store(Service::Etcd).await.unwrap();
    cluster.wipe_store(Service::Nats).await.unwrap();
    cluster.flush_redis().await.unwrap();
    assert_eq!((etcd_keys(&cluster).await, has_stream(&cluster).await), (0, false));
    assert_eq!(redis(&cluster).await.get("k").await.unwrap(), None);

    cluster.stop_store(Service::Redis).await.unwrap();
    assert!(std::net::TcpStream::connect(before[2].trim_start_matches("redis://")).is_err());
    cluster.start_store(Service::Redis).await.unwrap();
    redis(&cluster).await.set("k", 1).await.unwrap();

    let after: Vec<String> = Service::STORES.map(|store| cluster.store(store).url().to_owned()).into();
    assert_eq!(before, after, "addresses never change");
    cluster.stop().await;
}

#[tokio::test]
async fn an_older_copy_of_the_store_can_be_put_back() {
    let cluster = start().await;
    put_everywhere(&cluster).await;
    let data = cluster.store_data(Service::Postgres).unwrap();
    let copy = tempfile::tempdir().unwrap();
    let copied = |from: &std::path::Path, to: &std::path::Path| {
        let status =
            std::process::Command::new("cp").arg("-a").arg(from.join("data")).arg(to).status().unwrap();
        assert!(status.success());
    };
    cluster.stop_store(Service::Postgres).await.unwrap();
    copied(&data, copy.path());
    cluster.start_store(Service::Postgres).await.unwrap();
    put_everywhere(&cluster).await;
    assert_eq!(rows(&cluster).await, 2);
    cluster.stop_store(Service::Postgres).await.unwrap();
    std::fs::remove_dir_all(data.join("data")).unwrap();
    copied(copy.path(), &data);
    // nobody sees it before it has been worked on
    let usual = cluster.store(Service::Postgres).url().to_owned();
    let worked = cluster.aside(Service::Postgres, async |url| {
        assert!(url != usual && PgConnection::connect(&usual).await.is_err());
        let mut sql = PgConnection::connect(url).await.unwrap();
        sqlx::query("update t set n = 2").execute(&mut sql).await.unwrap().rows_affected()
    });
    assert_eq!(worked.await.unwrap(), 1);
    cluster.start_store(Service::Postgres).await.unwrap();
    assert_eq!(rows(&cluster).await, 1);
    cluster.stop().await;
}

#[tokio::test]
async fn a_given_folder_is_used_again() {
    let parent = tempfile::tempdir().unwrap(); // mode 0700: PostgreSQL's user may not pass unless it is let in
    let options = Options { dir: Some(parent.path().join("sluice")), ..stores_only() };
    let first = Cluster::start(options.clone()).await.unwrap();
    put_everywhere(&first).await;
    first.stop().await;
    drop(first);
    let second = Cluster::start(options).await.unwrap();
    assert_eq!((rows(&second).await, etcd_keys(&second).await, has_stream(&second).await), (1, 1, true));
    second.stop().await;
    let postgres = second.store_data(Service::Postgres).unwrap();
    if !postgres.starts_with(parent.path()) {
        std::fs::remove_dir_all(postgres).unwrap();
    }
}

#[tokio::test]
async fn killed_and_frozen_stores_do_not_hold_up_the_stop() {
    let cluster = start().await;
    let redis = cluster.store(Service::Redis);
    redis.kill();
    let exit = redis.wait_exit(Duration::from_secs(5)).await.unwrap();
    assert_eq!((exit.code(), exit.signal()), (None, Some(9)));
    assert!(exit.elapsed.unwrap() < Duration::from_secs(1));
    assert!(!redis.signal(Signal::SIGTERM), "an ended process is never signalled");
    cluster.store(Service::Nats).freeze();
    let stopped = cluster.stop().await;
    assert_eq!((stopped.exits.len(), stopped.killed.len()), (3, 0));
}

#[tokio::test]
async fn a_frozen_postgresql_is_woken_to_stop_in_order() {
    let cluster = start().await;
    let connection = postgres(&cluster).await;
    assert!(cluster.store(Service::Postgres).signal_family(Signal::SIGSTOP));
    let stopped = cluster.stop().await;
    assert_eq!((stopped.exits.len(), stopped.killed), (4, Vec::new()));
    drop(connection);
}

#[tokio::test]
async fn dropping_leaves_nothing_running() {
    let cluster = start().await;
    let connection = postgres(&cluster).await;
    let pids = Service::STORES.map(|store| cluster.store(store).pid());
    let dir = cluster.dir().to_owned();
    drop(cluster);
    for pid in pids {
        assert!(!exists(pid), "{pid}");
    }
    assert!(!dir.exists());
    drop(connection);
}

#[tokio::test]
async fn a_store_that_ends_by_itself_is_started_again_only_when_asked() {
    let cluster = Cluster::start(Options { restart: true, ..stores_only() }).await.unwrap();
    let mut events = cluster.events();
    let redis = cluster.store(Service::Redis);
    // not through the launcher: as if somebody else had done it
    let killed = std::process::Command::new("kill").args(["-9", &redis.pid().to_string()]).status().unwrap();
    assert!(killed.success());
    assert!(matches!(events.recv().await, Ok(Event::Exit { service: Service::Redis, signal: Some(9), .. })));
    let Ok(Event::Start { service: Service::Redis, index: 0, pid, addresses, .. }) = events.recv().await
    else {
        panic!("not started again");
    };
    assert_eq!(addresses.url.as_deref(), Some(redis.url()));
    assert_eq!(cluster.store(Service::Redis).pid(), pid);
    cluster.stop().await;
    assert!(!exists(pid));
}
