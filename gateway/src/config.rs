//! The settings of a gateway: what an operator may change, with its defaults. Reads nothing itself.

use std::time::Duration;

use http::Uri;
use serde::{Deserialize, Serialize};
use sluice_cluster::Etcd;
use sluice_lifecycle::Plan;
use sluice_proto::wire::close;
use sluice_service::config::sections::{Admin, Grpc, Log, Seeds, Shutdown};
use sluice_service::config::url::{self, UrlKind};
use sluice_service::config::{Address, BadAddress};
#[cfg(feature = "servers")]
use sluice_service::process::Probe;
use sluice_service::process::Settings;
use sluice_service::tls::{Role, Tls};
use sluice_trace::Trace;

use crate::handshake::{Names, Proxies};
use crate::{defaults, stages};

/// The whole configuration; keys as in the file. Keys of the file are the field names; environment `SLUICE_…`, `__` between levels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients connect, `address:port`; port 0 takes a free one.
    pub listen: Address,
    /// The `ws://` or `wss://` URL clients reach this gateway by; empty: made from the bound address.
    pub advertise: String,
    /// Browser origins that may connect besides the gateway's own host, exactly as browsers send them.
    pub origins: Vec<String>,
    /// Names by which clients may call this gateway, without port; empty: any. For who is let in without a token.
    pub hosts: Vec<String>,
    /// Shards; 0 = one per core.
    pub shards: usize,
    /// Most connections at once.
    pub connections_max: usize,
    /// Addresses and networks of the proxies before this gateway: what they say about where clients come from is believed.
    pub trusted_proxies: Vec<String>,
    /// What clients may do in a second, and hold.
    pub limits: Limits,
    /// Prefix of all names in etcd.
    pub prefix: String,
    /// Seconds between protocol pings.
    pub ping_every_s: u64,
    /// Seconds to wait for a pong.
    pub ping_timeout_s: u64,
    /// Seconds a client may take no byte while something is queued for it. Systems tell a sender of free
    /// space in large steps only: a 64 KiB step is a minute for a client that reads 1 kB/s.
    pub slow_timeout_s: u64,
    /// Seconds before the end of a token at which its client is told, at most a fifth of what is left of its life; 0: never.
    pub token_expiring_s: u64,
    /// Messages a subscriber that was up to date may fall behind before it is told `skipped`.
    pub max_behind: u64,
    /// gRPC server, for tasks.
    pub grpc: Grpc,
    /// Health, status and metrics, HTTP.
    pub admin: Admin,
    /// Who services are to each other.
    pub tls: Tls,
    /// Where balancers ask for the weight of this gateway.
    pub agent: Agent,
    /// Where instances find each other.
    pub etcd: Etcd,
    /// Logics known without discovery.
    pub logic: Seeds,
    /// What must be equal to logic's setting.
    pub retention: Retention,
    /// The log on stderr.
    pub log: Log,
    /// Where traces go.
    pub trace: Trace,
    /// The time for the stop.
    pub shutdown: Shutdown,
    /// How clients leave.
    pub drain: Drain,
}

/// Where balancers ask for the weight of this gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Agent {
    /// Where HAProxy's `agent-check` is told the weight of this gateway, `address:port`; empty: nowhere.
    pub listen: String,
}

impl Agent {
    /// The address to listen on, if there is one.
    ///
    /// # Errors
    /// It is no address.
    pub fn address(&self) -> Result<Option<Address>, BadAddress> {
        (!self.listen.is_empty()).then(|| self.listen.parse()).transpose()
    }
}

/// What clients may do in a second, and hold; 0 = no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Handshakes of all clients; above it they are answered 503 and told when to come back.
    pub handshakes_per_s: u32,
    /// Rooms to which somebody subscribes while nobody else on this gateway is in them, of all clients together.
    pub opened_rooms_per_s: u32,
    /// Delayed messages of one user that wait, on all gateways together.
    pub scheduled_per_user: u32,
    /// Of one connection.
    pub connection: ConnectionLimits,
    /// Of one user.
    pub user: PartyLimits,
    /// Of one address, a user's or that of many behind it.
    pub address: PartyLimits,
}

/// What one connection may do in a second; 0 = no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionLimits {
    /// Pings and pongs, and requests that are refused for what they are.
    pub other_frames_per_s: u32,
}

/// What one user or address may do in a second, and hold; 0 = no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartyLimits {
    /// Connections at once.
    pub connections: u32,
    /// Connections begun.
    pub handshakes_per_s: u32,
    /// Publishes.
    pub publishes_per_s: u32,
    /// `sub`.
    pub subscribes_per_s: u32,
    /// Publishes that are the first of their room.
    pub new_rooms_per_s: u32,
    /// `history` and `presence`.
    pub questions_per_s: u32,
    /// Bytes of pages of history that may come, and of those that are not taken.
    pub history_bytes: usize,
    /// Bytes of pages of history that came.
    pub history_bytes_per_s: u32,
}

/// What must be equal to logic's setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Seconds that keys are kept at least; publishes older than a quarter of it are given up.
    pub dedupe_min_s: u64,
}

/// How clients leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// Milliseconds to go on accepting while balancers learn; Kubernetes needs some seconds.
    pub accept_grace_ms: u64,
    /// Closes per second while other gateways serve, where the budget wins over it, and returns per second that
    /// clients are told.
    pub rate_per_s: u32,
    /// Subscriptions per second that clients which leave bring to others; 0: any number.
    pub subscriptions_per_s: u32,
    /// WebSocket close code; never 1000, which many clients take as "do not come back".
    pub close_code: u16,
    /// Longest delay before reconnecting that a client is given, milliseconds.
    pub reconnect_ms_max: u64,
}

/// Keys are kept for an hour at least, as logic checks too: publishes are given up after a quarter of it.
const DEDUPE_MIN_S: u64 = 3_600;

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Address::local(8080),
            advertise: String::new(),
            origins: Vec::new(),
            hosts: Vec::new(),
            shards: 0,
            connections_max: defaults::CONNECTIONS_MAX,
            trusted_proxies: Vec::new(),
            limits: Limits::default(),
            prefix: "sluice".into(),
            ping_every_s: 25,
            ping_timeout_s: 10,
            slow_timeout_s: 120,
            token_expiring_s: defaults::TOKEN_EXPIRING_S,
            max_behind: 100_000,
            grpc: Grpc::at(7080),
            tls: Tls::default(),
            admin: Admin::at(8081),
            agent: Agent::default(),
            etcd: Etcd::default(),
            logic: Seeds::default(),
            retention: Retention::default(),
            log: Log::default(),
            trace: Trace::default(),
            shutdown: Shutdown::with(stages::TIMES),
            drain: Drain::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        // What publishes for all its people does so by the API, or has a rate of its own; a balancer that does not say whose
        // connections it brings is one address. Neither meets these.
        let user = PartyLimits {
            connections: 10_000,
            handshakes_per_s: 1_000,
            publishes_per_s: defaults::PUBLISHES_PER_USER,
            subscribes_per_s: 10_000,
            new_rooms_per_s: 2_000,
            questions_per_s: defaults::QUESTIONS_PER_USER,
            history_bytes: defaults::HISTORY_BYTES_PER_USER,
            history_bytes_per_s: defaults::HISTORY_BYTES_PER_S_PER_USER,
        };
        let address = PartyLimits {
            connections: 50_000,
            handshakes_per_s: 5_000,
            publishes_per_s: 100_000,
            subscribes_per_s: 100_000,
            new_rooms_per_s: 20_000,
            questions_per_s: 5_000,
            history_bytes: defaults::HISTORY_BYTES_PER_ADDRESS,
            history_bytes_per_s: defaults::HISTORY_BYTES_PER_S_PER_ADDRESS,
        };
        Self {
            handshakes_per_s: defaults::HANDSHAKES_PER_S,
            opened_rooms_per_s: defaults::OPENED_ROOMS_PER_S,
            scheduled_per_user: defaults::SCHEDULED_PER_USER,
            connection: ConnectionLimits::default(),
            user,
            address,
        }
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { other_frames_per_s: defaults::OTHER_FRAMES_PER_S }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { dedupe_min_s: 3_600 }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            accept_grace_ms: 0,
            rate_per_s: defaults::DRAIN_RATE_PER_S,
            subscriptions_per_s: defaults::DRAIN_SUBSCRIPTIONS_PER_S,
            close_code: close::RESTART,
            reconnect_ms_max: defaults::RECONNECT_MS_MAX,
        }
    }
}

impl Settings for Config {
    const SERVICE: &'static str = "gateway";
    // Clients are served by the shards' own threads.
    const WORKERS: Option<usize> = Some(2);

    fn log(&self) -> &Log {
        &self.log
    }

    fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    fn plan(&self) -> Plan {
        stages::plan(&self.shutdown, self.drain.accept_grace_ms)
    }

    #[cfg(feature = "servers")]
    fn probes(&self) -> Vec<Probe> {
        crate::server_probes::all(&self.etcd)
    }

    fn warnings(&self) -> Vec<String> {
        // A warning, no error: whoever has one gateway and a balancer needs no URL that others can name.
        let nowhere = self.advertise.is_empty() && self.listen.is_unspecified();
        let url = nowhere.then(|| {
            let listen = &self.listen;
            format!("listen is {listen} and advertise is empty: nobody is told a URL that clients can use.")
        });
        let url = url.into_iter().chain(self.grpc.warning(&self.tls));
        url.chain(self.tls.warning(Role::Gateway)).collect()
    }

    fn check(&self) -> Result<(), Vec<String>> {
        let mut wrong = Vec::new();
        let code = self.drain.close_code;
        // What the protocol lets a server send; browsers treat any other as a broken frame.
        if !matches!(code, 1001 | 1008..=1014 | 3000..=4999) {
            wrong.push(format!(
                "drain.close_code is {code}; it must be 1001, 1008…1014 or 3000…4999, for example 1012 \
                 (1000 tells many clients not to come back)"
            ));
        }
        let numbers = [
            ("drain.rate_per_s", u64::from(self.drain.rate_per_s)),
            ("connections_max", self.connections_max as u64),
            ("ping_every_s", self.ping_every_s),
            ("ping_timeout_s", self.ping_timeout_s),
            ("slow_timeout_s", self.slow_timeout_s),
            ("max_behind", self.max_behind),
        ];
        // Elsewhere 0 stands for "no limit"; here it would stop what it limits.
        for (key, _) in numbers.into_iter().filter(|(_, value)| *value == 0) {
            wrong.push(format!("{key} is 0, it must be at least 1"));
        }
        if self.token_expiring_s > defaults::TOKEN_EXPIRING_S_MAX {
            let (told, most) = (self.token_expiring_s, defaults::TOKEN_EXPIRING_S_MAX);
            wrong
                .push(format!("token_expiring_s is {told}, it must be 0…{most}: clients only fetch a token"));
        }
        wrong.extend(Names::read(&self.origins, &self.hosts).err().into_iter().flatten());
        wrong.extend(Proxies::read(&self.trusted_proxies).err().into_iter().flatten());
        wrong.extend(self.admin.token().err());
        wrong.extend(self.etcd.check());
        wrong.extend(url::check_all("etcd.endpoints", &self.etcd.endpoints, UrlKind::Etcd));
        wrong.extend(self.grpc.check(&self.tls));
        wrong.extend(self.tls.check(Role::Gateway));
        wrong.extend(self.trace.check());
        wrong.extend(self.logic.check("logic.seeds"));
        wrong.extend(self.wrong_advertise());
        wrong.extend(self.agent.address().err().map(|error| format!("agent.listen: {error}")));
        // With the accept grace: a stop cut short closes by force.
        let grace = self.drain.accept_grace_ms;
        let cut = self.shutdown.check(&stages::TIMES_MIN, grace);
        wrong.extend(cut.map(|text| match grace {
            0 => text,
            grace => format!("{text} (drain.accept_grace_ms {grace} is part of it)"),
        }));
        let dedupe = self.retention.dedupe_min_s;
        // Also where logic has more: a gateway must give up a publish before its key can be forgotten (B6).
        if dedupe < DEDUPE_MIN_S {
            wrong.push(format!(
                "retention.dedupe_min_s is {dedupe}, it must be at least {DEDUPE_MIN_S} and what logic has"
            ));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

impl Config {
    /// What is wrong with `advertise`, if it is given: one sentence, with the URL that was probably meant.
    fn wrong_advertise(&self) -> Option<String> {
        let url = self.advertise.as_str();
        if url.is_empty() {
            return None;
        }
        // Looked at here and not by the first client: a wrong one is only noticed when clients move.
        let read = url.parse::<Uri>().ok();
        let scheme = read.as_ref().and_then(Uri::scheme_str).unwrap_or_default();
        let host = read.as_ref().and_then(Uri::host).is_some_and(|host| !host.is_empty());
        if host && matches!(scheme, "ws" | "wss") {
            return url::check("advertise", url, UrlKind::WebSocket);
        }
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let tls = if scheme == "http" { "ws" } else { "wss" };
        let meant = if rest.is_empty() { "chat.example/ws" } else { rest };
        Some(format!(
            "advertise is {url:?}, but clients connect by WebSocket: write for example {tls}://{meant}"
        ))
    }

    /// How many shards to run.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        match self.shards {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            shards => shards,
        }
    }

    /// How long after reading a publish it may still be stored: within it, clocks may differ by minutes
    /// and retention cannot have forgotten its key.
    #[must_use]
    pub const fn not_after(&self) -> Duration {
        Duration::from_secs(self.retention.dedupe_min_s / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_agree_with_each_other() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn no_secret_is_in_what_is_shown_of_it() {
        let etcd = Etcd { password: "hush".into(), ..Etcd::at(["http://ann:hush@a:2379"]) };
        let shown = format!("{:?}", Config { etcd, ..Config::default() });
        assert!(!shown.contains("hush") && shown.contains("http://ann:********@a:2379"), "{shown}");
    }

    #[test]
    fn contradictions_are_all_named() {
        let mut config = Config { connections_max: 0, ..Config::default() };
        config.drain.close_code = 1000;
        config.drain.accept_grace_ms = 7_000;
        config.etcd.lease_ttl_s = 1;
        config.grpc.listen = "0.0.0.0:7080".parse().unwrap();
        config.retention.dedupe_min_s = 3_599;
        config.agent.listen = "8082".into();
        let wrong = config.check().expect_err("eight mistakes");
        assert_eq!(wrong.len(), 8, "{wrong:#?}");
    }

    #[test]
    fn what_can_never_match_is_an_error() {
        let mut config = Config {
            origins: vec!["*".into(), "https://app.example/".into(), "app.example".into()],
            hosts: vec!["chat.example:443".into(), "chat.example".into()],
            trusted_proxies: vec!["10.0.0.0/8".into(), "haproxy".into()],
            ..Config::default()
        };
        let wrong = |config: &Config| config.check().err().unwrap_or_default();
        assert_eq!(wrong(&config).len(), 4, "{:#?}", wrong(&config));
        for (advertise, meant) in [
            ("https://chat.example/ws", "wss://chat.example/ws"),
            ("http://chat.example", "ws://chat.example"),
            ("chat.example", "wss://chat.example"),
            ("wss://", "wss://"),
            ("wss:///ws", "wss://"),
        ] {
            config = Config { advertise: advertise.into(), ..Config::default() };
            let wrong = wrong(&config);
            assert!(wrong.len() == 1 && wrong[0].contains(meant), "{advertise}: {wrong:?}");
        }
    }

    #[test]
    fn all_stages_fit_into_the_total() {
        let mut config = Config::default();
        config.drain.accept_grace_ms = 4_000;
        assert_eq!(config.check(), Ok(()));
        config.drain.accept_grace_ms = 4_001;
        let wrong = config.check().expect_err("a millisecond too much");
        assert_eq!(
            wrong,
            [
                "shutdown.total_ms is 8000, shutdown.stages need 8001 together: raise shutdown.total_ms and the kill timer of \
              the platform, or lower a stage (drain.accept_grace_ms 4001 is part of it)"
            ]
        );
        config.drain.accept_grace_ms = 0;
        config.shutdown.stages.drain_ms = 60_000;
        assert_eq!(config.check().map_err(|wrong| wrong.len()), Err(1));
        config.shutdown.total_ms = 120_000;
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn an_address_that_clients_cannot_use_is_worth_a_warning() {
        let mut config = Config { listen: "0.0.0.0:8080".parse().unwrap(), ..Config::default() };
        assert_eq!((config.check(), config.warnings().len()), (Ok(()), 1));
        config.advertise = "wss://chat.example/ws".into();
        assert!(config.warnings().is_empty() && Config::default().warnings().is_empty());
    }
}
