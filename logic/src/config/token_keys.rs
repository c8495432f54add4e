//! `[token_keys]`: public keys that tokens are verified with, in files and of a provider.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::auth::keys::Key;
use crate::defaults::JWKS_REFRESH_S;
use crate::jwks::source::Source;

/// `[token_keys]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenKeys {
    /// Public keys, a PEM file each: RSA for RS256, P-256 for ES256, Ed25519 for EdDSA. The name of a file without its
    /// ending is the `kid` of its key.
    pub files: Vec<String>,
    /// Where the JWK set of a provider is; empty: nowhere.
    pub jwks_url: String,
    /// PEM file of the authority that signed the provider's certificate; empty: those of the system.
    pub jwks_ca_file: String,
    /// How often it is fetched, seconds.
    pub jwks_refresh_s: u64,
    /// `http://` may lead elsewhere than to loopback.
    pub jwks_allow_http: bool,
}

impl Default for TokenKeys {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            jwks_url: String::new(),
            jwks_ca_file: String::new(),
            jwks_refresh_s: JWKS_REFRESH_S,
            jwks_allow_http: false,
        }
    }
}

impl TokenKeys {
    /// Whether there is any.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.files.is_empty() || !self.jwks_url.is_empty()
    }

    /// The keys of the files.
    ///
    /// # Errors
    /// A sentence for each file that is of no use.
    pub fn read(&self) -> Result<Vec<Key>, Vec<String>> {
        let (mut keys, mut wrong) = (Vec::new(), Vec::new());
        for file in &self.files {
            match read(file) {
                Ok(key) => keys.push(key),
                Err(why) => wrong.push(format!("token_keys.files {file:?}: {why}")),
            }
        }
        if wrong.is_empty() { Ok(keys) } else { Err(wrong) }
    }

    /// Where the JWK set is, if there is one.
    ///
    /// # Errors
    /// One sentence.
    pub fn source(&self) -> Result<Option<Source>, String> {
        if self.jwks_url.is_empty() {
            return Ok(None);
        }
        let every = Duration::from_secs(self.jwks_refresh_s);
        let source = Source::new(&self.jwks_url, &self.jwks_ca_file, self.jwks_allow_http, every);
        // Not the URL itself: somebody may have put a password there.
        source.map(Some).map_err(|why| format!("token_keys.jwks_url: {why}"))
    }

    /// What contradicts itself, a sentence each.
    pub(super) fn check(&self) -> Vec<String> {
        let mut wrong = self.read().err().unwrap_or_default();
        wrong.extend(self.source().err());
        if !(1..=86_400).contains(&self.jwks_refresh_s) {
            let text = "it must be 1…86400: a key that is withdrawn counts until the set is fetched again";
            wrong.push(format!("token_keys.jwks_refresh_s is {}, {text}", self.jwks_refresh_s));
        }
        wrong
    }
}

/// More than any public key.
const FILE_BYTES_MAX: u64 = 64 * 1024;

fn read(file: &str) -> Result<Key, String> {
    let path = Path::new(file);
    let size = std::fs::metadata(path).map_err(|error| format!("it cannot be read: {error}"))?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("it has {size} bytes, which is no public key"));
    }
    let pem = std::fs::read(path).map_err(|error| format!("it cannot be read: {error}"))?;
    let kid = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    Key::from_pem(kid, &pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_no_use_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.pem");
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let keys = TokenKeys {
            files: vec![file.display().to_string(), "/nowhere/b.pem".into()],
            jwks_url: "http://ann:hush@id.example/jwks".into(),
            jwks_refresh_s: 0,
            ..TokenKeys::default()
        };
        let wrong = keys.check();
        assert_eq!(wrong.len(), 4, "{wrong:#?}");
        assert!(wrong[0].contains("openssl pkey") && wrong[1].contains("cannot be read"), "{wrong:#?}");
        assert!(!wrong.concat().contains("hush"), "{wrong:#?}");
        assert!(keys.any() && !TokenKeys::default().any() && TokenKeys::default().check().is_empty());
    }
}
