//! The links of a cluster that lead through proxies: each process is told the proxy's address instead of the peer's.

use std::collections::BTreeMap;
use std::fmt;

use crate::place::{Place, Role};
use crate::proxy::{Proxy, Trouble};

/// A kind of link, by who calls whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// Clients to a gateway.
    ClientGateway,
    /// Gateways (and tasks, for their duties) to a logic.
    GatewayLogic,
    /// Tasks to a gateway.
    TaskGateway,
    /// A service to a server below.
    Store(Role, Role),
}

impl Link {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::ClientGateway,
        Self::GatewayLogic,
        Self::TaskGateway,
        Self::Store(Role::Logic, Role::Postgres),
        Self::Store(Role::Logic, Role::Nats),
        Self::Store(Role::Logic, Role::Redis),
        Self::Store(Role::Task, Role::Nats),
        Self::Store(Role::Task, Role::Redis),
        Self::Store(Role::Gateway, Role::Etcd),
        Self::Store(Role::Logic, Role::Etcd),
        Self::Store(Role::Task, Role::Etcd),
    ];

    /// Which service has one of these for each of its processes.
    #[must_use]
    pub const fn owner(self) -> Role {
        match self {
            Self::ClientGateway | Self::TaskGateway => Role::Gateway,
            Self::GatewayLogic => Role::Logic,
            Self::Store(service, _) => service,
        }
    }

    /// The name of one: `gateway→logic-1`, `logic-1→postgres`.
    #[must_use]
    pub fn at(self, index: usize) -> String {
        let place = Place { role: self.owner(), index };
        match self {
            Self::ClientGateway => format!("client→{place}"),
            Self::GatewayLogic => format!("gateway→{place}"),
            Self::TaskGateway => format!("task→{place}"),
            Self::Store(_, store) => format!("{place}→{store}"),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientGateway => f.write_str("client→gateway"),
            Self::GatewayLogic => f.write_str("gateway→logic"),
            Self::TaskGateway => f.write_str("task→gateway"),
            Self::Store(service, store) => write!(f, "{service}→{store}"),
        }
    }
}

/// The proxies of a cluster.
#[derive(Debug, Default)]
pub struct Links(BTreeMap<(Link, usize), Proxy>);

impl Links {
    /// Puts a proxy into a link and says where it listens.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn lead(&mut self, link: Link, index: usize, upstream: &str) -> std::io::Result<String> {
        let proxy = Proxy::start(upstream).await?;
        let address = proxy.address();
        self.0.insert((link, index), proxy);
        Ok(address)
    }

    /// Where the proxy of a link listens.
    #[must_use]
    pub fn address(&self, link: Link, index: usize) -> Option<String> {
        self.0.get(&(link, index)).map(Proxy::address)
    }

    /// Connections that a link has now.
    #[must_use]
    pub fn connections(&self, link: Link, index: usize) -> usize {
        self.0.get(&(link, index)).map_or(0, Proxy::connections)
    }

    /// Begins trouble.
    pub fn trouble(&self, link: Link, index: usize, trouble: Trouble) {
        if let Some(proxy) = self.0.get(&(link, index)) {
            proxy.trouble(trouble);
        }
    }

    /// Ends it.
    pub fn heal(&self, link: Link, index: usize) {
        if let Some(proxy) = self.0.get(&(link, index)) {
            proxy.heal();
        }
    }
}
