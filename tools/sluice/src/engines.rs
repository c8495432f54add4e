//! How many servers of each kind a private Sluice stands on, as options of `cluster` and `drill`. It starts nothing.

use sluice_launcher::{Engines, RedisKind};

#[derive(clap::Args)]
pub(crate) struct EngineArguments {
    /// Members of etcd: 1, 3 or 5
    #[arg(long, default_value_t = 1, value_name = "N")]
    etcds: usize,
    /// NATS servers: 1, 3 or 5; the stream has three copies where there are as many
    #[arg(long, default_value_t = 1, value_name = "N")]
    natses: usize,
    /// What Redis is
    #[arg(long, value_enum, default_value_t = RedisArgument::Single)]
    redis: RedisArgument,
    /// PostgreSQL has two standbys, of which Patroni promotes the synchronous one, behind HAProxy; needs `patroni` installed
    #[arg(long)]
    patroni: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum RedisArgument {
    /// One server
    Single,
    /// A primary, two replicas, three sentinels
    Sentinel,
    /// A Redis Cluster: three primaries with a replica each
    Cluster,
}

impl EngineArguments {
    pub(crate) fn engines(&self) -> Engines {
        let redis = match self.redis {
            RedisArgument::Single => RedisKind::Single,
            RedisArgument::Sentinel => RedisKind::Sentinel,
            RedisArgument::Cluster => RedisKind::Cluster,
        };
        Engines { etcds: self.etcds, natses: self.natses, redis, patroni: self.patroni }
    }
}
