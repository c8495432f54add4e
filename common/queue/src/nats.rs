//! The section `[nats]`: where the servers are, and how they let a service in.

use serde::{Deserialize, Serialize};
use sluice_access::{SecretUrl, unreadable};

/// `[nats]`. An empty name of a file means that there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nats {
    /// URLs of the servers, separated by commas: `nats://host:port`, or `tls://host:port` to insist on TLS. A user and
    /// a password, or a token alone, in front of the first `@` hold for all of them.
    pub url: SecretUrl,
    /// File with the password of the URL's user; with the token, where the URL names no user.
    pub password_file: String,
    /// A `.creds` file: the JWT of a user with the seed of its key.
    pub credentials_file: String,
    /// File with the seed of a user's nkey.
    pub nkey_file: String,
    /// PEM file of the authority that signed the servers' certificates, beside those of the system.
    pub ca_file: String,
    /// PEM file of the certificate that is shown to the servers; needs `key_file`.
    pub cert_file: String,
    /// PEM file of that certificate's private key.
    pub key_file: String,
    /// Servers that hold a copy of the stream, 1 to 5: 3 where there are three servers.
    pub replicas: u8,
}

/// JetStream keeps no more copies.
const REPLICAS_MAX: u8 = 5;

impl Default for Nats {
    fn default() -> Self {
        Self::at("nats://127.0.0.1:4222")
    }
}

impl Nats {
    /// These servers, which let everybody in.
    #[must_use]
    pub fn at(url: &str) -> Self {
        let none = String::new;
        Self {
            url: url.into(),
            password_file: none(),
            credentials_file: none(),
            nkey_file: none(),
            ca_file: none(),
            cert_file: none(),
            key_file: none(),
            replicas: 1,
        }
    }

    /// What contradicts itself besides the URL, and the files that cannot be read; each a sentence with its fix.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let password = self.url.reveal().contains('@') || !self.password_file.is_empty();
        let ways = [
            ("a user or token (in nats.url, nats.password_file)", password),
            ("nats.credentials_file", !self.credentials_file.is_empty()),
            ("nats.nkey_file", !self.nkey_file.is_empty()),
        ];
        let ways: Vec<_> = ways.into_iter().filter_map(|(name, set)| set.then_some(name)).collect();
        let several = (ways.len() > 1)
            .then(|| format!("{} are all set: NATS takes one, leave one", ways.join(" and ")));
        let halves = (self.cert_file.is_empty() != self.key_file.is_empty())
            .then(|| "nats.cert_file and nats.key_file need each other: set both, or neither".to_owned());
        let copies = (self.replicas == 0 || self.replicas > REPLICAS_MAX)
            .then(|| format!("nats.replicas is {}: it must be 1 to {REPLICAS_MAX}", self.replicas));
        let unread = self.files().into_iter().filter_map(|(key, file)| unreadable(key, file));
        several.into_iter().chain(halves).chain(copies).chain(unread).collect()
    }

    fn files(&self) -> [(&'static str, &str); 6] {
        [
            ("nats.password_file", &self.password_file),
            ("nats.credentials_file", &self.credentials_file),
            ("nats.nkey_file", &self.nkey_file),
            ("nats.ca_file", &self.ca_file),
            ("nats.cert_file", &self.cert_file),
            ("nats.key_file", &self.key_file),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_in_is_enough() {
        assert_eq!(Nats::default().check(), Vec::<String>::new());
        assert_eq!(Nats::at("nats://u:p@a:4222,nats://b:4222").check(), Vec::<String>::new());
        let both = Nats { nkey_file: "/dev/null".into(), ..Nats::at("nats://u:p@a:4222") };
        assert!(both.check()[0].contains("nats.nkey_file are all set"), "{:?}", both.check());
    }

    #[test]
    fn what_cannot_be_is_named() {
        let wrong =
            Nats { cert_file: "/dev/null".into(), replicas: 6, ca_file: "/none".into(), ..Nats::default() };
        let wrong = wrong.check();
        assert!(wrong[0].contains("need each other") && wrong[1].contains("1 to 5"), "{wrong:?}");
        assert!(wrong[2].starts_with(r#"nats.ca_file "/none" cannot be read"#), "{wrong:?}");
    }

    #[test]
    fn a_password_is_not_shown() {
        let shown = format!("{:?}", Nats::at("nats://ann:hush@a:4222"));
        assert!(!shown.contains("hush"), "{shown}");
    }
}
