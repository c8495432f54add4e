//! A PostgreSQL of three members that Patroni looks after, and the HAProxy that leads to its primary: their files, and what
//! a member is asked. A commit waits for a standby, and only that one is promoted.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::Command;

use super::secured::HBA;
use super::{Store, postmaster};
use crate::certs::{self, Files};
use crate::defaults::{POSTGRES_CONNECTIONS, PROBE, SWITCHOVER};
use crate::error::Error;
use crate::find;
use crate::probe::{self, Way};
use crate::service::Service;

/// What members call their cluster.
const SCOPE: &str = "sluice";
/// What a member reads.
pub(super) const PATRONI_CONF: &str = "patroni.yaml";
/// What HAProxy reads.
pub(super) const HAPROXY_CONF: &str = "haproxy.cfg";
/// A primary that says nothing is followed by its standby after this, seconds: the least that Patroni takes.
const TTL_S: u32 = 20;
/// Between two looks of a member, seconds; with twice the patience for etcd below the one above, as Patroni demands.
const LOOP_S: u32 = 2;
/// Patience with etcd and PostgreSQL, seconds.
const RETRY_S: u32 = 5;

/// The program, for members of a PostgreSQL that has several.
pub(super) fn program(service: Service, grouped: bool) -> Result<Option<PathBuf>, Error> {
    (service == Service::Postgres && grouped).then(find::patroni).transpose()
}

/// The lines of a member's file that say who is let in, and how it is let in itself; there are more where it is secured.
struct Authentication {
    etcd: String,
    restapi: String,
    /// The rules of `pg_hba.conf`, and what `initdb` writes before them.
    hba: String,
    initdb: &'static str,
    /// How members and Patroni come to PostgreSQL.
    login: String,
    parameters: String,
    /// How `patronictl` and members ask each other's Patroni.
    ctl: String,
}

impl Authentication {
    fn of(store: &Store) -> Result<Self, Error> {
        let Some(secured) = &store.secured else {
            return Ok(Self {
                etcd: String::new(),
                restapi: String::new(),
                hba: "host all all 127.0.0.1/32 trust, host replication all 127.0.0.1/32 trust".to_owned(),
                initdb: "trust",
                login: "username: postgres".to_owned(),
                parameters: String::new(),
                ctl: String::new(),
            });
        };
        let Files { ca, cert, key } = &secured.tls;
        let own = secured.certify_patroni(store.owner.as_ref())?;
        let credentials = secured.access.credentials(Service::Etcd, None);
        let (user, etcd) = (credentials.user.unwrap_or_default(), credentials.password);
        let postgres = secured.access.password(Service::Postgres);
        let Files { cert: own_cert, key: own_key, .. } = &own;
        Ok(Self {
            etcd: format!(
                ", protocol: https, cacert: {ca:?}, cert: {own_cert:?}, key: {own_key:?}, username: {user}, \
                 password: {etcd}"
            ),
            // Who changes something shows a certificate; HAProxy, which only asks, need not.
            restapi: format!(
                ", certfile: {cert:?}, keyfile: {key:?}, cafile: {ca:?}, verify_client: optional"
            ),
            hba: HBA.trim_end().replace('\n', ", "),
            initdb: "scram-sha-256",
            login: format!(
                "username: postgres, password: {postgres}, sslmode: verify-ca, sslrootcert: {ca:?}, \
                 sslcert: {cert:?}, sslkey: {key:?}"
            ),
            parameters: format!(
                ", ssl: 'on', ssl_ca_file: {ca:?}, ssl_cert_file: {cert:?}, ssl_key_file: {key:?}"
            ),
            ctl: format!("ctl: {{cacert: {ca:?}, certfile: {own_cert:?}, keyfile: {own_key:?}}}\n"),
        })
    }
}

/// The file of a member; `etcds`: `host:port` of each.
pub(super) fn write_member(store: &Store, etcds: &[String]) -> Result<(), Error> {
    let ([own, rest], name) = (store.listens(), store.name());
    let (told, told_rest) = (store.address(), store.peer_address());
    let (data, pgpass) = (store.data.join("data"), store.data.join("pgpass"));
    let bin = store.binary.parent().unwrap_or(Path::new("/"));
    let Authentication { etcd, restapi, hba, initdb, login, parameters, ctl } = Authentication::of(store)?;
    let text = format!(
        "scope: {SCOPE}\nnamespace: /patroni/\nname: {name}\n\
         etcd3: {{hosts: {etcds:?}{etcd}}}\n\
         restapi: {{listen: {rest:?}, connect_address: {told_rest:?}{restapi}}}\n{ctl}\
         bootstrap:\n\
         \x20 dcs:\n\
         \x20   ttl: {TTL_S}\n\
         \x20   loop_wait: {LOOP_S}\n\
         \x20   retry_timeout: {RETRY_S}\n\
         \x20   synchronous_mode: true\n\
         \x20   synchronous_mode_strict: true\n\
         \x20   failsafe_mode: true\n\
         \x20   postgresql:\n\
         \x20     use_pg_rewind: true\n\
         \x20     parameters: {{max_connections: {POSTGRES_CONNECTIONS}, wal_keep_size: 128MB, timezone: UTC}}\n\
         \x20 initdb: [{{encoding: UTF8}}, no-locale, data-checksums, {{auth: {initdb}}}]\n\
         \x20 pg_hba: [{hba}]\n\
         postgresql:\n\
         \x20 listen: {own:?}\n\
         \x20 connect_address: {told:?}\n\
         \x20 data_dir: {data:?}\n\
         \x20 bin_dir: {bin:?}\n\
         \x20 pgpass: {pgpass:?}\n\
         \x20 authentication: {{superuser: {{{login}}}, replication: {{{login}}}}}\n\
         \x20 parameters: {{unix_socket_directories: ''{parameters}}}\n\
         \x20 remove_data_directory_on_rewind_failure: true\n\
         \x20 remove_data_directory_on_diverged_timelines: true\n"
    );
    let file = store.data.join(PATRONI_CONF);
    certs::write(&file, &text, 0o600)?;
    store.owner.iter().try_for_each(|owner| owner.give(&file))
}

/// The file of HAProxy: it leads to the member that says it is the primary, and says itself whether there is one. TLS of
/// PostgreSQL it passes on as it is.
pub(super) fn write_balancer(store: &Store, members: &[&Store]) -> Result<(), Error> {
    let tls = match &store.secured {
        Some(secured) => format!(" check-ssl verify required ca-file {}", secured.tls.ca.display()),
        None => String::new(),
    };
    let servers: String = members
        .iter()
        .map(|member| {
            let (name, port) = (member.name(), member.peer_port());
            format!("    server {name} {} check port {port}{tls}\n", member.address())
        })
        .collect();
    let text = format!(
        "global\n    maxconn 2000\n\
         defaults\n    timeout connect 1s\n    timeout client 1h\n    timeout server 1h\n    timeout check 2s\n\
         frontend ready\n    mode http\n    bind {}\n    monitor-uri /ready\n    \
         monitor fail unless {{ nbsrv(primary) eq 1 }}\n\
         frontend postgres\n    mode tcp\n    bind {}\n    default_backend primary\n\
         backend primary\n    mode tcp\n    option httpchk\n    http-check send meth GET uri /primary\n    \
         http-check expect status 200\n    \
         default-server inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions\n{servers}",
        store.peer_address(),
        store.address()
    );
    certs::write(&store.data.join(HAPROXY_CONF), &text, 0o600)
}

impl Store {
    pub(super) fn has_patroni(&self) -> bool {
        self.patroni.is_some()
    }

    async fn said(&self, path: &str) -> Result<(u16, Value), String> {
        let address = self.peer_address();
        // HAProxy says it in clear, where it leads to the primary it knows nothing itself.
        let way = if self.service == Service::Haproxy { Way::clear(&address) } else { self.way(&address) };
        let answer = probe::http(&way, "GET", path, ("Accept", "*/*"), "", PROBE).await;
        let answer = answer.map_err(|error| error.to_string())?;
        Ok((answer.status, serde_json::from_str(&answer.body).unwrap_or_default()))
    }

    /// Whether its own Patroni, or HAProxy for all of them, answers this with 200.
    pub(super) async fn says_yes(&self, path: &str) -> Result<(), String> {
        match self.said(path).await? {
            (200, _) => Ok(()),
            (status, _) => Err(format!("{status} to {path}")),
        }
    }

    /// Whether it holds the leader's key.
    pub(crate) async fn is_primary(&self) -> bool {
        self.says_yes("/primary").await.is_ok()
    }

    /// How often a standby was promoted before, and once; as this member has it.
    pub(crate) async fn timeline(&self) -> Option<u64> {
        if !self.has_patroni() {
            return None;
        }
        self.said("/cluster").await.ok()?.1["members"]
            .as_array()?
            .iter()
            .find(|member| member["role"] == "leader")?["timeline"]
            .as_u64()
    }

    /// Whether it follows, or is followed: there are a primary and a standby that commits wait for, and it is whole.
    pub(super) async fn has_joined_patroni(&self) -> Result<(), String> {
        let (_, cluster) = self.said("/cluster").await?;
        let members = cluster["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        let runs = |member: &&Value| member["state"] == "running" || member["state"] == "streaming";
        let has = |role: &str| members.iter().filter(runs).any(|member| member["role"] == role);
        let own = members.iter().filter(runs).find(|member| member["name"] == self.name().as_str());
        let follows = own.is_some_and(|own| own["role"] == "leader" || own["lag"].is_u64());
        if has("leader") && has("sync_standby") && follows {
            return Ok(());
        }
        Err(format!("no primary, no synchronous standby, or it does not follow yet: {cluster}"))
    }

    /// Signals the PostgreSQL of a member; `false` where Patroni runs none, or there is no Patroni.
    pub(crate) fn signal_postmaster(&self, signal: Signal) -> bool {
        self.has_patroni() && postmaster::signal(&self.data.join("data"), signal)
    }

    pub(crate) fn has_postmaster(&self) -> bool {
        self.postmaster().is_some()
    }

    /// Has the synchronous standby take over from this primary, which follows it then.
    pub(crate) async fn switch_over(&self) -> Result<(), Error> {
        let failed = |why: String| Error::System(format!("patronictl switchover: {why}"));
        let program = self.patroni.as_ref().map(|patroni| patroni.with_file_name("patronictl"));
        let program = program.ok_or_else(|| failed("PostgreSQL has no Patroni".to_owned()))?;
        let mut ask = self.of(Command::new(program));
        ask.arg("-c").arg(self.data.join(PATRONI_CONF));
        ask.args(["switchover", SCOPE, "--primary", &self.name(), "--force"]);
        let ask = ask.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(SWITCHOVER, ask).await;
        let output = output.map_err(|_| failed(format!("nothing after {SWITCHOVER:?}")))?;
        let output = output.map_err(|error| failed(error.to_string()))?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        // It ends with 0 also when it was refused.
        if said.contains("Successfully switched over") { Ok(()) } else { Err(failed(said)) }
    }
}
