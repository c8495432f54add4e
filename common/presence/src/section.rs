//! The section `[redis]`: where the server is, and how it lets a service in.

use serde::{Deserialize, Serialize};
use sluice_access::{SecretUrl, TlsFiles, unreadable};

/// `[redis]`. An empty name of a file means that there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// `redis://user:password@host:port/db`, or `rediss://` for TLS. The user is one of the server's ACL, or nobody.
    /// Behind Sentinel `redis+sentinel://user:password@host:port,host:port/name/db`, or `rediss+sentinel://`; of a Redis
    /// Cluster some nodes, `redis+cluster://user:password@host:port,host:port`, or `rediss+cluster://`.
    pub url: SecretUrl,
    /// A file that holds the password, instead.
    pub password_file: String,
    /// A file that holds the password of the sentinels, where they ask for one.
    pub sentinel_password_file: String,
    /// PEM file of the authority that signed the server's certificate, instead of those of the system.
    pub ca_file: String,
    /// PEM file of the certificate that is shown to the server; needs `key_file`.
    pub cert_file: String,
    /// PEM file of that certificate's private key.
    pub key_file: String,
}

impl Default for Redis {
    fn default() -> Self {
        Self::at("redis://127.0.0.1:6379")
    }
}

impl Redis {
    /// This server, which lets everybody in or names who comes in its URL.
    #[must_use]
    pub fn at(url: &str) -> Self {
        let none = String::new;
        let (password_file, sentinel_password_file) = (none(), none());
        let (ca_file, cert_file, key_file) = (none(), none(), none());
        Self { url: url.into(), password_file, sentinel_password_file, ca_file, cert_file, key_file }
    }

    /// The files of TLS.
    #[must_use]
    pub fn tls(&self) -> TlsFiles<'_> {
        let Self { ca_file, cert_file, key_file, .. } = self;
        TlsFiles { section: "redis", ca_file, cert_file, key_file }
    }

    /// What contradicts itself besides the URL, and the files that cannot be read; each a sentence with its fix.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let clear = (self.tls().any() && !self.url.reveal().starts_with("rediss")).then(|| {
            "redis.ca_file, redis.cert_file and redis.key_file are for TLS: redis.url must then begin with rediss://, \
             or with rediss+sentinel:// or rediss+cluster://"
                .to_owned()
        });
        let user = self.url.reveal().rsplit_once('@').map_or("", |(user, _)| user);
        let user = user.split_once("://").map_or(user, |(_, user)| user);
        let twice = (user.contains(':') && !self.password_file.is_empty()).then(|| {
            "redis.password_file is set, and redis.url has a password: leave one of them".to_owned()
        });
        let alone = !self.sentinel_password_file.is_empty() && !self.url.reveal().contains("+sentinel://");
        let alone = alone.then(|| {
            "redis.sentinel_password_file is for sentinels: redis.url must then begin with redis+sentinel://, or with \
             rediss+sentinel://"
                .to_owned()
        });
        let unread = unreadable("redis.password_file", &self.password_file);
        let hidden = unreadable("redis.sentinel_password_file", &self.sentinel_password_file);
        [clear, twice, alone, unread, hidden].into_iter().flatten().chain(self.tls().check()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_named_and_no_password() {
        assert_eq!(Redis::default().check(), Vec::<String>::new());
        let secured = Redis { ca_file: "/dev/null".into(), ..Redis::at("rediss://ann:hush@a:6379") };
        assert_eq!(secured.check(), Vec::<String>::new());
        assert!(!format!("{secured:?}").contains("hush"));
        let wrong = Redis { url: "redis://ann:hush@a".into(), password_file: "/dev/null".into(), ..secured };
        let wrong = wrong.check();
        assert!(wrong[0].contains("must then begin with rediss://"), "{wrong:?}");
        assert!(wrong[1].contains("leave one of them") && !wrong[1].contains("hush"), "{wrong:?}");
        let file = Redis { password_file: "/dev/null".into(), ..Redis::at("redis://ann@a") };
        assert_eq!(file.check(), Vec::<String>::new());
        let behind =
            Redis { sentinel_password_file: "/dev/null".into(), ..Redis::at("redis+sentinel://a,b/main") };
        assert_eq!(behind.check(), Vec::<String>::new());
        let alone = Redis { url: "redis://a".into(), ..behind }.check();
        assert!(alone.len() == 1 && alone[0].contains("redis+sentinel://"), "{alone:?}");
    }
}
