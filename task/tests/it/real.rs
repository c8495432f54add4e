//! NATS, Redis and etcd, and what only they show: a task that is killed, and servers that are not there.

mod levels;
mod process;

use std::sync::Arc;

use nix::sys::signal::Signal;
use sluice_cluster::etcd::{EtcdCluster, EtcdConfig};
use sluice_cluster::{Cluster, Etcd, Registration};
use sluice_lifecycle::{Lifecycle, Scope};
use sluice_presence::redis::{RedisConfig, RedisPresence};
use sluice_presence::{Presence, Redis};
use sluice_queue::jetstream::{JetStream, NatsConfig};
use sluice_queue::{Nats, Queue};
use sluice_task::app::Deps;
use sluice_task::config::Config;
use sluice_task::deps;
use sluice_testing::{ServerKind, TestServer, eventually, free_port};

use crate::rig::{self, Ground, SOON};

/// The servers, and their other users.
pub struct Real {
    nats: TestServer,
    redis: TestServer,
    etcd: Option<TestServer>,
    queue: JetStream,
    presence: RedisPresence,
}

all_cases!(crate::real::Real);

/// A configuration for servers at these ports.
fn config(nats: u16, redis: u16, etcd: u16) -> Config {
    let usual = rig::config(&[]);
    Config {
        nats: Nats::at(&format!("nats://127.0.0.1:{nats}")),
        redis: Redis::at(&format!("redis://127.0.0.1:{redis}")),
        etcd: Etcd { endpoints: vec![format!("http://127.0.0.1:{etcd}").into()], ..usual.etcd },
        ..usual
    }
}

impl Ground for Real {
    async fn start(listed: bool) -> Self {
        let etcd = async { if listed { Some(TestServer::start(ServerKind::Etcd).await) } else { None } };
        let (nats, redis, etcd) =
            tokio::join!(TestServer::start(ServerKind::Nats), TestServer::start(ServerKind::Redis), etcd);
        let config = config(nats.port(), redis.port(), 1);
        let queue = NatsConfig { nats: config.nats, ..NatsConfig::default() };
        let queue = JetStream::connect(queue).await.unwrap();
        let presence = RedisConfig { redis: config.redis, ..RedisConfig::default() };
        let presence = RedisPresence::connect(presence).unwrap();
        eventually("NATS is connected", SOON, async || queue.connected()).await;
        Self { nats, redis, etcd, queue, presence }
    }

    fn config(&self) -> Config {
        let etcd = self.etcd.as_ref().map_or_else(free_port, TestServer::port);
        config(self.nats.port(), self.redis.port(), etcd)
    }

    async fn deps(&self, config: &Config, lifecycle: &Lifecycle, registration: Registration) -> Deps {
        deps::connect(config, lifecycle, registration).await.unwrap()
    }

    async fn list(&self, scope: &Scope, registration: Registration) -> Arc<dyn Cluster> {
        let endpoints = self.config().etcd.endpoints;
        let registry = EtcdConfig { etcd: Etcd::at(endpoints), ..EtcdConfig::default() };
        Arc::new(EtcdCluster::start(scope, registry, registration, &[], [].into()).await.unwrap())
    }

    fn queue(&self) -> &dyn Queue {
        &self.queue
    }

    fn presence(&self) -> &dyn Presence {
        &self.presence
    }

    fn presence_is_away(&self, away: bool) {
        self.redis.signal(if away { Signal::SIGSTOP } else { Signal::SIGCONT });
    }

    /// Delivered and not acknowledged, and not delivered.
    async fn unsettled(&self) -> u64 {
        let client = async_nats::connect(self.nats.url()).await.unwrap();
        let stream = async_nats::jetstream::new(client).get_stream("sluice_FANOUT").await.unwrap();
        let info = stream.consumer_info("task").await.unwrap();
        info.num_ack_pending as u64 + info.num_pending
    }
}
