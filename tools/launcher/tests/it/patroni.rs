//! PostgreSQL under Patroni: it outlives its primary, gives the lead away when asked, and leaves nobody behind.

use std::time::Duration;

use sluice_launcher::{Cluster, Engines, Options, Service, Signal};
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use super::{exists, stores_only};

/// A silent primary is followed after 20 s; also on a busy machine.
const SOON: Duration = Duration::from_secs(120);

fn options() -> Options {
    Options { engines: Engines { patroni: true, ..Engines::default() }, ..stores_only() }
}

async fn until(what: &str, is: impl AsyncFn() -> bool) {
    let end = Instant::now() + SOON;
    while !is().await {
        assert!(Instant::now() < end, "{what}: not after {SOON:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn primary_but(cluster: &Cluster, not: Option<usize>) -> usize {
    let leads = async || cluster.leader(Service::Postgres).await.filter(|leader| Some(*leader) != not);
    until("a primary", async || leads().await.is_some()).await;
    leads().await.unwrap_or_default()
}

/// Runs a statement at whoever HAProxy leads to, again until it is done.
async fn done(cluster: &Cluster, sql: &'static str) {
    until(sql, async || {
        let done = async {
            let mut connection = PgConnection::connect(&cluster.url_with_password(Service::Postgres)).await?;
            sqlx::query(sql).execute(&mut connection).await
        };
        timeout(Duration::from_secs(3), done).await.is_ok_and(|done| done.is_ok())
    })
    .await;
}

/// The PostgreSQL of each member, by its own file.
fn postmasters(cluster: &Cluster) -> Vec<u32> {
    let pid = |index| {
        let file = cluster.dir().join(Service::Postgres.name(index)).join("data/postmaster.pid");
        std::fs::read_to_string(file).ok()?.lines().next()?.parse().ok()
    };
    (0..3).filter_map(pid).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_under_patroni_outlives_its_primary() {
    outlives_its_primary(options()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_under_patroni_of_a_secure_cluster_does_so_too() {
    outlives_its_primary(Options { secure: true, ..options() }).await;
}

async fn outlives_its_primary(options: Options) {
    let cluster = Cluster::start(options).await.unwrap();
    assert_eq!(cluster.nodes(Service::Postgres).len(), 3);
    done(&cluster, "create table if not exists kept (n int primary key)").await;
    done(&cluster, "insert into kept values (1) on conflict do nothing").await;
    let (old, before) = (primary_but(&cluster, None).await, cluster.timeline().await.unwrap());

    let node = cluster.node(Service::Postgres, old).unwrap();
    assert!(node.kill() && cluster.signal_postmaster(old, Signal::SIGKILL));
    node.exit().await;
    let new = primary_but(&cluster, Some(old)).await;
    done(&cluster, "insert into kept select n + 1 from kept where n = 1 on conflict do nothing").await;
    cluster.start_at(Service::Postgres, old).await.unwrap();
    until("whole", async || cluster.is_whole().await).await;
    let killed = cluster.timeline().await.unwrap();
    assert!(killed > before, "{killed} after {before}");

    cluster.switch_over().await.unwrap();
    primary_but(&cluster, Some(new)).await;
    until("whole", async || cluster.is_whole().await).await;
    done(&cluster, "insert into kept select 3 from kept having count(*) = 2 on conflict do nothing").await;
    done(&cluster, "select 1 / (count(*) = 3)::int from kept").await;

    let pids = postmasters(&cluster);
    assert!(pids.len() == 3 && pids.iter().all(|pid| exists(*pid)), "{pids:?}");
    let stopped = cluster.stop().await;
    assert_eq!(stopped.killed, Vec::<String>::new());
    assert!(!pids.iter().any(|pid| exists(*pid)), "{pids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_cluster_leaves_no_postgres_of_a_patroni() {
    let cluster = Cluster::start(options()).await.unwrap();
    let pids = postmasters(&cluster);
    assert!(pids.len() == 3 && pids.iter().all(|pid| exists(*pid)), "{pids:?}");
    drop(cluster);
    let gone = async || !pids.iter().any(|pid| exists(*pid));
    until("gone", gone).await;
}
