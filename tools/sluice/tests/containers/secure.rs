//! deploy/compose.secure.yaml: up from nothing with every link encrypted, a message, strangers who are kept out, and the
//! drill, whose judge comes to PostgreSQL as a stranger with a certificate and the password.

use std::path::Path;

use futures::future::join_all;

use crate::engine::{Project, SERVICES, STORES, docker, output};
use crate::load::drill_quick;
use crate::one::message;

/// Of the variables below.
const POSTGRES_PASSWORD: &str = "5f1c0a9e77";
const TOKEN_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Letters and digits, as its first lines make them.
const VARIABLES: [(&str, &str); 7] = [
    ("SLUICE_POSTGRES_PASSWORD", POSTGRES_PASSWORD),
    ("SLUICE_REDIS_PASSWORD", "8d02b6e1c4"),
    ("SLUICE_NATS_PASSWORD", "12e7a94b0f"),
    ("SLUICE_ETCD_PASSWORD", "c3b8d5f610"),
    ("SLUICE_ETCD_ROOT_PASSWORD", "a07e42d9b6"),
    ("SLUICE_TOKEN_SECRET", TOKEN_SECRET),
    ("SLUICE_ANONYMOUS", "true"),
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker Engine: make test-containers"]
async fn everything_is_encrypted_and_asks_who_comes() {
    let project =
        Project::up_over("sluice-test-secure", "compose.yaml", &["compose.secure.yaml"], &VARIABLES).await;
    project.healthy(&SERVICES).await;
    project.healthy(&STORES).await;
    message("ws://127.0.0.1:8080/ws").await;
    for service in SERVICES {
        let id = project.id(service).await;
        let program = format!("sluice-{service}");
        docker(&["exec", &id, &program, "--check", "--connect"]).await;
    }
    // With the password but without a certificate, with a certificate but without the password, and in clear.
    let tls = "redis-cli --tls --cacert /tls/ca.pem";
    let shows = "--cert /tls/redis.pem --key /tls/redis.key";
    for (store, command) in [
        ("redis", format!("REDISCLI_AUTH=$PASSWORD {tls} ping | grep PONG")),
        ("redis", format!("{tls} {shows} ping | grep PONG")),
        ("redis", "redis-cli ping | grep PONG".to_owned()),
        ("etcd", "etcdctl get /sluice/".to_owned()),
        (
            "etcd",
            "env -u ETCDCTL_CERT -u ETCDCTL_KEY etcdctl --user sluice:$PASSWORD get /sluice/".to_owned(),
        ),
        (
            "postgres",
            "PGSSLMODE=require PGPASSWORD=$POSTGRES_PASSWORD psql -h postgres -U sluice -c ''".to_owned(),
        ),
        ("postgres", "PGPASSWORD=$POSTGRES_PASSWORD psql -h postgres -U sluice -c ''".to_owned()),
    ] {
        let id = project.id(store).await;
        let outcome = output("docker", &["exec", &id, "sh", "-c", &command]).await;
        assert!(!outcome.status.success(), "{store} lets in who comes by {command}: {outcome:?}");
    }

    let dir = tempfile::tempdir().unwrap();
    let store = store_url(&project, dir.path()).await;
    let ids = join_all(SERVICES.map(|service| project.id(service))).await;
    let containers: Vec<(&str, String)> = SERVICES.into_iter().zip(ids).collect();
    drill_quick(store, TOKEN_SECRET, &containers).await;
}

/// Of PostgreSQL where ports.yaml publishes it, with logic's certificate, copied into this folder. Published, it is at an
/// address that its own certificate does not name.
async fn store_url(project: &Project, dir: &Path) -> String {
    let logic = project.id("logic").await;
    let file = |name: &str| dir.join(name).display().to_string();
    for name in ["ca.pem", "logic.pem", "logic.key"] {
        docker(&["cp", "--follow-link", &format!("{logic}:/certs/{name}"), &file(name)]).await;
    }
    let [ca, cert, key] = ["ca.pem", "logic.pem", "logic.key"].map(file);
    format!(
        "postgres://sluice:{POSTGRES_PASSWORD}@127.0.0.1:15432/sluice\
         ?sslmode=verify-ca&sslrootcert={ca}&sslcert={cert}&sslkey={key}"
    )
}
