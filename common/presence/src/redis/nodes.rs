//! The nodes of a Redis Cluster: a link to each, and which of them has which part of the keys. That is learned from what
//! nodes say to those who ask the wrong one, and forgotten when a node fails: who asks next hears who has taken over.
//!
//! A node that is slow or gone holds nobody who wants a part of another one, and no call waits longer than the timeout.
//! The client library's own support is not used: while it learns who has what, it serves nobody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::time::Instant;

use super::link::RedisLink;
use super::parts::Part;
use super::sentinels::Address;
use crate::{PresenceError, Redis, Result};

const FORM: &str = "redis.url names no node of a Redis Cluster: write \
                    redis+cluster://user:password@host:6379,host:6379, without the number of a database";
/// Port of a node that is named without one.
const NODE_PORT: u16 = 6_379;
/// Nodes that one call asks: the one that had the part, some that say who has it now, that one.
const HOPS_MAX: usize = 8;
/// Nodes that are remembered beside those that are named and those that have a part.
const NODES_MAX: usize = 64;

/// What `redis+cluster://user:password@host:port,host` says; `rediss+cluster://` for TLS.
#[derive(Debug)]
struct ClusterUrl {
    scheme: String,
    /// As it stands in the URL, with a password perhaps.
    user: String,
    places: Vec<Address>,
}

impl ClusterUrl {
    /// `None` for another URL.
    fn of(url: &str) -> Option<Result<Self>> {
        let (scheme, rest) = url.split_once("+cluster://")?;
        let (user, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let places: Option<Vec<Address>> =
            rest.trim_end_matches('/').split(',').map(|place| address(place, NODE_PORT)).collect();
        let right = ["redis", "rediss"].contains(&scheme);
        let places = places.filter(|_| right).ok_or_else(|| PresenceError::Refused(FORM.to_owned()));
        Some(places.map(|places| Self { scheme: scheme.to_owned(), user: user.to_owned(), places }))
    }

    /// A node alone, to be connected to.
    fn node(&self, redis: &Redis, (host, port): &Address) -> Redis {
        let at = if self.user.is_empty() { "" } else { "@" };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        Redis { url: format!("{}://{}{at}{host}:{port}", self.scheme, self.user).into(), ..redis.clone() }
    }
}

/// `host`, `host:port`, `[::1]:port`.
fn address(place: &str, usual: u16) -> Option<Address> {
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        Some(_) | None => (place, usual),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let right = !host.is_empty() && !host.contains(['/', '?', '#']);
    right.then(|| (host.to_owned(), port))
}

/// All nodes that are known.
pub(super) struct Nodes {
    url: ClusterUrl,
    redis: Redis,
    patience: Duration,
    state: Mutex<NodesState>,
}

#[derive(Default)]
struct NodesState {
    /// Those that the URL names come first.
    links: Vec<(Address, Arc<RedisLink>)>,
    owners: BTreeMap<Part, Address>,
    closed: bool,
}

/// What a node says to those who ask for a part.
enum Answer<T> {
    Here(T),
    /// Another node has it.
    Elsewhere(Address),
    /// It is on its way to another node.
    Moving(String),
    /// The node has lost the others.
    Alone(String),
}

impl Nodes {
    /// `None` for the URL of something else. Connects to nobody.
    ///
    /// # Errors
    /// [`PresenceError::Refused`]: a URL that names no node, or a file of the section that cannot be used.
    pub(super) fn of(redis: &Redis, patience: Duration) -> Option<Result<Self>> {
        ClusterUrl::of(redis.url.reveal()).map(|url| Self::new(url?, redis.clone(), patience))
    }

    fn new(url: ClusterUrl, redis: Redis, patience: Duration) -> Result<Self> {
        let nodes = Self { url, redis, patience, state: Mutex::default() };
        for place in &nodes.url.places {
            nodes.link(place)?;
        }
        Ok(nodes)
    }

    /// Runs commands on the node that has this part; more than once where one that was asked does not have it.
    pub(super) async fn run<T, F>(
        &self,
        part: Part,
        commands: impl Fn(MultiplexedConnection) -> F,
    ) -> Result<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let until = Instant::now() + self.patience;
        let (mut failed, mut last) = (Vec::new(), None);
        for _ in 0..HOPS_MAX {
            let left = until.saturating_duration_since(Instant::now());
            let Some((at, link)) = self.next(part, &failed)?.filter(|_| !left.is_zero()) else { break };
            let ask = async |redis| match commands(redis).await {
                Ok(value) => Ok(Answer::Here(value)),
                Err(error) => judged(error, &at),
            };
            let why = match link.run_within(left, ask).await {
                Ok(Answer::Here(value)) => {
                    self.state().owners.insert(part, at);
                    return Ok(value);
                }
                Ok(Answer::Elsewhere(to)) => {
                    self.moved(part, to)?;
                    continue;
                }
                // Not followed to where it goes: a script that finds half of its keys there would make the others anew,
                // and whoever moves the slot then stops at keys that are there already. It takes seconds.
                Ok(Answer::Moving(why)) => return Err(PresenceError::Unavailable(why)),
                Ok(Answer::Alone(why)) | Err(PresenceError::Unavailable(why)) => why,
                Err(error @ PresenceError::Closed) => return Err(error),
                Err(PresenceError::Refused(why)) => return Err(PresenceError::Refused(said_by(&at, &why))),
            };
            last = Some(PresenceError::Unavailable(said_by(&at, &why)));
            self.state().owners.remove(&part);
            failed.push(at);
        }
        Err(last.unwrap_or_else(|| {
            PresenceError::Unavailable(
                "the nodes of the Redis Cluster do not agree who has a part".to_owned(),
            )
        }))
    }

    /// How many nodes have parts, of those that were asked for.
    pub(super) fn count(&self) -> usize {
        let mut owners: Vec<Address> = self.state().owners.values().cloned().collect();
        owners.sort_unstable();
        owners.dedup();
        owners.len()
    }

    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.links.iter().for_each(|(_, link)| link.close());
    }

    fn state(&self) -> MutexGuard<'_, NodesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that has the part; when that is not known, one that can tell: rather one that works.
    fn next(&self, part: Part, failed: &[Address]) -> Result<Option<(Address, Arc<RedisLink>)>> {
        let state = self.state();
        if state.closed {
            return Err(PresenceError::Closed);
        }
        if let Some(owner) = state.owners.get(&part) {
            let at = owner.clone();
            drop(state);
            // Who has failed is named again as long as nobody has taken over.
            return if failed.contains(&at) { Ok(None) } else { self.link(&at).map(|link| Some((at, link))) };
        }
        let others = state.links.iter().filter(|(at, _)| !failed.contains(at));
        Ok(others.min_by_key(|(_, link)| link.is_away()).cloned())
    }

    fn moved(&self, part: Part, to: Address) -> Result<()> {
        self.link(&to)?;
        let mut state = self.state();
        state.owners.insert(part, to);
        if state.links.len() > NODES_MAX + self.url.places.len() {
            let NodesState { links, owners, .. } = &mut *state;
            links.retain(|(at, _)| self.url.places.contains(at) || owners.values().any(|owner| owner == at));
        }
        Ok(())
    }

    fn link(&self, at: &Address) -> Result<Arc<RedisLink>> {
        let mut state = self.state();
        if let Some((_, link)) = state.links.iter().find(|(one, _)| one == at) {
            return Ok(Arc::clone(link));
        }
        let link = Arc::new(RedisLink::new(self.url.node(&self.redis, at), self.patience)?);
        state.links.push((at.clone(), Arc::clone(&link)));
        Ok(link)
    }
}

fn said_by((host, port): &Address, why: &str) -> String {
    format!("the node at {host}:{port}: {why}")
}

/// What only a cluster says; all else is for the link to judge.
fn judged<T>(error: RedisError, at: &Address) -> RedisResult<Answer<T>> {
    let (said, kind) = (error.to_string(), error.kind());
    let is = |one| kind == ErrorKind::Server(one);
    if is(ServerErrorKind::Moved) {
        return moved_to(error.clone(), at).map(Answer::Elsewhere).ok_or(error);
    }
    // The latter is what a script is told of a key that is on its way.
    if is(ServerErrorKind::Ask) || is(ServerErrorKind::TryAgain) || said.contains("non local key") {
        return Ok(Answer::Moving(format!("its slot is being moved to another node: {said}")));
    }
    if is(ServerErrorKind::ClusterDown) || said.contains("while the cluster is down") {
        return Ok(Answer::Alone(said));
    }
    Err(error)
}

/// `MOVED slot host:port`, of one command or the first of several. A node that does not know its own name leaves it out.
fn moved_to(error: RedisError, (asked, _): &Address) -> Option<Address> {
    let errors = error.into_server_errors()?;
    let moved = errors.iter().find(|(_, error)| error.kind() == Some(ServerErrorKind::Moved));
    let place = moved?.1.details()?.split_ascii_whitespace().nth(1)?;
    // An address of IPv6 begins with a colon too.
    match place.strip_prefix(':').and_then(|port| port.parse().ok()) {
        Some(port) => Some((asked.clone(), port)),
        None => address(place, NODE_PORT),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn at(host: &str, port: u16) -> Address {
        (host.to_owned(), port)
    }

    #[test]
    fn the_url_names_nodes_and_how_each_lets_in() {
        assert!(ClusterUrl::of("redis://a:6379").is_none());
        assert!(ClusterUrl::of("redis+sentinel://a/main").is_none());
        let url = ClusterUrl::of("rediss+cluster://ann:p%40w@a,b:1,[::1],[::2]:5/").unwrap().unwrap();
        assert_eq!(url.places, [at("a", 6379), at("b", 1), at("::1", 6379), at("::2", 5)]);
        let node = url.node(&Redis { password_file: "/file".into(), ..Redis::at("") }, &url.places[3]);
        assert_eq!((node.url.reveal(), &*node.password_file), ("rediss://ann:p%40w@[::2]:5", "/file"));
        for url in [
            "redis+cluster://:hush@",
            "redis+cluster://:hush@a,",
            "x+cluster://:hush@a",
            "redis+cluster://:hush@a/1",
        ] {
            let said = ClusterUrl::of(url).unwrap().unwrap_err().to_string();
            assert!(said.contains("redis+cluster://user:password@host") && !said.contains("hush"), "{said}");
        }
    }

    #[test]
    fn a_node_says_where_to_go() {
        let asked = at("10.0.0.1", 6379);
        for (said, to) in [
            ("4096 10.0.0.2:6380", Some(at("10.0.0.2", 6380))),
            ("4096 :6381", Some(at("10.0.0.1", 6381))),
            ("4096 ::1:6381", Some(at("::1", 6381))),
            ("4096 redis-2.example:6379", Some(at("redis-2.example", 6379))),
            ("4096", None),
        ] {
            let said = ::redis::parse_redis_value(format!("-MOVED {said}\r\n").as_bytes()).unwrap();
            let error = said.extract_error().unwrap_err();
            assert_eq!(moved_to(error, &asked), to);
        }
    }
}
