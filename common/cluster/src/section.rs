//! The section `[etcd]`: where the servers are, and how they let a service in.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_access::{Secret, SecretUrl, TlsFiles, unreadable};

/// The shortest lease that etcd grants, seconds.
const LEASE_TTL_MIN_S: u64 = 2;

/// `[etcd]`. An empty name of a file means that there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Etcd {
    /// URLs of the servers, `http://host:port`, or `https://host:port` to insist on TLS.
    pub endpoints: Vec<SecretUrl>,
    /// How long a silent instance counts as there, seconds.
    pub lease_ttl_s: u64,
    /// Who this is, where etcd asks for it.
    pub user: String,
    /// The user's password.
    pub password: Secret,
    /// A file that holds it, instead.
    pub password_file: String,
    /// PEM file of the authority that signed the servers' certificates, instead of those of the system.
    pub ca_file: String,
    /// PEM file of the certificate that is shown to the servers; needs `key_file`.
    pub cert_file: String,
    /// PEM file of that certificate's private key.
    pub key_file: String,
}

impl Default for Etcd {
    fn default() -> Self {
        Self::at(["http://127.0.0.1:2379"])
    }
}

impl Etcd {
    /// These servers, which let everybody in.
    #[must_use]
    pub fn at<T: Into<SecretUrl>>(endpoints: impl IntoIterator<Item = T>) -> Self {
        let none = String::new;
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            lease_ttl_s: 10,
            user: none(),
            password: Secret::default(),
            password_file: none(),
            ca_file: none(),
            cert_file: none(),
            key_file: none(),
        }
    }

    /// How long a silent instance counts as there.
    #[must_use]
    pub const fn lease_ttl(&self) -> Duration {
        Duration::from_secs(self.lease_ttl_s)
    }

    /// The servers, as the client takes them.
    #[cfg(feature = "etcd")]
    pub(crate) fn urls(&self) -> Vec<&str> {
        self.endpoints.iter().map(SecretUrl::reveal).collect()
    }

    /// The files of TLS.
    #[must_use]
    pub fn tls(&self) -> TlsFiles<'_> {
        let Self { ca_file, cert_file, key_file, .. } = self;
        TlsFiles { section: "etcd", ca_file, cert_file, key_file }
    }

    /// What contradicts itself besides the URLs, and the files that cannot be read; each a sentence with its fix.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let Self { endpoints, lease_ttl_s: ttl, user, password, password_file, .. } = self;
        let nowhere =
            endpoints.is_empty().then(|| "etcd.endpoints is empty: name at least one URL".to_owned());
        let short = (*ttl < LEASE_TTL_MIN_S)
            .then(|| format!("etcd.lease_ttl_s is {ttl}, etcd grants {LEASE_TTL_MIN_S} at least"));
        let is_encrypted = |url: &SecretUrl| url.reveal().starts_with("https://");
        let clear = !endpoints.iter().all(is_encrypted);
        let encrypted = endpoints.iter().any(is_encrypted);
        let clear = (clear && (encrypted || self.tls().any())).then(|| {
            "with TLS (an https:// among etcd.endpoints, etcd.ca_file, etcd.cert_file, etcd.key_file) every one of \
             etcd.endpoints must begin with https://"
                .to_owned()
        });
        let secret = !password.is_empty() || !password_file.is_empty();
        let twice = (!password.is_empty() && !password_file.is_empty())
            .then(|| "etcd.password and etcd.password_file are both set: leave one of them".to_owned());
        let halves = (user.is_empty() == secret).then(|| {
            "etcd.user and etcd.password (or etcd.password_file) need each other: set both, or neither"
                .to_owned()
        });
        let unread = unreadable("etcd.password_file", password_file);
        let all = [nowhere, short, clear, twice, halves, unread];
        all.into_iter().flatten().chain(self.tls().check()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_named_and_no_password() {
        assert_eq!(Etcd::default().check(), Vec::<String>::new());
        let secured = Etcd {
            user: "ann".into(),
            password: "hush".into(),
            ca_file: "/dev/null".into(),
            ..Etcd::at(["https://a:2379", "https://b:2379"])
        };
        assert_eq!(secured.check(), Vec::<String>::new());
        assert!(!format!("{secured:?}").contains("hush"));
        let wrong = Etcd { endpoints: vec!["http://a:2379".into()], user: String::new(), ..secured };
        let wrong = wrong.check();
        assert!(wrong[0].contains("must begin with https://"), "{wrong:?}");
        assert!(wrong[1].contains("etcd.user and etcd.password"), "{wrong:?}");
        let mixed = Etcd::at(["http://a:2379", "https://b:2379"]).check();
        assert!(mixed[0].contains("must begin with https://"), "{mixed:?}");
        assert_eq!(Etcd { endpoints: Vec::new(), lease_ttl_s: 1, ..Etcd::default() }.check().len(), 2);
    }
}
