//! Servers of a secure cluster: they work as any others for who has a certificate and the password, and let in nobody else.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use redis::AsyncTypedCommands as _;
use serde_json::json;
use sluice_launcher::{Cluster, Credentials, Engines, Options, Service};
use sqlx::{Connection, PgConnection};

use super::clients::{etcd, etcd_options, nats, nats_options, postgres, redis, redis_with};
use super::stores_only;

fn secure(dir: Option<&Path>, engines: Engines) -> Options {
    Options { secure: true, dir: dir.map(Path::to_owned), engines, ..stores_only() }
}

async fn let_in(cluster: &Cluster) {
    nats(cluster).await.flush().await.unwrap();
    etcd(cluster).await.put("k", "1", None).await.unwrap();
    redis(cluster).await.set("k", 1).await.unwrap();
    let encrypted: bool = sqlx::query_scalar("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        .fetch_one(&mut postgres(cluster).await)
        .await
        .unwrap();
    assert!(encrypted);
}

/// Which of the servers this one is let in by.
async fn opened(cluster: &Cluster, change: impl Fn(&mut Credentials)) -> Vec<Service> {
    let with = |service| {
        let mut credentials = cluster.credentials(service).unwrap();
        change(&mut credentials);
        (cluster.store(service).url().to_owned(), credentials)
    };
    let mut opened = Vec::new();
    let (url, credentials) = with(Service::Nats);
    if async_nats::connect_with_options(url, nats_options(&credentials)).await.is_ok() {
        opened.push(Service::Nats);
    }
    let (url, credentials) = with(Service::Etcd);
    if etcd_client::Client::connect([url], Some(etcd_options(&credentials))).await.is_ok() {
        opened.push(Service::Etcd);
    }
    let (url, credentials) = with(Service::Redis);
    if redis_with(&url, &credentials).get_multiplexed_async_connection().await.is_ok() {
        opened.push(Service::Redis);
    }
    let (url, credentials) = with(Service::Postgres);
    let (own, password) = (cluster.credentials(Service::Postgres).unwrap(), &credentials.password);
    let text = |path: &Path| path.display().to_string();
    let url = url.replace("postgres@", &format!("postgres:{password}@"));
    let url = url.replace(&text(&own.tls.cert), &text(&credentials.tls.cert));
    let url = url.replace(&text(&own.tls.key), &text(&credentials.tls.key));
    if PgConnection::connect(&url).await.is_ok() {
        opened.push(Service::Postgres);
    }
    opened
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_a_secure_cluster_let_in_who_has_certificate_and_password() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("sluice");
    let cluster = Cluster::start(secure(Some(&dir), Engines::default())).await.unwrap();
    let_in(&cluster).await;
    assert_eq!(
        opened(&cluster, |_| {}).await,
        [Service::Nats, Service::Etcd, Service::Redis, Service::Postgres]
    );
    assert_eq!(opened(&cluster, |credentials| credentials.password = "wrong".into()).await, []);
    // Of an authority of its own, with the same names.
    let other = Cluster::new(secure(None, Engines::default())).unwrap();
    let stranger = other.credentials(Service::Nats).unwrap().tls;
    let as_stranger = |credentials: &mut Credentials| {
        (credentials.tls.cert, credentials.tls.key) = (stranger.cert.clone(), stranger.key.clone());
    };
    assert_eq!(opened(&cluster, as_stranger).await, []);
    let plain = cluster.store(Service::Redis).url().replace("rediss:", "redis:");
    assert!(redis::Client::open(plain).unwrap().get_multiplexed_async_connection().await.is_err());
    let plain = cluster.url_with_password(Service::Postgres);
    let plain = format!("{}?sslmode=disable", plain.split('?').next().unwrap());
    assert!(PgConnection::connect(&plain).await.is_err());
    for service in Service::STORES {
        let password = cluster.credentials(service).unwrap().password_file;
        assert_eq!(password.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    // What is emptied lets in the same again; a restart too, and the next cluster in the folder.
    for service in [Service::Etcd, Service::Nats, Service::Postgres] {
        cluster.wipe_store(service).await.unwrap();
    }
    cluster.flush_redis().await.unwrap();
    let_in(&cluster).await;
    for service in Service::STORES {
        cluster.restart_store(service).await.unwrap();
    }
    let_in(&cluster).await;
    cluster.stop().await;
    drop(cluster);
    let open = Cluster::start(Options { dir: Some(dir.clone()), ..stores_only() }).await.unwrap_err();
    assert!(open.to_string().contains("add --secure"), "{open}");
    let again = Cluster::start(secure(Some(&dir), Engines::default())).await.unwrap();
    let_in(&again).await;
    let read = again.ask_etcd("/v3/kv/range", &json!({ "key": "aw==" })).await.unwrap();
    assert_eq!(read["kvs"][0]["value"], "MQ==", "{read}");
    again.stop().await;
    let postgres = again.store_data(Service::Postgres).unwrap();
    if !postgres.starts_with(parent.path()) {
        std::fs::remove_dir_all(postgres).unwrap();
    }
}
