//! What makes a server let in only who shows a certificate of the authority and knows the password: files in a folder of
//! its own, and the options that name them. It starts and asks nobody.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::process::Command;

use super::Store;
use crate::access::{Access, Credentials, private};
use crate::certs::{self, Files};
use crate::error::Error;
use crate::folder::Owner;
use crate::service::Service;

/// Folder beside the data.
pub(super) const SECURED: &str = "secured";
/// Handshakes on a machine that is busy take longer than NATS waits by itself, seconds.
const HANDSHAKE_S: u32 = 10;
/// Who may come to PostgreSQL, and how; also for a copy of it.
pub(super) const HBA: &str = "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n\
                   hostssl replication all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n";
/// What stands in a value of a URL as it is.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_');

/// Files and passwords of one server.
#[derive(Debug, Clone)]
pub(super) struct Secured {
    pub(super) access: Arc<Access>,
    dir: PathBuf,
    pub(super) tls: Files,
}

impl Secured {
    /// Makes them anew: nobody has a certificate of before written down.
    pub(super) fn prepare(
        access: &Arc<Access>,
        service: Service,
        name: &str,
        data: &Path,
        owner: Option<&Owner>,
    ) -> Result<Self, Error> {
        let dir = data.join(SECURED);
        private(&dir)?;
        let tls = access.certify(name, &dir)?;
        let secured = Self { access: Arc::clone(access), dir, tls };
        if service == Service::Postgres {
            certs::write(&secured.password_file(), access.password(service), 0o600)?;
            certs::write(&secured.hba(), HBA, 0o600)?;
        }
        // The server is another user than we are: it reads none of root's private files.
        if let Some(owner) = owner {
            let Files { ca, cert, key } = &secured.tls;
            let (password, hba) = (secured.password_file(), secured.hba());
            for path in [ca, cert, key, &password, &hba, &secured.dir] {
                owner.give(path)?;
            }
        }
        Ok(secured)
    }

    /// The password that PostgreSQL's cluster of databases is made with, where its user can read it.
    pub(super) fn password_file(&self) -> PathBuf {
        self.dir.join("password")
    }

    /// A certificate for its Patroni, as who asks etcd: that takes the name in a server's for a user's.
    pub(super) fn certify_patroni(&self, owner: Option<&Owner>) -> Result<Files, Error> {
        let dir = self.dir.join("patroni");
        private(&dir)?;
        let files = self.access.certify_operator(&dir)?;
        for path in [&files.ca, &files.cert, &files.key, &dir] {
            owner.iter().try_for_each(|owner| owner.give(path))?;
        }
        Ok(files)
    }

    fn hba(&self) -> PathBuf {
        self.dir.join("pg_hba.conf")
    }

    pub(super) fn nats_conf(&self) -> PathBuf {
        self.dir.join("nats.conf")
    }

    /// `?sslmode=…` of a URL of PostgreSQL.
    pub(super) fn postgres_options(files: &Files) -> String {
        let value = |file: &Path| utf8_percent_encode(&file.display().to_string(), KEPT).to_string();
        let Files { ca, cert, key } = files;
        let (ca, cert, key) = (value(ca), value(cert), value(key));
        format!("?sslmode=verify-full&sslrootcert={ca}&sslcert={cert}&sslkey={key}")
    }

    pub(super) fn add_to(&self, service: Service, command: &mut Command) {
        let Files { ca, cert, key } = &self.tls;
        match service {
            Service::Nats => {
                command.arg("-c").arg(self.nats_conf());
            }
            Service::Etcd => {
                for (of, asks) in [("", "--client-cert-auth"), ("peer-", "--peer-client-cert-auth")] {
                    command.arg(asks);
                    for (what, file) in [("cert-file", cert), ("key-file", key), ("trusted-ca-file", ca)] {
                        command.arg(format!("--{of}{what}")).arg(file);
                    }
                }
            }
            Service::Postgres => {
                let hba = self.hba();
                let files =
                    [("ssl_ca_file", ca), ("ssl_cert_file", cert), ("ssl_key_file", key), ("hba_file", &hba)];
                command.args(["-c", "ssl=on"]);
                for (setting, file) in files {
                    command.arg("-c").arg(format!("{setting}={}", file.display()));
                }
            }
            // Theirs are in the file that they read.
            Service::Redis | Service::Sentinel => {}
            Service::Haproxy | Service::Gateway | Service::Logic | Service::Task => {}
        }
    }

    /// The lines of a file of NATS, which knows neither TLS of its members nor passwords as options.
    pub(super) fn nats(&self, store: &Store) -> String {
        let Credentials { user, password, .. } = self.access.credentials(Service::Nats, None);
        let user = user.unwrap_or_default();
        let Files { ca, cert, key } = &self.tls;
        let asks = format!(
            "authorization {{ user: {user}, password: {password:?}, timeout: {HANDSHAKE_S} }}\n\
             tls {{ cert_file: {cert:?}, key_file: {key:?}, ca_file: {ca:?}, verify: true, timeout: {HANDSHAKE_S} }}\n"
        );
        if store.group.is_alone() {
            return asks;
        }
        let routes = store.group.routes(&format!("{user}:{password}@"));
        let routes: Vec<String> = routes.iter().map(|route| format!("{route:?}")).collect();
        format!(
            "{asks}cluster {{\nname: {}\nlisten: {:?}\n{asks}routes: [{}]\n}}\n",
            super::PRIMARY,
            store.listens()[1],
            routes.join(", ")
        )
    }

    /// Lines of the file of a Redis or a sentinel, instead of `port`.
    pub(super) fn redis(&self, service: Service, port: u16) -> String {
        let Files { ca, cert, key } = &self.tls;
        let (own, servers) = (self.access.password(service), self.access.password(Service::Redis));
        let mut text = format!(
            "port 0\ntls-port {port}\ntls-cert-file \"{}\"\ntls-key-file \"{}\"\ntls-ca-cert-file \"{}\"\n\
             tls-auth-clients yes\ntls-replication yes\nrequirepass {own}\n",
            cert.display(),
            key.display(),
            ca.display()
        );
        if service == Service::Redis {
            // Writing to a string cannot fail. The bus of a cluster is no client: it knows whom it is with by TLS alone.
            writeln!(text, "masterauth {servers}\ntls-cluster yes").ok();
        }
        text
    }
}
