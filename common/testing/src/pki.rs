//! Certificates of an authority of their own, in files.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Files of an authority, and of a certificate it signed for 127.0.0.1, good for a server and for a client.
#[derive(Debug)]
pub struct Pki {
    /// The authority.
    pub ca: String,
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

impl Pki {
    /// In `dir`, for 127.0.0.1; `name` begins the names of the files, and is the common name of the certificate.
    #[must_use]
    pub fn new(dir: &Path, name: &str) -> Self {
        Self::made(dir, name, |_| {})
    }

    /// As [`Pki::new`], with a certificate that is no longer valid.
    #[must_use]
    pub fn expired(dir: &Path, name: &str) -> Self {
        Self::made(dir, name, |params| {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        })
    }

    /// As [`Pki::new`], for another host.
    #[must_use]
    pub fn for_host(dir: &Path, name: &str, host: &str) -> Self {
        Self::made(dir, name, |params| {
            params.subject_alt_names = CertificateParams::new([host.to_owned()]).unwrap().subject_alt_names;
        })
    }

    fn made(dir: &Path, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("authority of {name}"));
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let cert = params.signed_by(&key, &ca).unwrap();
        let write = |what: &str, pem: &str| {
            let path = dir.join(format!("{name}-{what}.pem"));
            std::fs::write(&path, pem).unwrap();
            path.display().to_string()
        };
        Self {
            ca: write("ca", &ca.pem()),
            cert: write("cert", &cert.pem()),
            key: write("key", &key.serialize_pem()),
        }
    }
}
