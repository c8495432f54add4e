//! How a service shows servers who it is: secrets in files, and the files of TLS. Reads files and connects to nothing;
//! what it says shows no secret.

mod api_key;
mod handshake;
mod secret;

use std::fs::File;
use std::path::Path;

use sluice_program::secret::one_of;

pub use api_key::{
    API_KEY_PREFIX, API_KEYS_MAX, ApiKeyEntry, KeyHash, api_key_hash, new_api_key, read_api_keys,
};
pub use handshake::TlsNames;
pub use secret::{MASK, Secret, SecretUrl, masked_url};

/// The files of TLS that a section names; an empty name means that there is none.
#[derive(Debug, Clone, Copy)]
pub struct TlsFiles<'a> {
    /// The section, as `redis`.
    pub section: &'static str,
    /// PEM file of the authority that signed the servers' certificates.
    pub ca_file: &'a str,
    /// PEM file of the certificate that is shown to the servers.
    pub cert_file: &'a str,
    /// PEM file of that certificate's private key.
    pub key_file: &'a str,
}

/// What [`TlsFiles`] hold: PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsParts {
    /// The authority.
    pub ca: Option<Vec<u8>>,
    /// Certificate and private key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl TlsFiles<'_> {
    /// Whether any is named.
    #[must_use]
    pub const fn any(&self) -> bool {
        !(self.ca_file.is_empty() && self.cert_file.is_empty() && self.key_file.is_empty())
    }

    /// What contradicts itself, and the files that cannot be read; each a sentence with its fix.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let Self { section, ca_file, cert_file, key_file } = *self;
        let halves = (cert_file.is_empty() != key_file.is_empty()).then(|| {
            format!("{section}.cert_file and {section}.key_file need each other: set both, or neither")
        });
        let files = [("ca_file", ca_file), ("cert_file", cert_file), ("key_file", key_file)];
        let unread =
            files.into_iter().filter_map(|(key, file)| unreadable(&format!("{section}.{key}"), file));
        halves.into_iter().chain(unread).collect()
    }

    /// Reads them.
    ///
    /// # Errors
    /// The file that cannot be read, by its key, or that holds no PEM.
    pub fn read(&self) -> Result<TlsParts, String> {
        let section = self.section;
        let read = |key: &str, file: &str| pem(&format!("{section}.{key}"), file);
        let ca = (!self.ca_file.is_empty()).then(|| read("ca_file", self.ca_file)).transpose()?;
        let identity = (!self.cert_file.is_empty())
            .then(|| Ok::<_, String>((read("cert_file", self.cert_file)?, read("key_file", self.key_file)?)))
            .transpose()?;
        Ok(TlsParts { ca, identity })
    }
}

fn pem(key: &str, file: &str) -> Result<Vec<u8>, String> {
    let pem = std::fs::read(file).map_err(|error| format!("{key} {file:?} cannot be read: {error}"))?;
    // Clients take a file without any for an empty list, and then trust nobody, without saying why.
    if pem.windows(10).any(|part| part == b"-----BEGIN") {
        Ok(pem)
    } else {
        Err(format!("{key} {file:?} is no PEM file: it has no line that begins with -----BEGIN"))
    }
}

/// Why a named file cannot be read.
#[must_use]
pub fn unreadable(key: &str, file: &str) -> Option<String> {
    let error = (!file.is_empty()).then(|| File::open(file).err()).flatten()?;
    Some(format!("{key} {file:?} cannot be read: {error}"))
}

/// What a file that holds one secret says; one line break at its end is none of it.
///
/// # Errors
/// It cannot be read, or has nothing in it, by its key.
pub fn secret(key: &'static str, file: &str) -> Result<String, String> {
    one_of("", Path::new(file), ["", key]).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn halves_and_files_that_are_none_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (pem, text) = (file("a.pem", "-----BEGIN CERTIFICATE-----\n"), file("b.pem", "hush\r\n"));
        let none = TlsFiles { section: "redis", ca_file: "", cert_file: "", key_file: "" };
        assert!(!none.any() && none.check().is_empty() && none.read().unwrap().ca.is_none());
        let half = TlsFiles { cert_file: &pem, ..none };
        assert!(
            half.any() && half.check()[0].starts_with("redis.cert_file and redis.key_file need each other")
        );
        let wrong = TlsFiles { ca_file: &text, ..none }.read().err().unwrap();
        assert!(wrong.contains("redis.ca_file") && wrong.contains("no PEM file") && !wrong.contains("hush"));
        let gone = TlsFiles { ca_file: "/none", ..none };
        assert!(gone.check()[0].starts_with(r#"redis.ca_file "/none" cannot be read"#));
        let both = TlsFiles { cert_file: &pem, key_file: &pem, ..none };
        assert!(both.check().is_empty() && both.read().unwrap().identity.is_some());
        assert_eq!(secret("redis.password_file", &text).unwrap(), "hush");
    }
}
