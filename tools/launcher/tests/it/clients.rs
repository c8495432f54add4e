//! Clients of the servers, of a secure cluster with its certificates and passwords.

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use redis::{ClientTlsConfig, IntoConnectionInfo as _, TlsCertificates};
use sluice_launcher::{Cluster, Credentials, Service};
use sqlx::{Connection, PgConnection};

pub async fn postgres(cluster: &Cluster) -> PgConnection {
    PgConnection::connect(&cluster.url_with_password(Service::Postgres)).await.unwrap()
}

pub async fn redis(cluster: &Cluster) -> redis::aio::MultiplexedConnection {
    let url = cluster.store(Service::Redis).url().to_owned();
    let client = match cluster.credentials(Service::Redis) {
        Some(credentials) => redis_with(&url, &credentials),
        None => redis::Client::open(url).unwrap(),
    };
    client.get_multiplexed_async_connection().await.unwrap()
}

pub fn redis_with(url: &str, Credentials { password, tls, .. }: &Credentials) -> redis::Client {
    let read = |file| std::fs::read(file).unwrap();
    let info = url.into_connection_info().unwrap();
    let settings = info.redis_settings().clone().set_password(password);
    let client_tls = ClientTlsConfig { client_cert: read(&tls.cert), client_key: read(&tls.key) };
    let certificates = TlsCertificates { client_tls: Some(client_tls), root_cert: Some(read(&tls.ca)) };
    redis::Client::build_with_tls(info.set_redis_settings(settings), certificates).unwrap()
}

pub async fn etcd(cluster: &Cluster) -> etcd_client::Client {
    let options = cluster.credentials(Service::Etcd).map(|credentials| etcd_options(&credentials));
    etcd_client::Client::connect([cluster.store(Service::Etcd).url()], options).await.unwrap()
}

pub fn etcd_options(Credentials { user, password, tls, .. }: &Credentials) -> ConnectOptions {
    let read = |file| std::fs::read(file).unwrap();
    let identity = Identity::from_pem(read(&tls.cert), read(&tls.key));
    let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read(&tls.ca))).identity(identity);
    ConnectOptions::new().with_tls(tls).with_user(user.unwrap(), password)
}

pub async fn nats(cluster: &Cluster) -> async_nats::Client {
    let options = cluster.credentials(Service::Nats).map(|credentials| nats_options(&credentials));
    let url = cluster.store(Service::Nats).url().to_owned();
    async_nats::connect_with_options(url, options.unwrap_or_default()).await.unwrap()
}

pub fn nats_options(Credentials { user, password, tls, .. }: &Credentials) -> async_nats::ConnectOptions {
    async_nats::ConnectOptions::with_user_and_password(user.unwrap().to_owned(), password.clone())
        .add_root_certificates(tls.ca.clone())
        .add_client_certificate(tls.cert.clone(), tls.key.clone())
        .require_tls(true)
}
