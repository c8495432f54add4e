//! A cluster of our own: real servers and services on this machine, with the launcher. Links lead through proxies when
//! a fault wants them to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::try_join_all;
use sluice_launcher::{
    Cluster, Doors, Engines, Exit, Node, Options, Port, Service, Setting, Signal, service_binary,
};

use tokio::time::{Instant, sleep};

use super::{Ended, Ending};
use crate::api::ApiAccess;
use crate::doors::MemberDoors;
use crate::links::{Link, Links};
use crate::place::{Place, Role};
use crate::proxy::Trouble;

/// Seconds of a lease: short, so that a crash is over soon and a freeze of five seconds is beyond it.
const LEASE_S: u32 = 3;
/// PostgreSQL has a primary again within this: Patroni's patience with a silent one is 20 s.
const PROMOTED: Duration = Duration::from_secs(40);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// What to start.
#[derive(Debug, Clone)]
pub struct ClusterWanted {
    /// How many gateways.
    pub gateways: usize,
    /// How many logics.
    pub logics: usize,
    /// How many tasks.
    pub tasks: usize,
    /// How many servers of each kind.
    pub engines: Engines,
    /// Folder of data and logs.
    pub dir: PathBuf,
    /// Where the service binaries are, unless beside this one or on PATH.
    pub bin_dir: Option<PathBuf>,
    /// Where those of another version are, which take turns with them.
    pub previous: Option<PathBuf>,
    /// Settings of the services.
    pub settings: Vec<Setting>,
    /// Whether links lead through proxies.
    pub links: bool,
    /// Whether members of groups have doors.
    pub doors: bool,
    /// Links that are slow while the load runs.
    pub slow_links: Vec<Link>,
    /// Whether the logs of services are read by somebody who can be ended.
    pub log_readers: bool,
    /// Whether every link is encrypted.
    pub secure: bool,
}

impl ClusterWanted {
    fn count(&self, service: Role) -> usize {
        match service {
            Role::Gateway => self.gateways,
            Role::Logic => self.logics,
            Role::Task => self.tasks,
            Role::Dev | Role::Nats | Role::Etcd | Role::Redis | Role::Postgres => 1,
        }
    }
}

/// A cluster of our own.
pub struct Own {
    cluster: Arc<Cluster>,
    links: Option<Links>,
    doors: Option<Arc<MemberDoors>>,
    /// Of them, those that are slow while the load runs.
    slow: Vec<(Link, usize)>,
    /// Ports that processes behind a proxy listen on; ours while the run lasts.
    _ports: Vec<Port>,
}

impl Own {
    /// Starts it and waits until all is ready.
    ///
    /// # Errors
    /// What could not be started, with the end of its log.
    pub async fn start(wanted: &ClusterWanted) -> anyhow::Result<Self> {
        // First, so that a setting given by hand wins.
        let usual = format!("all.etcd.lease_ttl_s={LEASE_S}").parse()?;
        let mut options = Options {
            gateways: wanted.gateways,
            logics: wanted.logics,
            tasks: wanted.tasks,
            engines: wanted.engines,
            dir: Some(wanted.dir.clone()),
            bin_dir: wanted.bin_dir.clone(),
            previous: wanted.previous.clone(),
            log_readers: wanted.log_readers,
            secure: wanted.secure,
            settings: [&[usual], &*wanted.settings].concat(),
            ..Options::default()
        };
        let doors = wanted.doors.then(Arc::<MemberDoors>::default);
        options.doors = doors.clone().map(|doors| doors as Arc<dyn Doors>);
        // Proxies cost a hop for every byte: only scenarios that cut links pay for them.
        if !wanted.links && wanted.slow_links.is_empty() {
            let cluster = Arc::new(Cluster::start(options).await?);
            return Ok(Self { cluster, links: None, doors, slow: Vec::new(), _ports: Vec::new() });
        }
        for service in Service::SERVICES {
            service_binary(service, wanted.bin_dir.as_deref())?; // before anything runs
        }
        (options.gateways, options.logics, options.tasks) = (0, 0, 0);
        let mut own = Self {
            cluster: Arc::new(Cluster::start(options).await?),
            links: None,
            doors,
            slow: Vec::new(),
            _ports: Vec::new(),
        };
        // The order of three steps: the servers are up, so their addresses are known; the proxies are led before any
        // service reads its settings; logic runs before those that look for it.
        // Three steps whose order matters: the servers are up, so their addresses are known; proxies lead to
        // them before a service reads its settings; logic runs before those that look for it.
        own.lead(wanted).await?;
        let of = |service, count| (0..count).map(move |index| (service, index));
        let start = |(service, index)| own.cluster.start_at(service, index);
        try_join_all(of(Service::Logic, wanted.logics).map(start)).await?;
        let rest = of(Service::Task, wanted.tasks).chain(of(Service::Gateway, wanted.gateways));
        try_join_all(rest.map(start)).await?;
        own.open().await?;
        own.slow_down(wanted);
        Ok(own)
    }

    /// Tells services that do not run yet to find each other, and the servers, at proxies.
    async fn lead(&mut self, wanted: &ClusterWanted) -> anyhow::Result<()> {
        let mut links = Links::default();
        for link in [Link::GatewayLogic, Link::TaskGateway] {
            for index in 0..wanted.count(link.owner()) {
                let port = Port::claim()?;
                let listen = format!("127.0.0.1:{}", port.number());
                let name = Place { role: link.owner(), index };
                let proxy = links.lead(link, index, &listen).await?;
                // What others find in etcd is the proxy, what the process binds is the port behind it.
                self.cluster.set(format!("{name}.grpc.listen={listen}").parse()?);
                self.cluster.set(format!("{name}.grpc.advertise={proxy}").parse()?);
                // Held, not used: nobody else on this machine may be given the number while its owner restarts.
                self._ports.push(port);
            }
        }
        for link in Link::ALL {
            let Link::Store(service, store) = link else { continue };
            let key = key_of(store)?;
            let url = self.url_for(service, store).with_context(|| format!("{service} has no {store}"))?;
            let upstream = host_of(&url).to_owned();
            let count = wanted.count(service);
            for index in 0..count {
                let proxy = links.lead(link, index, &upstream).await?;
                // Only the host: the name, the secret and the database in the URL stay what they were.
                let url = url.replace(&upstream, &proxy);
                self.cluster.set(format!("{}.{key}={url}", Place { role: service, index }).parse()?);
            }
        }
        self.links = Some(links);
        Ok(())
    }

    /// Puts proxies before the gateways' client ports, which are known once they run and never change.
    async fn open(&mut self) -> anyhow::Result<()> {
        let Some(links) = &mut self.links else { return Ok(()) };
        for node in self.cluster.nodes(Service::Gateway) {
            links.lead(Link::ClientGateway, node.index, host_of(node.ws())).await?;
        }
        Ok(())
    }

    fn slow_down(&mut self, wanted: &ClusterWanted) {
        let each = |&link: &Link| (0..wanted.count(link.owner())).map(move |index| (link, index));
        self.slow = wanted.slow_links.iter().flat_map(each).collect();
        for &(link, index) in &self.slow {
            self.links.iter().for_each(|links| links.trouble(link, index, Trouble::Slow));
        }
    }

    /// Ends what [`ClusterWanted::slow_links`] asked for.
    pub fn heal_slow_links(&self) {
        for &(link, index) in &self.slow {
            self.links.iter().for_each(|links| links.heal(link, index));
        }
    }

    /// The cluster, for faults that only a cluster of our own can have.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The proxies, when links lead through some.
    #[must_use]
    pub fn links(&self) -> Option<&Links> {
        self.links.as_ref()
    }

    /// The doors of members, when they have some.
    #[must_use]
    pub fn doors(&self) -> Option<&MemberDoors> {
        self.doors.as_deref()
    }

    pub(super) fn places(&self, role: Role) -> Vec<Place> {
        let nodes = role.service().map(|service| self.cluster.nodes(service)).unwrap_or_default();
        nodes.iter().map(|node| Place { role, index: node.index }).collect()
    }

    pub(super) fn endpoints(&self) -> Vec<String> {
        let gateways = self.cluster.nodes(Service::Gateway);
        let entrance = |node: &Node| {
            let proxy = self.links.as_ref().and_then(|links| links.address(Link::ClientGateway, node.index));
            match proxy {
                Some(proxy) => node.ws().replace(host_of(node.ws()), &proxy),
                None => node.ws().to_owned(),
            }
        };
        gateways.iter().map(entrance).collect()
    }

    /// The API of all logics.
    pub(super) fn api(&self) -> ApiAccess {
        let cluster = Arc::clone(&self.cluster);
        let urls = move || cluster.nodes(Service::Logic).iter().map(|node| node.http().to_owned()).collect();
        ApiAccess::new(urls, self.cluster.api_key())
    }

    /// URL of the store, to read the truth. It opens it.
    #[must_use]
    pub fn store_url(&self) -> String {
        self.cluster.url_with_password(Service::Postgres)
    }

    /// What a service is given to reach a server.
    fn url_for(&self, service: Role, store: Role) -> Option<String> {
        Some(self.cluster.url_for(service.service()?, store.service()?))
    }

    fn services(&self) -> impl Iterator<Item = (Place, Node)> {
        let roles = Role::SERVICES.into_iter();
        roles.filter_map(|role| Some((role, role.service()?))).flat_map(|(role, service)| {
            self.cluster.nodes(service).into_iter().map(move |node| (Place { role, index: node.index }, node))
        })
    }

    pub(super) fn admins(&self) -> BTreeMap<Place, String> {
        self.services().map(|(place, node)| (place, node.admin().to_owned())).collect()
    }

    pub(super) fn pids(&self) -> BTreeMap<Place, u32> {
        self.services().map(|(place, node)| (place, node.pid())).collect()
    }

    /// The program of a server, to find what comes with it.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn program_of(&self, store: Service) -> anyhow::Result<PathBuf> {
        Ok(self.cluster.store_program(store)?)
    }

    fn node(&self, place: Place) -> Option<Node> {
        self.cluster.node(place.role.service()?, place.index)
    }

    pub(super) fn signal(&self, place: Place, signal: Signal) -> bool {
        let Some(node) = self.node(place) else { return false };
        if place.role != Role::Postgres {
            return node.signal(signal);
        }
        let stands_still = matches!(signal, Signal::SIGSTOP | Signal::SIGCONT);
        let hit = if stands_still { node.signal_family(signal) } else { node.signal(signal) };
        // After its Patroni, which would start it again.
        if stands_still || signal == Signal::SIGKILL {
            self.cluster.signal_postmaster(place.index, signal);
        }
        hit
    }

    pub(super) async fn timeline(&self) -> Option<u64> {
        if self.cluster.nodes(Service::Postgres).len() < 2 {
            return None;
        }
        let until = Instant::now() + PROMOTED;
        loop {
            let timeline = self.cluster.timeline().await;
            if timeline.is_some() || Instant::now() >= until {
                return timeline;
            }
            sleep(LOOK).await;
        }
    }

    pub(super) async fn ended(&self, place: Place, within: Duration) -> Option<Ended> {
        let exit = self.node(place)?.wait_exit(within).await.ok()?;
        Some(ended(&exit))
    }

    pub(super) async fn start_at(&self, place: Place) -> anyhow::Result<()> {
        let service = place.role.service().with_context(|| format!("the launcher has no {place}"))?;
        self.cluster.start_at(service, place.index).await?;
        Ok(())
    }

    pub(super) async fn stop(&self) -> Vec<(Place, Ended)> {
        let exits = self.cluster.stop().await.exits;
        let services = exits.into_iter().filter_map(|(name, exit)| Some((name.parse::<Place>().ok()?, exit)));
        services
            // How a store ends is not ours to judge: the launcher kills what takes too long.
            .filter(|(place, _)| !place.role.is_store())
            .map(|(place, exit)| (place, ended(&exit)))
            .collect()
    }
}

/// What the launcher saw, in our words.
#[must_use]
pub fn ended(exit: &Exit) -> Ended {
    let how = match (exit.code(), exit.signal()) {
        (Some(code), _) => Ending::Code(code),
        (None, Some(signal)) => Ending::Signal(signal),
        (None, None) => Ending::Unseen,
    };
    Ended { how, took: exit.elapsed.unwrap_or_default() }
}

fn key_of(store: Role) -> anyhow::Result<&'static str> {
    Ok(match store {
        Role::Nats => "nats.url",
        Role::Etcd => "etcd.endpoints",
        Role::Redis => "redis.url",
        Role::Postgres => "postgres.url",
        Role::Gateway | Role::Logic | Role::Task | Role::Dev => {
            bail!("{store} is no server that services are told of")
        }
    })
}

/// `host:port` of a URL.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    // A user and a secret may stand before the host.
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_urls() {
        assert_eq!(host_of("postgres://postgres@127.0.0.1:5432/postgres"), "127.0.0.1:5432");
        assert_eq!(host_of("ws://127.0.0.1:8080/ws"), "127.0.0.1:8080");
        assert_eq!(host_of("http://127.0.0.1:2379"), "127.0.0.1:2379");
        let secure = "postgres://postgres@127.0.0.1:5432/postgres?sslmode=verify-full&sslcert=/a/b.pem";
        assert_eq!(host_of(secure), "127.0.0.1:5432");
    }
}
