//! deploy/compose.secure.yaml: up from nothing with every link encrypted, a message, and strangers who are kept out.

use crate::engine::{Project, SERVICES, STORES, docker, output};
use crate::one::message;

/// Letters and digits, as its first lines make them.
const VARIABLES: [(&str, &str); 7] = [
    ("SLUICE_POSTGRES_PASSWORD", "5f1c0a9e77"),
    ("SLUICE_REDIS_PASSWORD", "8d02b6e1c4"),
    ("SLUICE_NATS_PASSWORD", "12e7a94b0f"),
    ("SLUICE_ETCD_PASSWORD", "c3b8d5f610"),
    ("SLUICE_ETCD_ROOT_PASSWORD", "a07e42d9b6"),
    ("SLUICE_TOKEN_SECRET", "0123456789abcdef0123456789abcdef"),
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
}
