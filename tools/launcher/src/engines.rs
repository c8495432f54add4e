//! How the servers themselves are made up: one of each, or groups that outlive one of their members. It starts nothing.

use crate::error::Error;
use crate::service::Service;

/// Copies of the fan-out stream; more only cost.
const REPLICAS: usize = 3;
/// Servers of a Redis that sentinels look after, and so many sentinels.
const OF_SENTINEL: usize = 3;
/// Nodes of a Redis Cluster that have slots; each has a replica.
pub(crate) const PRIMARIES: usize = 3;
/// Members of a PostgreSQL that Patroni looks after: one may be away, and the primary still has a standby to wait for.
const OF_PATRONI: usize = 3;
/// Sizes that have a majority after the loss of as few members as the size below has.
const SIZES: [usize; 3] = [1, 3, 5];

/// What Redis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedisKind {
    /// One server.
    #[default]
    Single,
    /// A primary with two replicas, and three sentinels that promote one.
    Sentinel,
    /// A Redis Cluster: three primaries with a replica each.
    Cluster,
}

/// How many servers there are of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engines {
    /// Members of etcd: 1, 3 or 5.
    pub etcds: usize,
    /// NATS servers, which keep three copies of the stream where there are three: 1, 3 or 5.
    pub natses: usize,
    /// What Redis is.
    pub redis: RedisKind,
    /// Whether PostgreSQL has two standbys, of which Patroni promotes the synchronous one, behind HAProxy.
    pub patroni: bool,
}

impl Default for Engines {
    fn default() -> Self {
        Self { etcds: 1, natses: 1, redis: RedisKind::Single, patroni: false }
    }
}

impl Engines {
    /// Whether it can be started.
    ///
    /// # Errors
    /// A size that is none.
    pub fn check(&self) -> Result<(), Error> {
        match [("etcds", self.etcds), ("natses", self.natses)].into_iter().find(|(_, n)| !SIZES.contains(n)) {
            Some((what, n)) => {
                Err(Error::System(format!("{n} {what}: a majority needs an odd number, 1, 3 or 5")))
            }
            None => Ok(()),
        }
    }

    /// How many there are of this kind; of a service none.
    #[must_use]
    pub fn count(&self, service: Service) -> usize {
        match service {
            Service::Nats => self.natses,
            Service::Etcd => self.etcds,
            Service::Redis => match self.redis {
                RedisKind::Single => 1,
                RedisKind::Sentinel => OF_SENTINEL,
                RedisKind::Cluster => 2 * PRIMARIES,
            },
            Service::Sentinel if self.redis == RedisKind::Sentinel => OF_SENTINEL,
            Service::Postgres if self.patroni => OF_PATRONI,
            Service::Postgres => 1,
            Service::Haproxy => usize::from(self.patroni),
            Service::Sentinel | Service::Gateway | Service::Logic | Service::Task => 0,
        }
    }

    /// Whether one of these may end and the others go on.
    #[must_use]
    pub fn has_leader(&self, service: Service) -> bool {
        self.count(service) > 1 && service != Service::Sentinel
    }

    /// Copies of the stream.
    pub(crate) fn replicas(&self) -> usize {
        self.natses.min(REPLICAS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_majority() {
        assert!(Engines::default().check().is_ok());
        assert!(Engines { etcds: 3, natses: 5, redis: RedisKind::Cluster, patroni: true }.check().is_ok());
        for wrong in [Engines { etcds: 2, ..Engines::default() }, Engines { natses: 0, ..Engines::default() }]
        {
            assert!(wrong.check().unwrap_err().to_string().contains("1, 3 or 5"));
        }
    }
}
