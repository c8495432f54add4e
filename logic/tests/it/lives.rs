//! Logics that begin, commit and stop, one after the other in this process, on real servers.

use sluice_launcher::{Cluster, Service};
use sluice_proto::grpc::Outcome::Stored;
use sluice_testing::lives_leave_nothing;
use sqlx::Connection as _;

use super::rig::{get, item, outcomes, publish};
use super::stores::{call, config, eventually, real, stores};

/// Sessions of logics in the store.
async fn sessions(cluster: &Cluster) -> usize {
    let url = cluster.store(Service::Postgres).url().to_owned();
    let mut look = sqlx::PgConnection::connect(&url).await.unwrap();
    let all = "select from pg_stat_activity where application_name = 'sluice'";
    sqlx::query(all).fetch_all(&mut look).await.unwrap().len()
}

#[tokio::test]
async fn a_logic_leaves_nothing_behind() {
    let cluster = stores().await;
    let (config, mut n) = (config(&cluster), 0);
    lives_leave_nothing(20, async || {
        let logic = real(config.clone()).await;
        eventually("it is ready", async || get(logic.admin, "/readyz").await.0 == 200).await;
        eventually("NATS is connected", async || {
            get(logic.admin, "/status").await.1.contains("\"connected\"")
        })
        .await;
        n += 1;
        let reply =
            publish(&logic.caller().await, call(vec![item("news", "ann", &n.to_string(), "1")])).await;
        assert_eq!(outcomes(&reply), [Stored]);
        let report = logic.stop().await;
        assert!(report.is_clean() && report.exit_code() == 0, "{report:?}");
    })
    .await;
    eventually("the server has no session of theirs", async || sessions(&cluster).await == 0).await;
    cluster.stop().await;
}
