//! Redis behind Sentinel: who the primary is is asked of the sentinels for each connection, and believed once that
//! server says so too. Nothing is kept: who connects again after a failover finds the new one.

use std::collections::HashMap;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ErrorKind, RedisError, RedisResult};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::timeout;

use super::access;
use crate::Redis;

const FORM: &str = "redis.url names no primary behind Sentinel: write \
                    redis+sentinel://user:password@host:26379,host:26379/NAME, NAME being the sentinels' for it";
/// Port of a sentinel that is named without one.
const SENTINEL_PORT: u16 = 26_379;
/// The part of the time for a connection that sentinels have to answer in: one that is silent leaves the rest.
const ASKING: u32 = 2;

/// What `redis+sentinel://user:password@host:port,host/name/db` says; `rediss+sentinel://` for TLS, also to sentinels.
#[cfg_attr(test, derive(Debug, PartialEq, Eq))]
pub(super) struct Sentinels<'a> {
    scheme: &'a str,
    /// As it stands in the URL, with a password perhaps.
    user: &'a str,
    places: Vec<String>,
    name: &'a str,
    db: &'a str,
}

/// Host and port of a server.
pub(super) type Address = (String, u16);

impl<'a> Sentinels<'a> {
    /// `None` for the URL of a server.
    pub(super) fn of(url: &'a str) -> RedisResult<Option<Self>> {
        let Some((scheme, rest)) = url.split_once("+sentinel://") else { return Ok(None) };
        let wrong = || error(FORM);
        let (user, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (places, path) = rest.split_once('/').ok_or_else(wrong)?;
        let (name, db) = path.split_once('/').unwrap_or((path, ""));
        let right = ["redis", "rediss"].contains(&scheme)
            && !(name.is_empty() || name.contains(['?', '#']) || places.split(',').any(str::is_empty))
            && db.bytes().all(|byte| byte.is_ascii_digit());
        let places = places.split(',').map(with_port).collect();
        right.then_some(Some(Self { scheme, user, places, name, db })).ok_or_else(wrong)
    }

    /// Whether what was named can be used; connects to nobody.
    pub(super) fn check(&self, redis: &Redis) -> RedisResult<()> {
        let places = self.places.iter().map(|place| self.sentinel(redis, place));
        let some_server = self.server(redis, &("localhost".to_owned(), 1));
        places.chain([some_server]).try_for_each(|one| access::client(&one).map(drop))
    }

    /// What the sentinels call it.
    pub(super) fn name(&self) -> &str {
        self.name
    }

    /// Each sentinel, to be connected to.
    pub(super) fn each(&self, redis: &Redis) -> impl Iterator<Item = Redis> {
        self.places.iter().map(|place| self.sentinel(redis, place))
    }

    /// A connection to the primary of now, and where it is.
    pub(super) async fn connect(
        &self,
        redis: &Redis,
        announced: Option<Address>,
        patience: Duration,
    ) -> RedisResult<(MultiplexedConnection, Address)> {
        // First: most sentinels may not have heard of it yet, and the old one still calls itself a primary.
        if let Some(address) = announced
            && let Ok(connection) = primary(&self.server(redis, &address), &address, patience / ASKING).await
        {
            return Ok((connection, address));
        }
        let mut last = error("no sentinel answers");
        for address in self.named(redis, patience / ASKING).await? {
            match primary(&self.server(redis, &address), &address, patience).await {
                Ok(connection) => return Ok((connection, address)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// What sentinels take for the primary; what most of them do comes first: one that was cut off names the old one.
    async fn named(&self, redis: &Redis, wait: Duration) -> RedisResult<Vec<Address>> {
        let (mut votes, mut last) = (HashMap::<Address, usize>::new(), None);
        // All at once: those that are gone cost no time of their own.
        let mut answers = FuturesUnordered::new();
        for place in &self.places {
            answers.push(ask(self.sentinel(redis, place), place, self.name, wait));
        }
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(address) => {
                    let count = votes.entry(address).or_default();
                    *count += 1;
                    if *count * 2 > self.places.len() {
                        break;
                    }
                }
                Err(error) => last = Some(error),
            }
        }
        if let (true, Some(error)) = (votes.is_empty(), last) {
            return Err(error);
        }
        let mut named: Vec<_> = votes.into_iter().collect();
        named.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Ok(named.into_iter().map(|(address, _)| address).collect())
    }

    /// A sentinel knows neither the servers' users nor their databases.
    fn sentinel(&self, redis: &Redis, place: &str) -> Redis {
        let (url, password_file) = (format!("{}://{place}", self.scheme), &redis.sentinel_password_file);
        Redis { url: url.into(), password_file: password_file.clone(), ..redis.clone() }
    }

    fn server(&self, redis: &Redis, (host, port): &Address) -> Redis {
        let at = if self.user.is_empty() { "" } else { "@" };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let url = format!("{}://{}{at}{host}:{port}/{}", self.scheme, self.user, self.db);
        Redis { url: url.into(), ..redis.clone() }
    }
}

fn with_port(place: &str) -> String {
    match place.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => place.to_owned(),
        Some(_) | None => format!("{place}:{SENTINEL_PORT}"),
    }
}

async fn ask(sentinel: Redis, place: &str, name: &str, wait: Duration) -> RedisResult<Address> {
    let asking = async {
        let mut connection = access::open(&sentinel, wait).await?;
        let mut command = ::redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        command.query_async::<Option<Address>>(&mut connection).await
    };
    let who = format!("the sentinel at {place}");
    match timeout(wait, asking).await {
        Ok(Ok(Some(address))) => Ok(address),
        Ok(Ok(None)) => {
            Err(error(format!("{who} knows no primary {name:?}: check the name at the end of redis.url")))
        }
        Ok(Err(why)) => Err(error(format!("{who}: {why}"))),
        Err(_) => Err(error(format!("{who} gave no answer in time"))),
    }
}

/// Connects, if it is one: sentinels name the old one until they have made another.
async fn primary(
    server: &Redis,
    address: &Address,
    patience: Duration,
) -> RedisResult<MultiplexedConnection> {
    let mut connection = access::open(server, patience).await?;
    // Not `ROLE`, which is one more right to give.
    let info: String = ::redis::cmd("INFO").arg("replication").query_async(&mut connection).await?;
    if info.lines().any(|line| line.trim_end() == "role:master") {
        return Ok(connection);
    }
    let (host, port) = address;
    Err(error(format!("sentinels name {host}:{port}, which is a replica: they have not agreed yet")))
}

fn error(text: impl Into<String>) -> RedisError {
    RedisError::from((ErrorKind::Client, "Sentinel", text.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn of(url: &str) -> Sentinels<'_> {
        Sentinels::of(url).unwrap().unwrap()
    }

    #[test]
    fn the_url_names_sentinels_and_how_the_primary_lets_in() {
        assert_eq!(Sentinels::of("redis://a:6379/1").unwrap(), None);
        let redis = Redis {
            password_file: "/server".into(),
            sentinel_password_file: "/sentinel".into(),
            ..Redis::at("")
        };
        let all = of("rediss+sentinel://ann:p%40w@a,b:1,[::1],[::2]:5/main/3");
        assert_eq!(all.places, ["a:26379", "b:1", "[::1]:26379", "[::2]:5"]);
        let sentinel = all.sentinel(&redis, &all.places[1]);
        assert_eq!((sentinel.url.reveal(), &*sentinel.password_file), ("rediss://b:1", "/sentinel"));
        let server = all.server(&redis, &("10.0.0.1".into(), 6379));
        assert_eq!(
            (server.url.reveal(), &*server.password_file),
            ("rediss://ann:p%40w@10.0.0.1:6379/3", "/server")
        );
        let plain = of("redis+sentinel://a/main");
        assert_eq!(plain.server(&redis, &("::1".into(), 1)).url.reveal(), "redis://[::1]:1/");
        plain.check(&Redis::at("")).unwrap();
    }

    #[test]
    fn what_names_no_primary_is_refused_without_its_password() {
        for url in [
            "redis+sentinel://:hush@a:26379",
            "redis+sentinel://:hush@a:26379/",
            "redis+sentinel://:hush@a,/main",
            "redis+sentinel://:hush@a/main/one",
            "redis+sentinel://:hush@a/main?db=1",
            "valkey+sentinel://:hush@a/main",
        ] {
            let said = Sentinels::of(url).unwrap_err().to_string();
            assert!(said.contains("redis+sentinel://user:password@host") && !said.contains("hush"), "{said}");
        }
    }
}
