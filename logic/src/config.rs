//! What logic can be told, and the contradictions that are found before anything starts.

mod api;
mod token_keys;

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_access::{Secret, SecretUrl, unreadable};
use sluice_cluster::Etcd;
use sluice_lifecycle::Plan;
use sluice_presence::Redis;
use sluice_program::secret;
use sluice_proto::limits::LANES;
use sluice_queue::Nats;
use sluice_service::config::sections::{Admin, Grpc, Log, Seeds, Shutdown};
use sluice_service::config::url::{self, UrlKind};
#[cfg(feature = "servers")]
use sluice_service::process::Probe;
use sluice_service::process::Settings;
use sluice_service::tls::{Role, Tls};
#[cfg(feature = "servers")]
use sluice_store::postgres::PgAccess;
use sluice_store::{DEDUPE_MIN, Retention};
use sluice_trace::Trace;

use crate::auth::{Grants, RequiredClaims};
use crate::defaults::{
    LANE_CONNECTIONS, LEAVE_GRACE_S, READ_CONNECTIONS, RETRY_HORIZON, TOKEN_SECRET_BYTES_ASKED,
    TOKEN_SECRET_BYTES_MIN,
};
use crate::stages;

pub use api::ApiSettings;
pub use token_keys::TokenKeys;

/// In the compose files, so that they start without a thought; everybody can read it there.
const PUBLISHED_SECRET: &str = "sluice-default-secret-change-me";

/// The whole configuration; keys as in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Begins all names in etcd, Redis and NATS, so that two deployments can share servers.
    pub prefix: String,
    /// HMAC secret of tokens (HS256), its UTF-8 bytes. At least 16; anonymous users' names are signed with it too. Empty
    /// where only `token_keys` count.
    pub token_secret: Secret,
    /// A file that holds it, instead: one line break at its end is not part of the secret.
    pub token_secret_file: String,
    /// Tokens signed with one of these are valid too: how a secret is replaced without logging anybody out.
    pub token_secrets_accepted: Vec<Secret>,
    /// Public keys that tokens are verified with.
    pub token_keys: TokenKeys,
    /// What every token must say of itself.
    pub token_claims: RequiredClaims,
    /// Whether clients without a token are let in.
    pub anonymous: bool,
    /// What they may do.
    pub anonymous_grants: Grants,
    /// Outbox rows older than this are deleted: gateways have found their messages by themselves, seconds.
    pub repair_bound_s: u64,
    /// How long a user may be away from a room before those who watch it are told, seconds; the same in every logic.
    pub leave_grace_s: u64,
    /// Health and metrics, HTTP.
    pub admin: Admin,
    /// For gateways and tasks.
    pub grpc: Grpc,
    /// The HTTP API, for backends.
    pub api: ApiSettings,
    /// Who services are to each other.
    pub tls: Tls,
    /// Where instances find each other.
    pub etcd: Etcd,
    /// Where other logics are, for a start while etcd is away.
    pub logic: Seeds,
    /// The fan-out queue.
    pub nats: Nats,
    /// The Redis with interest and presence.
    pub redis: Redis,
    /// The store.
    pub postgres: Postgres,
    /// How long messages are kept.
    pub retention: RetentionSettings,
    /// The time for the stop.
    pub shutdown: Shutdown,
    /// The log on stderr.
    pub log: Log,
    /// Where traces go.
    pub trace: Trace,
}

/// `[postgres]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    /// `postgres://user:password@host:port/database`; several hosts with commas, of which one is the primary.
    pub url: SecretUrl,
    /// A file that holds the password, instead; read for each connection.
    pub password_file: String,
    /// Connections that commit, 1…16.
    pub lane_connections: usize,
    /// Connections that read.
    pub read_connections: usize,
}

#[cfg(feature = "servers")]
impl Postgres {
    /// Where it is, and who comes.
    fn access(&self) -> PgAccess {
        PgAccess { url: self.url.clone(), password_file: self.password_file.clone() }
    }
}

/// One that is shorter can be searched for by whoever has a token: RFC 7518, 3.2 asks for as many bits as the hash has.
fn short(key: &str, secret: &str) -> Option<String> {
    let bytes = secret.len();
    // One that is shorter still is an error.
    (TOKEN_SECRET_BYTES_MIN..TOKEN_SECRET_BYTES_ASKED).contains(&bytes).then(|| {
        format!(
            "{key} has {bytes} bytes, HS256 asks for {TOKEN_SECRET_BYTES_ASKED} (RFC 7518): whoever has a token can search \
             for a short secret and then sign others. Replace it by the output of `openssl rand -hex 32`"
        )
    })
}

/// `[retention]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSettings {
    /// Messages older than this go, seconds; 0 = never.
    pub age_s: u64,
    /// Only so many of a room stay; 0 = all.
    pub count: u64,
    /// Messages younger than this always stay, seconds: a resent publish must find its key.
    pub dedupe_min_s: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            prefix: "sluice".into(),
            token_secret: Secret::default(),
            token_secret_file: String::new(),
            token_secrets_accepted: Vec::new(),
            token_keys: TokenKeys::default(),
            token_claims: RequiredClaims::default(),
            anonymous: false,
            anonymous_grants: Grants::all(),
            repair_bound_s: 60,
            leave_grace_s: LEAVE_GRACE_S,
            admin: Admin::at(7071),
            grpc: Grpc::at(7070),
            api: ApiSettings::default(),
            tls: Tls::default(),
            etcd: Etcd::default(),
            logic: Seeds::default(),
            nats: Nats::default(),
            redis: Redis::default(),
            postgres: Postgres::default(),
            retention: RetentionSettings::default(),
            shutdown: Shutdown::with(stages::TIMES),
            log: Log::default(),
            trace: Trace::default(),
        }
    }
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            url: "postgres://sluice@127.0.0.1:5432/sluice".into(),
            password_file: String::new(),
            lane_connections: LANE_CONNECTIONS,
            read_connections: READ_CONNECTIONS,
        }
    }
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self { age_s: 0, count: 0, dedupe_min_s: DEDUPE_MIN.as_secs() }
    }
}

impl Settings for Config {
    const SERVICE: &'static str = "logic";

    fn log(&self) -> &Log {
        &self.log
    }

    fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    fn plan(&self) -> Plan {
        stages::plan(&self.shutdown)
    }

    #[cfg(feature = "servers")]
    fn probes(&self) -> Vec<Probe> {
        let jwks = self.token_keys.source().ok().flatten();
        crate::server_probes::all(
            self.postgres.access(),
            &self.etcd,
            &self.nats,
            &self.redis,
            &self.prefix,
            jwks,
        )
    }

    fn read_files(&mut self) -> Result<(), Vec<String>> {
        let names = ["token_secret", "token_secret_file"];
        let secret = secret::one_of(self.token_secret.reveal(), Path::new(&self.token_secret_file), names);
        self.token_secret = secret.map_err(|error| vec![error.to_string()])?.into();
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        let accepted = self.token_secrets_accepted.iter().map(|secret| ("token_secrets_accepted", secret));
        let secrets = std::iter::once(("token_secret", &self.token_secret)).chain(accepted);
        secrets
            .map(|(key, secret)| (key, secret.reveal()))
            .flat_map(|(key, secret)| [secret::warning(key, secret), short(key, secret)])
            .flatten()
            .chain(self.grpc.warning(&self.tls))
            .chain(self.tls.warning(Role::Logic))
            .chain(self.api.warning())
            .collect()
    }

    fn check(&self) -> Result<(), Vec<String>> {
        let mut wrong = Vec::new();
        // Needed with anonymous users too: their names are proved by tokens, and an empty secret is known to all.
        let bytes = self.token_secret.reveal().len();
        let needed = self.anonymous || !self.token_keys.any() || bytes > 0;
        if needed && bytes < TOKEN_SECRET_BYTES_MIN {
            wrong.push(format!(
                "token_secret has {bytes} bytes, fewer than {TOKEN_SECRET_BYTES_MIN} can be guessed: \
                 export SLUICE_TOKEN_SECRET=$(openssl rand -hex 32), or name a file in SLUICE_TOKEN_SECRET_FILE, the \
                 same for every logic"
            ));
        }
        for secret in &self.token_secrets_accepted {
            let bytes = secret.reveal().len();
            if bytes < TOKEN_SECRET_BYTES_MIN {
                wrong.push(format!(
                    "token_secrets_accepted has one of {bytes} bytes, fewer than {TOKEN_SECRET_BYTES_MIN} can be guessed: \
                     remove it, or what stands before a comma too many"
                ));
            }
        }
        wrong.extend(self.token_keys.check());
        let Postgres { lane_connections, read_connections, .. } = self.postgres;
        if !(1..=usize::from(LANES)).contains(&lane_connections) {
            wrong.push(format!(
                "postgres.lane_connections is {lane_connections}, it must be 1…{LANES}, one a lane at most"
            ));
        }
        if read_connections == 0 {
            wrong
                .push("postgres.read_connections is 0, at least 1 is needed for replay and heads".to_owned());
        }
        if let Err(error) = self.retention.policy().check(RETRY_HORIZON) {
            wrong.push(error.to_string());
        }
        if self.repair_bound_s < 10 {
            let text = "it must be at least 10: gateways look for lost messages of quiet rooms that seldom";
            wrong.push(format!("repair_bound_s is {}, {text}", self.repair_bound_s));
        }
        if !(1..=3_600).contains(&self.leave_grace_s) {
            let text = "it must be 1…3600: whoever moves to another gateway needs some seconds";
            wrong.push(format!("leave_grace_s is {}, {text}", self.leave_grace_s));
        }
        wrong.extend(url::check("postgres.url", self.postgres.url.reveal(), UrlKind::Postgres));
        wrong.extend(unreadable("postgres.password_file", &self.postgres.password_file));
        wrong.extend(url::check("nats.url", self.nats.url.reveal(), UrlKind::Nats));
        wrong.extend(self.nats.check());
        wrong.extend(url::check("redis.url", self.redis.url.reveal(), UrlKind::Redis));
        wrong.extend(self.redis.check());
        wrong.extend(self.logic.check("logic.seeds"));
        wrong.extend(self.grpc.check(&self.tls));
        wrong.extend(self.tls.check(Role::Logic));
        wrong.extend(self.trace.check());
        wrong.extend(self.admin.token().err());
        wrong.extend(self.api.check());
        wrong.extend(self.etcd.check());
        wrong.extend(url::check_all("etcd.endpoints", &self.etcd.endpoints, UrlKind::Etcd));
        wrong.extend(self.shutdown.check(&stages::TIMES_MIN, 0));
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

impl Config {
    /// Whether anybody can sign tokens, because the secret is the one that is published with the compose files.
    #[must_use]
    pub fn secret_is_published(&self) -> bool {
        let mut secrets = std::iter::once(&self.token_secret).chain(&self.token_secrets_accepted);
        secrets.any(|secret| secret.reveal() == PUBLISHED_SECRET)
    }

    /// Outbox rows older than this are deleted.
    #[must_use]
    pub fn repair_bound(&self) -> Duration {
        Duration::from_secs(self.repair_bound_s)
    }
}

impl RetentionSettings {
    /// As the store takes it.
    #[must_use]
    pub fn policy(&self) -> Retention {
        Retention {
            age: (self.age_s > 0).then(|| Duration::from_secs(self.age_s)),
            count: (self.count > 0).then_some(self.count),
            dedupe_min: Duration::from_secs(self.dedupe_min_s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_lack_only_a_secret() {
        let wrong = Config::default().check().expect_err("no secret");
        assert_eq!(wrong.len(), 1);
        assert!(wrong[0].contains("SLUICE_TOKEN_SECRET"));
        let anonymous = Config { anonymous: true, ..Config::default() };
        assert!(anonymous.check().is_err(), "with an empty secret anybody could sign tokens");
        let token_secret = "0123456789abcdef".into();
        assert_eq!(Config { token_secret, ..Config::default() }.check(), Ok(()));
        let token_keys = TokenKeys { jwks_url: "https://id.example/jwks".into(), ..TokenKeys::default() };
        let of_a_provider = Config { token_keys, ..Config::default() };
        assert_eq!(of_a_provider.check(), Ok(()), "whoever has keys needs no secret");
        assert!(Config { anonymous: true, ..of_a_provider }.check().is_err(), "but for anonymous users");
    }

    #[test]
    fn the_secret_of_the_compose_files_is_known_to_be_published() {
        for file in
            [include_str!("../../deploy/compose.yaml"), include_str!("../../deploy/compose.cluster.yaml")]
        {
            let (_, rest) = file.split_once("${SLUICE_TOKEN_SECRET:-").expect("a default");
            let token_secret = rest.split('}').next().expect("its end").into();
            let config = Config { token_secret, ..Config::default() };
            assert!(config.secret_is_published() && config.check().is_ok(), "{file}");
        }
        let token_secret = "0123456789abcdef".into();
        assert!(!Config { token_secret, ..Config::default() }.secret_is_published());
    }

    #[test]
    fn a_secret_in_a_file_loses_one_line_break_and_no_more() {
        let file = std::env::temp_dir().join(format!("sluice-secret-{}", std::process::id()));
        let read = |text: &str| {
            std::fs::write(&file, text).expect("written");
            let token_secret_file = file.display().to_string();
            let mut config = Config { token_secret_file, ..Config::default() };
            config.read_files().map(|()| config)
        };
        let secret = "0123456789abcdef0123456789abcdef";
        for (text, warnings) in [("", 0), ("\n", 0), ("\r\n", 0), ("\n\n", 1), (" \n", 1)] {
            let config = read(&format!("{secret}{text}")).expect("read");
            assert_eq!(
                (config.token_secret.reveal().trim(), config.warnings().len()),
                (secret, warnings),
                "{text:?}"
            );
            assert_eq!(config.check(), Ok(()));
        }
        let mut both = read(secret).expect("read");
        assert!(both.read_files().expect_err("both are set")[0].contains("leave one"));
        std::fs::remove_file(&file).expect("removed");
        let mut gone = Config { token_secret_file: file.display().to_string(), ..Config::default() };
        assert!(gone.read_files().expect_err("no file")[0].contains("cannot be read"));
    }

    #[test]
    fn a_short_secret_is_warned_of_and_no_error() {
        let with = |bytes| Config { token_secret: "s".repeat(bytes).into(), ..Config::default() };
        assert_eq!((with(31).check(), with(31).warnings().len()), (Ok(()), 1));
        assert!(with(31).warnings()[0].contains("RFC 7518"));
        assert_eq!(with(32).warnings(), Vec::<String>::new());
        let old = Config { token_secrets_accepted: vec!["s".repeat(20).into()], ..with(32) };
        assert!(old.warnings()[0].starts_with("token_secrets_accepted has 20 bytes"), "{:?}", old.warnings());
    }

    #[test]
    fn no_secret_is_in_what_is_shown_of_it() {
        let mut config = Config {
            token_secret: "hush-token".into(),
            token_secrets_accepted: vec!["hush-old".into()],
            nats: Nats::at("nats://ann:hush-nats@a:4222,nats://hush-token@b:4222"),
            redis: Redis::at("redis://:hush-redis@a:6379"),
            etcd: Etcd {
                user: "ann".into(),
                password: "hush-etcd".into(),
                ..Etcd::at(["http://u:hush-url@a:2379"])
            },
            ..Config::default()
        };
        config.postgres.url = "postgres://sluice:hush-postgres@a/sluice?password=hush-option".into();
        let shown = format!("{config:?} {config:#?}");
        assert!(!shown.contains("hush"), "{shown}");
        assert!(shown.contains("postgres://sluice:********@a/sluice"), "and the rest is: {shown}");
    }

    #[test]
    fn contradictions_are_all_named() {
        let config = Config {
            token_secret: "short".into(),
            token_secrets_accepted: vec!["short too".into()],
            repair_bound_s: 1,
            leave_grace_s: 0,
            grpc: Grpc { listen: "0.0.0.0:7070".parse().expect("an address"), ..Grpc::default() },
            tls: Tls { cert: "logic.pem".into(), ..Tls::default() },
            retention: RetentionSettings { age_s: 10, count: 0, dedupe_min_s: 60 },
            shutdown: Shutdown { total_ms: 100, ..Shutdown::with(stages::TIMES) },
            postgres: Postgres { lane_connections: 99, read_connections: 0, ..Postgres::default() },
            ..Config::default()
        };
        assert_eq!(config.check().expect_err("ten mistakes").len(), 10);
    }
}
