//! The real ground: processes of every service on servers of their own, and what only that has.

mod command;
mod leaders;
mod machines;
#[cfg(feature = "dev")]
mod moved;
mod operators;
mod outages;
#[cfg(feature = "dev")]
mod outgrown;
mod pods;
mod presence;
mod revoke;
mod scraped;
mod secure;
mod settings;
mod standby;
mod stops;
mod tokens;
mod verbs;
mod versions;

use std::ops::Deref;
use std::process::Command;
use std::time::Duration;

use sluice_launcher::{Cluster, Exit, Node, Options, Service};
use sqlx::{Connection, PgConnection};

use crate::kit::Ground;
use crate::record::{ROWS, Stored};

/// A page of this origin may connect.
const ORIGIN: &str = "https://app.example";
const SERVICES: [Service; 3] = [Service::Gateway, Service::Task, Service::Logic];
const STORES: [Service; 4] = [Service::Postgres, Service::Nats, Service::Etcd, Service::Redis];

/// A cluster with short leases, so that tests of crashes end soon.
pub struct On<const SECURE: bool>(Cluster);

/// Everybody is let in, and nothing is encrypted.
pub type Real = On<false>;
/// Every link is encrypted, and both its ends know each other.
pub type Secure = On<true>;

impl<const SECURE: bool> Deref for On<SECURE> {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.0
    }
}

all_promises!(crate::real::Real);

/// What concerns every link: each service and each server comes and goes, and the store is replaced.
mod encrypted {
    promises!(crate::real::Secure,
        deploys: sigterm_to_each_service_one_after_the_other, everything_is_signalled_at_once_and_starts_again;
        resume: a_restored_store_is_told_to_everybody;
    );
}

impl<const SECURE: bool> On<SECURE> {
    /// With more settings, which win.
    async fn with(options: Options) -> Self {
        let usual = Options::default().set("all.etcd.lease_ttl_s=3").unwrap();
        let usual = usual.set("logic.anonymous=true").unwrap();
        let usual = usual.set(&format!("gateway.origins=[\"{ORIGIN}\"]")).unwrap();
        let settings = [usual.settings, options.settings].concat();
        Self(Cluster::start(Options { settings, secure: SECURE, ..options }).await.unwrap())
    }

    fn postgres(&self) -> String {
        self.0.url_with_password(Service::Postgres)
    }

    async fn look(&self) -> PgConnection {
        PgConnection::connect(&self.postgres()).await.unwrap()
    }
}

impl<const SECURE: bool> Ground for On<SECURE> {
    async fn start(gateways: usize, logics: usize, tasks: usize) -> Self {
        Self::with(Options { gateways, logics, tasks, ..Options::default() }).await
    }

    async fn stop(self) {
        self.0.stop().await;
    }

    fn entrances(&self) -> Vec<String> {
        self.0.nodes(Service::Gateway).iter().map(|gateway| gateway.ws().to_owned()).collect()
    }

    fn secret(&self) -> String {
        self.0.token_secret().to_owned()
    }

    fn origin(&self) -> String {
        ORIGIN.to_owned()
    }

    fn memory_bytes(&self) -> u64 {
        self.0.gateway(0).memory_bytes().unwrap()
    }

    async fn table(&self, room: &str) -> Vec<Stored> {
        let rows = sqlx::query_as(ROWS).bind(room).fetch_all(&mut self.look().await).await.unwrap();
        rows.into_iter().map(Stored::from_row).collect()
    }

    async fn sql(&self, text: &'static str) -> u64 {
        sqlx::query(text).execute(&mut self.look().await).await.unwrap().rows_affected()
    }

    async fn roll(&self, service: Service, index: usize) -> Duration {
        let exit = term(&self.0.node(service, index).unwrap()).await;
        self.0.start_at(service, index).await.unwrap();
        exit.elapsed.unwrap()
    }

    async fn lose_a_logic(&self) {
        let logic = self.0.logic(0);
        assert!(logic.kill());
        logic.exit().await;
    }

    async fn kill_each(&self) {
        for service in [Service::Task, Service::Logic, Service::Gateway] {
            let node = self.0.node(service, 0).unwrap();
            assert!(node.kill());
            node.exit().await;
            self.0.start_at(service, 0).await.unwrap();
        }
    }

    async fn stop_and_start_all(&self) {
        let nodes: Vec<Node> = SERVICES.iter().flat_map(|service| self.0.nodes(*service)).collect();
        let mut all: Vec<Node> = nodes.clone();
        all.extend(STORES.iter().map(|store| self.0.store(*store)));
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.sort_by_key(|_| rand::random::<u32>());
        for n in order {
            all[n].term();
        }
        for node in &nodes {
            exits_well(node).await;
        }
        for store in STORES {
            self.0.stop_store(store).await.unwrap();
        }
        for store in STORES {
            self.0.start_store(store).await.unwrap();
        }
        // A gateway is ready when a logic answers, so logics come first.
        for node in nodes.iter().rev() {
            self.0.start_at(node.service, node.index).await.unwrap();
        }
    }

    /// While all serve.
    async fn put_back(&self, changes: &[&'static str]) {
        for change in changes {
            self.sql(change).await;
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.args(["store", "new-epoch", "--postgres", self.0.store(Service::Postgres).url()]);
        if let Some(credentials) = self.0.credentials(Service::Postgres) {
            command.arg("--password-file").arg(credentials.password_file);
        }
        run(&mut command);
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Sends SIGTERM and expects exit code 0 within 8 s.
async fn term(node: &Node) -> Exit {
    assert!(node.term(), "{} runs", node.name());
    exits_well(node).await
}

async fn exits_well(node: &Node) -> Exit {
    let exit = node.wait_exit(Duration::from_secs(9)).await.unwrap_or_else(|error| {
        panic!("{} did not exit: {error}\n{}", node.name(), node.log_tail());
    });
    assert_eq!(exit.code(), Some(0), "{}:\n{}", node.name(), node.log_tail());
    let elapsed = exit.elapsed.expect("it was signalled");
    assert!(elapsed < Duration::from_secs(8), "{} took {elapsed:?}:\n{}", node.name(), node.log_tail());
    exit
}
