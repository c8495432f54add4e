//! Whether the URL of a server can be meant as it is written, and whether this build can use it. Resolves nothing and
//! connects to nothing; what it says shows no password.

use sluice_access::{SecretUrl, masked_url};

/// What a URL leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlKind {
    /// The store.
    Postgres,
    /// Interest and presence.
    Redis,
    /// The fan-out queue.
    Nats,
    /// The registry.
    Etcd,
    /// Where clients are told to connect.
    WebSocket,
}

impl UrlKind {
    /// What this build speaks.
    const fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgres", "postgresql"],
            Self::Redis => &[
                "redis",
                "rediss",
                "redis+unix",
                "unix",
                "redis+sentinel",
                "rediss+sentinel",
                "redis+cluster",
                "rediss+cluster",
            ],
            Self::Nats => &["nats", "tls"],
            Self::Etcd => &["http", "https"],
            Self::WebSocket => &["ws", "wss"],
        }
    }

    const fn example(self) -> &'static str {
        match self {
            Self::Postgres => "postgres://user:password@db:5432/sluice",
            Self::Redis => "redis://:password@redis:6379/0",
            Self::Nats => "nats://nats:4222",
            Self::Etcd => "http://etcd:2379",
            Self::WebSocket => "wss://chat.example/ws",
        }
    }

    /// Why a scheme that exists is of no use here.
    fn refusal(self, scheme: &str) -> Option<&'static str> {
        match (self, scheme) {
            (Self::Postgres, _) => Some("the store of this build is PostgreSQL"),
            (Self::Redis, "valkey") => Some("Valkey is spoken to as Redis"),
            (Self::Redis, "valkeys") => Some("Valkey is spoken to as Redis: rediss:// for TLS"),
            (Self::WebSocket, "http" | "https") => Some("clients connect by WebSocket"),
            (Self::Redis | Self::Nats | Self::Etcd | Self::WebSocket, _) => None,
        }
    }

    /// Whether its clients take port 80 where none is given.
    const fn needs_port(self) -> bool {
        matches!(self, Self::Etcd)
    }
}

/// What is wrong with the URLs under `key`, a sentence each.
#[must_use]
pub fn check_all(key: &str, urls: &[SecretUrl], kind: UrlKind) -> Vec<String> {
    urls.iter().filter_map(|url| check(key, url.reveal(), kind)).collect()
}

/// What is wrong with the URL under `key`: one sentence with its fix.
#[must_use]
pub fn check(key: &str, url: &str, kind: UrlKind) -> Option<String> {
    wrong(url, kind)
        .map(|why| format!("{key} is {:?}: {why}, for example {}", masked_url(url), kind.example()))
}

fn wrong(url: &str, kind: UrlKind) -> Option<String> {
    let schemes = kind.schemes();
    let Some((scheme, rest)) = url.split_once("://") else {
        return Some(format!("it must begin with {}://", schemes[0]));
    };
    if !schemes.contains(&scheme) {
        let why = kind.refusal(scheme).map(|why| format!(" ({why})")).unwrap_or_default();
        return Some(format!("it must begin with {}://, not with {scheme}://{why}", schemes[0]));
    }
    if scheme.ends_with("unix") {
        return None;
    }
    let sentinels = scheme.ends_with("+sentinel");
    if sentinels && !names_primary(rest) {
        return Some(
            "its path must name the primary, as in redis+sentinel://a:26379,b:26379/main".to_owned(),
        );
    }
    let nodes = scheme.ends_with("+cluster");
    if nodes && names_more(rest) {
        return Some("a Redis Cluster has one database: nothing may follow its nodes".to_owned());
    }
    if kind == UrlKind::Redis && !sentinels && !nodes && places_of(rest).contains(',') {
        return Some(
            "it names one server; several sentinels are named by redis+sentinel://, nodes by redis+cluster://"
                .to_owned(),
        );
    }
    // Several servers where the client takes a list.
    let lists = kind == UrlKind::Nats;
    let mut parts = if lists { rest.split(',').collect() } else { vec![rest] };
    parts.iter_mut().for_each(|part| *part = part.split_once("://").map_or(*part, |(_, rest)| rest));
    parts.into_iter().find_map(|part| wrong_place(part, kind))
}

/// What follows the user, up to the path.
fn places_of(rest: &str) -> &str {
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    place.split(['/', '?', '#']).next().unwrap_or(place)
}

/// `host,host/name` or `host/name/db`.
fn names_primary(rest: &str) -> bool {
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    let path = place.split_once('/').map_or("", |(_, path)| path);
    let (name, db) = path.split_once('/').unwrap_or((path, ""));
    !name.is_empty() && !name.contains(['?', '#']) && db.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether something follows the places.
fn names_more(rest: &str) -> bool {
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    !["", "/"].contains(&place.trim_start_matches(|char| !['/', '?', '#'].contains(&char)))
}

/// Of what follows the scheme.
fn wrong_place(rest: &str, kind: UrlKind) -> Option<String> {
    if rest.contains(char::is_whitespace) {
        return Some("it has white space in it".to_owned());
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let before_query = path.split('?').next().unwrap_or(path);
    // A password with one of these ends the host's part too early; what follows still has the @.
    if !authority.contains('@')
        && let Some(raw) = path.chars().next()
        && (before_query.contains('@') || (raw != '/' && path.contains('@')))
    {
        return Some(format!("a {raw} in a password must be written {}", encoded(raw)));
    }
    let (user, place) =
        authority.rsplit_once('@').map_or((None, authority), |(user, place)| (Some(user), place));
    if user.is_some_and(has_lone_percent) {
        return Some("a % in a password must be written %25".to_owned());
    }
    let socket = kind == UrlKind::Postgres && path.contains("host=");
    // As libpq, and as sentinels are named, it takes a list of hosts behind one user.
    let lists = matches!(kind, UrlKind::Postgres | UrlKind::Redis);
    let mut places = if lists { place.split(',').collect() } else { vec![place] };
    places.retain(|place| !(socket && place.is_empty()));
    places.into_iter().find_map(|place| wrong_host(place, kind))
}

fn wrong_host(place: &str, kind: UrlKind) -> Option<String> {
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (place, None),
    };
    if host.is_empty() {
        return Some("it names no host".to_owned());
    }
    match port {
        Some(port) if port.parse::<u16>().is_ok_and(|port| port > 0) => None,
        Some(port) => Some(format!("{port:?} is no port")),
        None => kind.needs_port().then(|| "it names no port".to_owned()),
    }
}

fn encoded(char: char) -> String {
    format!("%{:02X}", u32::from(char))
}

fn has_lone_percent(text: &str) -> bool {
    let is_hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    let lone =
        |(at, byte): (usize, &u8)| *byte == b'%' && !(is_hex(bytes.get(at + 1)) && is_hex(bytes.get(at + 2)));
    bytes.iter().enumerate().any(lone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usable_urls_pass() {
        for (url, kind) in [
            ("postgres://sluice@127.0.0.1:5432/sluice", UrlKind::Postgres),
            ("postgresql://u:p%2Fw@db/sluice?sslmode=verify-full", UrlKind::Postgres),
            ("postgres:///sluice?host=/run/postgresql", UrlKind::Postgres),
            ("postgres://u@[::1]:5432/sluice", UrlKind::Postgres),
            ("redis://:p%25w@redis", UrlKind::Redis),
            ("unix:///run/redis.sock?db=1", UrlKind::Redis),
            ("nats://a:4222,nats://b:4222", UrlKind::Nats),
            ("tls://ann:p%40w@a:4222,b:4222", UrlKind::Nats),
            ("nats://token@a:4222", UrlKind::Nats),
            ("http://[::1]:2379", UrlKind::Etcd),
            ("https://etcd:2379", UrlKind::Etcd),
            ("rediss://ann:p%25w@redis", UrlKind::Redis),
            ("redis+sentinel://:p%25w@a:26379,[::1],b/main", UrlKind::Redis),
            ("rediss+sentinel://a,b/main/3", UrlKind::Redis),
            ("redis+cluster://ann:p%25w@a:6379,[::1],b", UrlKind::Redis),
            ("rediss+cluster://a/", UrlKind::Redis),
            ("postgres://u:p,w@a:5432,b/sluice?target_session_attrs=read-write", UrlKind::Postgres),
            ("wss://chat.example/ws", UrlKind::WebSocket),
        ] {
            assert_eq!(check("key", url, kind), None, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_meant_names_the_fix_and_no_password() {
        for (url, kind, says) in [
            ("postgresql:/sluice", UrlKind::Postgres, "must begin with postgres://"),
            ("db:5432/sluice", UrlKind::Postgres, "must begin with postgres://"),
            ("mysql://u:hush@db/sluice", UrlKind::Postgres, "the store of this build is PostgreSQL"),
            ("postgres://u:hu/sh@db:5432/sluice", UrlKind::Postgres, "a / in a password must be written %2F"),
            ("postgres://u:hu#sh@db:5432/sluice", UrlKind::Postgres, "a # in a password must be written %23"),
            ("postgres://u:hu?sh@db:5432/sluice", UrlKind::Postgres, "a ? in a password must be written %3F"),
            ("redis://:hu%sh@redis:6379", UrlKind::Redis, "a % in a password must be written %25"),
            ("redis://:6379", UrlKind::Redis, "names no host"),
            ("redis://redis:sixthousand", UrlKind::Redis, "is no port"),
            ("redis+cluster://:hush@a,b/1", UrlKind::Redis, "has one database"),
            ("redis+cluster://:hush@a,", UrlKind::Redis, "names no host"),
            ("redis+cluster://:hu/sh@a,b", UrlKind::Redis, "a / in a password must be written %2F"),
            ("redis+sentinel://:hush@a:26379", UrlKind::Redis, "must name the primary"),
            ("redis+sentinel://:hush@a,b/main/one", UrlKind::Redis, "must name the primary"),
            ("redis+sentinel://:hush@a,b:0/main", UrlKind::Redis, "is no port"),
            ("redis://:hush@a,b", UrlKind::Redis, "names one server"),
            ("postgres://u:hush@a:5432,b:0/sluice", UrlKind::Postgres, "is no port"),
            ("postgres://u:hush@a,/sluice", UrlKind::Postgres, "names no host"),
            ("nats://ann:hu/sh@nats:4222", UrlKind::Nats, "a / in a password must be written %2F"),
            ("nats://a:4222,nats://b:0", UrlKind::Nats, "is no port"),
            ("etcd:2379", UrlKind::Etcd, "must begin with http://"),
            ("http://etcd", UrlKind::Etcd, "names no port"),
            ("https://chat.example", UrlKind::WebSocket, "clients connect by WebSocket"),
            ("ws://a b/ws", UrlKind::WebSocket, "white space"),
        ] {
            let said = check("key", url, kind).unwrap_or_else(|| panic!("{url} passes"));
            assert!(said.contains(says) && said.contains("for example"), "{url}: {said}");
            assert!(!said.contains("hush") && !said.contains("sh@"), "{url}: {said}");
        }
    }
}
