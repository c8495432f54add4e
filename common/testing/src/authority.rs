//! Certificates of a test: an authority and what it signs, good and bad, as files.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use tempfile::TempDir;

/// An authority; its files are removed with it.
pub struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Where the PEM files for one service are.
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
    /// A new one. All have the same name: only their keys tell them apart.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Sluice services");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    /// A certificate for this DNS name, good for a day. The same name has the same files, written anew.
    #[must_use]
    pub fn issue(&self, name: &str) -> TlsFiles {
        self.issue_for(name, SystemTime::now() + Duration::from_secs(24 * 3600))
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
            let path = self.dir.path().join(format!("{name}.{end}"));
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let ca = self.dir.path().join("ca.pem").display().to_string();
        TlsFiles { ca, cert: write("pem", cert.pem()), key: write("key", key.serialize_pem()) }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
