//! PgBouncer between the store and PostgreSQL (`deploy/deps.sh` installs it).

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use sluice_store::postgres::{PgAccess, PgConfig, PgStore, probe};
use sluice_store::{Store as _, StoreError};
use sluice_testing::free_port;
use tokio::net::TcpStream;

use super::server::{PgServer, own, program};
use crate::cases::contract::{Is, LATER, message, messages, publish};

/// Longest start.
const START: Duration = Duration::from_secs(10);

struct Pooler {
    child: Child,
    port: u16,
}

impl Pooler {
    /// In front of this server.
    async fn start(server: &PgServer, mode: &str, passes_over: &str) -> Self {
        let port = free_port();
        let file = server.dir().join(format!("pgbouncer-{port}.ini"));
        let config = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = 4\n\
             ignore_startup_parameters = {passes_over}\n",
            server.port
        );
        std::fs::write(&file, config).unwrap();
        own(&file);
        // Where Debian has it, which is in no user's PATH.
        let debian = Path::new("/usr/sbin/pgbouncer");
        let named = if debian.exists() { debian } else { Path::new("pgbouncer") };
        let child = program(named).arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut pooler = Self { child: child.expect("pgbouncer is installed: make deps"), port };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            let ended = pooler.child.try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < START, "{ended:?}");
            tokio::task::yield_now().await;
        }
        pooler
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test]
async fn a_pooler_that_keeps_sessions_loses_nothing() {
    let server = PgServer::start().await;
    let pooler = Pooler::start(&server, "session", "extra_float_digits").await;
    // As many sessions as the pooler has: a fifth would wait for one of them to end.
    let config = PgConfig { lane_connections: 2, read_connections: 1, ..PgConfig::new(pooler.url()) };
    let store = PgStore::connect(config).await.unwrap();
    assert_eq!(publish(&store, messages("a", 2)).await, [Is::New(1), Is::New(2)]);
    server
        .run(
            "select pg_terminate_backend(pid) from pg_stat_activity \
             where backend_type = 'client backend' and pid <> pg_backend_pid()",
        )
        .await;
    // Its connection to the pooler is dead, which it finds when it is asked.
    while store.publish(0, LATER, Vec::new()).await.is_err() {}
    let mut again = messages("a", 2);
    again.push(message("a", "alice", "k3", "3"));
    let again = loop {
        match store.publish(again[0].room.lane(), LATER, again.clone()).await {
            Ok(committed) => break committed,
            Err(error) => println!("{error}"),
        }
    };
    let seqs: Vec<Is> = again.rows.iter().map(|row| crate::cases::contract::is(row.outcome)).collect();
    assert_eq!(seqs, [Is::Old(1), Is::Old(2), Is::New(3)]);
}

#[tokio::test]
async fn a_pooler_that_breaks_sessions_is_named_with_its_setting() {
    let server = PgServer::start().await;
    let strict = Pooler::start(&server, "session", "").await;
    let Err(StoreError::Misconfigured(why)) = PgStore::connect(PgConfig::new(strict.url())).await else {
        panic!("it takes a parameter that it was not told of");
    };
    assert!(why.contains("ignore_startup_parameters = extra_float_digits"), "{why}");

    let sharing = Pooler::start(&server, "transaction", "extra_float_digits").await;
    // Without prepared statements hardly anything fails of itself, as with a pooler that keeps them apart.
    for url in [sharing.url(), format!("{}&statement-cache-capacity=0", sharing.url())] {
        assert!(refused(&url).await.contains("pool_mode = session"), "{url}");
        let said = probe(PgAccess::at(url)).await.expect_err("two connections").to_string();
        assert!(said.contains("pool_mode = session"), "{said}");
    }
}

/// Why a logic would end. Before that it may meet what others asked and take it for another failure, which it tries again.
async fn refused(url: &str) -> String {
    for _ in 0..20 {
        match PgStore::connect(PgConfig::new(url)).await {
            Err(StoreError::Misconfigured(why)) => return why,
            Err(error) => println!("{error}"),
            Ok(_) => panic!("{url} hands sessions around"),
        }
    }
    panic!("{url} is not refused");
}
