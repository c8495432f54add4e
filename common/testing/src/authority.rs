//! Certificates of a test: an authority and what it signs, good and bad, as files, for a server and for a client.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use tempfile::TempDir;

/// An authority.
pub struct Authority {
    dir: PathBuf,
    /// How the names of its files begin.
    prefix: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Removed with it, where the folder is its own.
    _own: Option<TempDir>,
}

/// Where the PEM files of one certificate are.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The authority's certificate.
    pub ca: String,
    /// A certificate that it signed.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// A new one, in a folder that is removed with it. All have the same name: only their keys tell them apart.
    #[must_use]
    pub fn new() -> Self {
        let own = tempfile::tempdir().unwrap();
        let dir = own.path().to_owned();
        Self { _own: Some(own), ..Self::made(dir, String::new(), "Sluice services") }
    }

    /// One of this name, in a folder that stays: a server that runs as somebody else may not read every folder.
    #[must_use]
    pub fn in_dir(dir: &Path, name: &str) -> Self {
        Self::made(dir.to_owned(), format!("{name}-"), &format!("authority of {name}"))
    }

    fn made(dir: PathBuf, prefix: String, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let made = Self { dir, prefix, issuer, _own: None };
        std::fs::write(made.file("ca.pem"), made.issuer.pem()).unwrap();
        made
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{}{name}", self.prefix))
    }

    /// A certificate for this DNS name or address, good for nearly a day: what is said of the time left
    /// does not change while a test runs. The same name has the same files, written anew.
    #[must_use]
    pub fn issue(&self, name: &str) -> TlsFiles {
        self.issue_for(name, SystemTime::now() + Duration::from_secs(24 * 3600 - 600))
    }

    /// One that has just expired.
    #[must_use]
    pub fn issue_expired(&self, name: &str) -> TlsFiles {
        self.issue_for(name, SystemTime::now() - Duration::from_secs(60))
    }

    fn issue_for(&self, name: &str, until: SystemTime) -> TlsFiles {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        let at = |time: SystemTime| {
            date_time_ymd(1970, 1, 1) + time.duration_since(SystemTime::UNIX_EPOCH).unwrap()
        };
        params.not_before = at(SystemTime::now() - Duration::from_secs(3600));
        params.not_after = at(until);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let write = |end: &str, text: String| {
            let path = self.file(&format!("{name}.{end}"));
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let ca = self.file("ca.pem").display().to_string();
        TlsFiles { ca, cert: write("pem", cert.pem()), key: write("key", key.serialize_pem()) }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
