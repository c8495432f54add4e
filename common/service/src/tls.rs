//! Mutual TLS between services: the section `[tls]`, and who is who. A certificate says which service its holder is,
//! by a DNS name that is the same for all instances: instances move, services do not. Accepts and dials nothing.

mod credentials;
pub mod expiry;
mod identity;
mod notice;
mod reason;

use std::fmt;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use serde::{Deserialize, Serialize};

pub use credentials::{BadCredentials, Credentials};
pub use identity::Identity;
pub(crate) use reason::{Reason, of_client, of_server};

/// A service, as certificates name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// `gateway.sluice`
    Gateway,
    /// `logic.sluice`
    Logic,
    /// `task.sluice`
    Task,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gateway, Self::Logic, Self::Task];

    /// The service's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Logic => "logic",
            Self::Task => "task",
        }
    }

    /// The DNS name that a certificate of this service has among its alternative names.
    #[must_use]
    pub const fn dns_name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway.sluice",
            Self::Logic => "logic.sluice",
            Self::Task => "task.sluice",
        }
    }

    /// The same for TLS.
    pub(crate) fn server_name(self) -> ServerName<'static> {
        #[expect(clippy::expect_used, reason = "three constants, each tried by a test")]
        ServerName::try_from(self.dns_name()).expect("a DNS name")
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The services that a verified certificate names; usually one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roles(Vec<Role>);

impl Roles {
    /// Reads them from a certificate whose chain was verified.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return Self(Vec::new()) };
        let named = |role: &Role| rustls::client::verify_server_name(&parsed, &role.server_name()).is_ok();
        Self(Role::ALL.into_iter().filter(named).collect())
    }

    pub(crate) fn is_one_of(&self, allowed: &[Role]) -> bool {
        self.0.iter().any(|role| allowed.contains(role))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|role| role.as_str()).collect();
        f.write_str(&names.join(" and "))
    }
}

/// `[tls]`: PEM files. All empty: services trust whoever reaches their ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The authorities whose certificates are believed; several while one replaces another.
    pub ca: String,
    /// The certificate of this service, then those between it and the authority.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

impl Tls {
    /// Whether services have to show who they are.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        !(self.ca.is_empty() && self.cert.is_empty() && self.key.is_empty())
    }

    /// What is wrong with the files, for this service: a sentence with its fix.
    #[must_use]
    pub fn check(&self, role: Role) -> Option<String> {
        if !self.is_on() {
            return None;
        }
        let files = [("tls.ca", &self.ca), ("tls.cert", &self.cert), ("tls.key", &self.key)];
        let missing: Vec<_> = files.iter().filter(|(_, file)| file.is_empty()).map(|(key, _)| *key).collect();
        if !missing.is_empty() {
            let missing = missing.join(" and ");
            return Some(format!("{missing}: not set, but tls.ca, tls.cert and tls.key need each other"));
        }
        Credentials::load(self, role).err().map(|error| error.to_string())
    }

    /// What will soon be wrong with them.
    #[must_use]
    pub fn warning(&self, role: Role) -> Option<String> {
        let credentials = self.is_on().then(|| Credentials::load(self, role).ok()).flatten()?;
        credentials.ends_soon().then(|| {
            format!("tls.cert {:?} expires within 30 days: renew it, for example with `sluice certs --dir certs --renew`; the \
                     file is read again by itself", self.cert)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_is_a_dns_name() {
        for role in Role::ALL {
            assert_eq!(role.server_name().to_str(), role.dns_name());
            assert!(role.dns_name().starts_with(role.as_str()));
        }
    }

    #[test]
    fn the_three_files_need_each_other() {
        assert_eq!(Tls::default().check(Role::Logic), None);
        let one = Tls { cert: "logic.pem".into(), ..Tls::default() };
        assert_eq!(
            one.check(Role::Logic).as_deref(),
            Some("tls.ca and tls.key: not set, but tls.ca, tls.cert and tls.key need each other")
        );
    }
}
