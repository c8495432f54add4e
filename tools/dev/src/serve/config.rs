//! The settings of `sluice serve`: those of the services that have a meaning in one process, under the names they have
//! there, and where its data is. What is not here, as every server below, it brings itself.

use serde::{Deserialize, Serialize};
use sluice_access::Secret;
use sluice_gateway::config::{Config as GatewayConfig, Drain, Limits};
use sluice_lifecycle::Plan;
use sluice_logic::auth::RequiredClaims;
use sluice_logic::config::{ApiSettings, Config as LogicConfig, RetentionSettings, TokenKeys};
use sluice_service::config::Address;
use sluice_service::config::sections::{Admin, Log, Shutdown, StageTimes};
use sluice_service::process::Settings;
use sluice_trace::Trace;

use crate::stages;

/// Where the API is unless configured: where `sluice api` looks for it.
const API_PORT: u16 = 7073;

/// The whole configuration; keys as in the file. Environment `SLUICE_…`, `__` between levels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServeConfig {
    /// Folder of the messages, for this process alone; made when missing.
    pub dir: String,
    /// Where clients connect, `address:port`: a gateway for each. With two, one is rolled while the other serves.
    pub listen: Vec<Address>,
    /// The `ws://` or `wss://` URL clients reach them by, through the proxy before them; empty: made from each address.
    pub advertise: String,
    /// Browser origins that may connect besides the gateway's own host, exactly as browsers send them.
    pub origins: Vec<String>,
    /// Names by which clients may call a gateway, without port; empty: any.
    pub hosts: Vec<String>,
    /// Shards of each gateway; 0 = one per core.
    pub shards: usize,
    /// Most connections at once, of each gateway.
    pub connections_max: usize,
    /// Addresses and networks of the proxies before the gateways: what they say about where clients come from is believed.
    pub trusted_proxies: Vec<String>,
    /// What clients may do in a second, and hold.
    pub limits: Limits,
    /// Seconds between protocol pings.
    pub ping_every_s: u64,
    /// Seconds to wait for a pong.
    pub ping_timeout_s: u64,
    /// Seconds a client may take no byte while something is queued for it.
    pub slow_timeout_s: u64,
    /// Seconds before the end of a token at which its client is told, at most a fifth of what is left of its life; 0: never.
    pub token_expiring_s: u64,
    /// Messages a subscriber that was up to date may fall behind before it is told `skipped`.
    pub max_behind: u64,
    /// How clients leave.
    pub drain: Drain,
    /// HMAC secret of tokens (HS256), its UTF-8 bytes. Empty where only `token_keys` count.
    pub token_secret: Secret,
    /// A file that holds it, instead.
    pub token_secret_file: String,
    /// Tokens signed with one of these are valid too: how a secret is replaced without logging anybody out.
    pub token_secrets_accepted: Vec<Secret>,
    /// Public keys that tokens are verified with.
    pub token_keys: TokenKeys,
    /// What every token must say of itself.
    pub token_claims: RequiredClaims,
    /// How long a user may be away from a room before those who watch it are told, seconds.
    pub leave_grace_s: u64,
    /// How long messages are kept.
    pub retention: RetentionSettings,
    /// The HTTP API, for backends; `api.listen` empty: nowhere.
    pub api: ApiSettings,
    /// The page of the process: health, status and metrics of all services, and their restart.
    pub admin: Admin,
    /// The time for the stop.
    pub shutdown: Shutdown,
    /// The log on stderr.
    pub log: Log,
    /// Where traces of all services go.
    pub trace: Trace,
}

impl Default for ServeConfig {
    fn default() -> Self {
        let gateway = GatewayConfig::default();
        let logic = LogicConfig::default();
        Self {
            dir: "data".into(),
            listen: vec![Address::local(8080), Address::local(8090)],
            advertise: gateway.advertise,
            origins: gateway.origins,
            hosts: gateway.hosts,
            shards: gateway.shards,
            connections_max: gateway.connections_max,
            trusted_proxies: gateway.trusted_proxies,
            limits: gateway.limits,
            ping_every_s: gateway.ping_every_s,
            ping_timeout_s: gateway.ping_timeout_s,
            slow_timeout_s: gateway.slow_timeout_s,
            token_expiring_s: gateway.token_expiring_s,
            max_behind: gateway.max_behind,
            drain: gateway.drain,
            token_secret: logic.token_secret,
            token_secret_file: logic.token_secret_file,
            token_secrets_accepted: logic.token_secrets_accepted,
            token_keys: logic.token_keys,
            token_claims: logic.token_claims,
            leave_grace_s: logic.leave_grace_s,
            retention: logic.retention,
            api: ApiSettings { listen: Address::local(API_PORT).as_str().into(), ..logic.api },
            admin: Admin::at(8081),
            shutdown: Shutdown::with(stages::TIMES),
            log: logic.log,
            trace: logic.trace,
        }
    }
}

impl Settings for ServeConfig {
    const SERVICE: &'static str = "serve";

    fn program() -> String {
        "sluice serve".to_owned()
    }

    fn log(&self) -> &Log {
        &self.log
    }

    fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    fn plan(&self) -> Plan {
        stages::plan_of(&self.shutdown)
    }

    fn read_files(&mut self) -> Result<(), Vec<String>> {
        let mut logic = self.logic();
        logic.read_files()?;
        self.token_secret = logic.token_secret;
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        // An advertised wss:// is a proxy; without one the words of the addresses suffice.
        let open = self.listen.iter().filter(|listen| !listen.is_loopback());
        let open = open.map(|listen| {
            format!(
                "listen has {listen}, where tokens and messages travel as they are: put a proxy with TLS before it \
                 (docs/serve.md), or keep strangers out of that network"
            )
        });
        let admin = (!self.admin.listen.is_loopback()).then(|| {
            format!(
                "admin.listen is {}, where whoever reaches it may read: health, status and metrics",
                self.admin.listen
            )
        });
        open.chain(admin).chain(self.logic().warnings()).collect()
    }

    fn check(&self) -> Result<(), Vec<String>> {
        let logic = self.logic();
        let mut wrong = logic.check().err().unwrap_or_default();
        if self.token_secret.is_empty() && !self.token_keys.any() {
            // In the words of a service, which has no `--init`.
            wrong.retain(|text| !text.starts_with("token_secret "));
            wrong.insert(0, NO_TOKENS.to_owned());
        }
        if logic.secret_is_published() {
            wrong.push(
                "the token secret is the one that is published with the compose files, so anybody could sign tokens: \
                 replace it by the output of `openssl rand -hex 32`"
                    .to_owned(),
            );
        }
        if self.dir.is_empty() {
            wrong.push(
                "dir is empty: name the folder of the messages, for example /var/lib/sluice".to_owned(),
            );
        }
        if self.listen.is_empty() {
            let example = r#"["127.0.0.1:8080", "127.0.0.1:8090"]"#;
            wrong.push(format!("listen is empty: name an address for each gateway, for example {example}"));
        }
        for (at, listen) in self.listen.iter().enumerate() {
            if !listen.as_str().ends_with(":0") && self.listen[..at].contains(listen) {
                wrong.push(format!("listen has {listen} twice: each gateway has an address of its own"));
            }
        }
        if !self.admin.listen.is_loopback() && self.admin.token_file.is_empty() {
            wrong.push(format!(
                "admin.listen is {}, where others could restart services: name a file with the output of \
                 `openssl rand -hex 32` in admin.token_file, or listen on loopback",
                self.admin.listen
            ));
        }
        wrong.extend(self.admin.token().err());
        let cut: Vec<String> = self.shutdown.check(&stages::TIMES, 0).collect();
        // A gateway's time is made of it: what is wrong with both is said once.
        if cut.is_empty() {
            wrong.extend(self.gateway(&Address::local(0)).check().err().unwrap_or_default());
        }
        wrong.extend(cut);
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

/// The next step of whoever has set neither.
const NO_TOKENS: &str = "nobody is let in without a token, and neither token_secret nor token_keys says which are good: \
    `sluice serve --init` writes a file with a fresh secret; or export SLUICE_TOKEN_SECRET=$(openssl rand -hex 32), or name a \
    provider in token_keys.jwks_url";

impl ServeConfig {
    /// What a gateway is told, but for where the others of this process find it.
    pub(super) fn gateway(&self, listen: &Address) -> GatewayConfig {
        let mut config = GatewayConfig {
            listen: listen.clone(),
            advertise: self.advertise.clone(),
            origins: self.origins.clone(),
            hosts: self.hosts.clone(),
            shards: self.shards,
            connections_max: self.connections_max,
            trusted_proxies: self.trusted_proxies.clone(),
            limits: self.limits.clone(),
            ping_every_s: self.ping_every_s,
            ping_timeout_s: self.ping_timeout_s,
            slow_timeout_s: self.slow_timeout_s,
            token_expiring_s: self.token_expiring_s,
            max_behind: self.max_behind,
            drain: self.drain.clone(),
            shutdown: self.gateway_shutdown(),
            ..GatewayConfig::default()
        };
        config.retention.dedupe_min_s = self.retention.dedupe_min_s;
        config
    }

    /// All stages of a gateway happen in one of the process: what that has more than the usual is for clients to leave.
    fn gateway_shutdown(&self) -> Shutdown {
        let mut stages = sluice_gateway::stages::TIMES;
        let others = StageTimes { drain_ms: 0, ..stages }.sum_ms() + self.drain.accept_grace_ms;
        let all = self.shutdown.stages.drain_ms;
        stages.drain_ms = all.saturating_sub(others);
        let shutdown = Shutdown::with(stages);
        Shutdown { total_ms: shutdown.total_ms.max(all), ..shutdown }
    }

    /// What the logic is told, but for where the others of this process find it.
    pub(super) fn logic(&self) -> LogicConfig {
        LogicConfig {
            token_secret: self.token_secret.clone(),
            token_secret_file: self.token_secret_file.clone(),
            token_secrets_accepted: self.token_secrets_accepted.clone(),
            token_keys: self.token_keys.clone(),
            token_claims: self.token_claims.clone(),
            leave_grace_s: self.leave_grace_s,
            api: self.api.clone(),
            retention: self.retention.clone(),
            trace: self.trace.clone(),
            ..LogicConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> ServeConfig {
        ServeConfig {
            token_secret: "0123456789abcdef0123456789abcdef".into(),
            api: ApiSettings { listen: String::new(), ..ApiSettings::default() },
            ..ServeConfig::default()
        }
    }

    fn wrong(config: &ServeConfig) -> String {
        config.check().expect_err("something is wrong").join("\n")
    }

    #[test]
    fn the_defaults_lack_tokens_and_keys_of_the_api_alone() {
        let lacks = ServeConfig::default().check().expect_err("no tokens");
        assert_eq!(lacks.len(), 2, "{lacks:?}");
        assert!(lacks[0].contains("sluice serve --init") && lacks[1].contains("api.keys_file"), "{lacks:?}");
        assert_eq!(good().check(), Ok(()));
        assert_eq!(good().warnings(), [""; 0]);
        let token_keys = TokenKeys { jwks_url: "https://id.example/jwks".into(), ..TokenKeys::default() };
        assert_eq!(ServeConfig { token_keys, token_secret: Secret::default(), ..good() }.check(), Ok(()));
    }

    #[test]
    fn what_would_let_strangers_in_is_refused() {
        let token_secret = "sluice-default-secret-change-me".into();
        assert!(wrong(&ServeConfig { token_secret, ..good() }).contains("published"));
        let admin = Admin { listen: "0.0.0.0:8081".parse().expect("an address"), ..Admin::default() };
        assert!(wrong(&ServeConfig { admin, ..good() }).contains("admin.token_file"));
        let listen = vec!["0.0.0.0:8080".parse().expect("an address")];
        let open = ServeConfig { listen, ..good() };
        assert_eq!(open.check(), Ok(()));
        assert!(open.warnings()[0].contains("proxy with TLS"), "{:?}", open.warnings());
    }

    #[test]
    fn a_gateway_may_take_what_the_process_gives_it() {
        let time = |config: &ServeConfig| config.gateway(&Address::local(0)).shutdown.stages.drain_ms;
        assert_eq!(time(&good()), sluice_gateway::stages::TIMES.drain_ms);
        let mut patient = good();
        patient.shutdown.stages.drain_ms += 10_000;
        assert!(wrong(&patient).contains("shutdown.total_ms"));
        patient.shutdown.total_ms += 10_000;
        assert_eq!(patient.check(), Ok(()));
        assert_eq!(time(&patient), sluice_gateway::stages::TIMES.drain_ms + 10_000);
        patient.drain.accept_grace_ms = 20_000;
        assert!(patient.check().is_err(), "nothing would be left for the clients");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert!(wrong(&ServeConfig { listen: Vec::new(), ..good() }).contains("listen is empty"));
        let listen = vec![Address::local(8080), Address::local(8080)];
        assert!(wrong(&ServeConfig { listen, ..good() }).contains("twice"));
        assert!(wrong(&ServeConfig { dir: String::new(), ..good() }).contains("/var/lib/sluice"));
        let hasty = Shutdown { total_ms: 1_000, ..Shutdown::with(stages::TIMES) };
        assert!(wrong(&ServeConfig { shutdown: hasty, ..good() }).contains("shutdown.total_ms"));
    }
}
