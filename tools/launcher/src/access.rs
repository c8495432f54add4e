//! What opens the servers of a secure cluster: passwords and certificates, as files in its folder. It starts nothing and
//! asks nobody.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{DirBuilder, read_to_string};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::distr::{Alphanumeric, SampleString};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::certs::{self, Authority, Files};
use crate::error::Error;
use crate::folder::Folder;
use crate::service::Service;

/// Letters and digits of a password: no server and no URL takes one of them for something else.
const PASSWORD_CHARS: usize = 32;
/// The folder of the authority and of the certificates of services.
const CERTS: &str = "certs";
/// The folder of the passwords, a file for each kind of server. It tells a secure cluster's folder from any other.
const PASSWORDS: &str = "passwords";
/// The folder of the launcher's own certificate.
const OPERATOR: &str = "operator";
/// Servers that ask for a password.
const GUARDED: [Service; 5] =
    [Service::Nats, Service::Etcd, Service::Redis, Service::Sentinel, Service::Postgres];

/// How somebody is let in by a server of a secure cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Who comes; Redis and sentinels know nobody by name.
    pub user: Option<&'static str>,
    /// The password, also in `password_file`.
    pub password: String,
    /// A file that holds the password alone.
    pub password_file: PathBuf,
    /// The authority, and a certificate to show.
    pub tls: Files,
}

/// Passwords and certificates of a secure cluster.
pub(crate) struct Access {
    dir: PathBuf,
    passwords: BTreeMap<Service, String>,
    authority: Authority,
    operator: Files,
    connector: TlsConnector,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Access {
    /// That of a cluster, which is made where there is none yet; `None` for one that lets everybody in.
    ///
    /// # Errors
    /// The folder holds a cluster of the other kind, or files cannot be read or written.
    pub(crate) fn open(folder: &Folder, secure: bool) -> Result<Option<Arc<Self>>, Error> {
        let dir = folder.path().to_owned();
        let was_secure = dir.join(PASSWORDS).exists();
        // What servers have stored says who is let in, and members of etcd know each other by https:// or http://.
        if secure != was_secure && dir.join(Service::Etcd.as_str()).exists() {
            let (was, fix) =
                if was_secure { ("with", "add --secure") } else { ("without", "leave --secure") };
            return Err(Error::System(format!(
                "{} holds the data of a cluster that was started {was} --secure: {fix}, or give another folder",
                dir.display()
            )));
        }
        if !secure {
            return Ok(None);
        }
        certs::make_missing(&dir.join(CERTS))?;
        private(&dir.join(PASSWORDS))?;
        private(&dir.join(OPERATOR))?;
        let passwords = GUARDED.map(|service| Ok((service, password(&password_file(&dir, service))?)));
        let passwords = passwords.into_iter().collect::<Result<_, Error>>()?;
        let authority = Authority::of(&dir.join(CERTS))?;
        let operator = authority.certify_operator(&dir.join(OPERATOR))?;
        let connector = connector(&operator)?;
        Ok(Some(Arc::new(Self { dir, passwords, authority, operator, connector })))
    }

    /// How this service is let in by a server; for `None` who is no service.
    pub(crate) fn credentials(&self, by: Service, service: Option<Service>) -> Credentials {
        let by = asks(by);
        let tls = match service {
            Some(service) => certs::files(&self.dir.join(CERTS), service),
            None => self.operator.clone(),
        };
        let password_file = password_file(&self.dir, by);
        Credentials { user: user(by), password: self.password(by).to_owned(), password_file, tls }
    }

    pub(crate) fn password(&self, by: Service) -> &str {
        self.passwords.get(&asks(by)).map_or("", String::as_str)
    }

    /// A new certificate for a server, with the authority's, in a folder.
    pub(crate) fn certify(&self, name: &str, into: &Path) -> Result<Files, Error> {
        self.authority.certify_server(name, into)
    }

    /// A new certificate for who asks servers and is none, for another user of the system.
    pub(crate) fn certify_operator(&self, into: &Path) -> Result<Files, Error> {
        self.authority.certify_operator(into)
    }

    /// Connects as the launcher itself.
    pub(crate) fn connector(&self) -> &TlsConnector {
        &self.connector
    }
}

/// Where the certificates of the services of a secure cluster are.
pub(crate) fn certs_in(dir: &Path) -> PathBuf {
    dir.join(CERTS)
}

/// Who asks those that come to this: HAProxy passes on what PostgreSQL is told.
fn asks(by: Service) -> Service {
    if by == Service::Haproxy { Service::Postgres } else { by }
}

fn user(by: Service) -> Option<&'static str> {
    match by {
        Service::Nats | Service::Etcd => Some("sluice"),
        Service::Postgres => Some("postgres"),
        Service::Redis
        | Service::Sentinel
        | Service::Haproxy
        | Service::Gateway
        | Service::Logic
        | Service::Task => None,
    }
}

fn password_file(dir: &Path, by: Service) -> PathBuf {
    dir.join(PASSWORDS).join(by.as_str())
}

/// The password in a file, which is made where there is none: what servers have stored needs it again.
fn password(file: &Path) -> Result<String, Error> {
    if let Ok(text) = read_to_string(file) {
        return Ok(text.trim_end().to_owned());
    }
    let password = Alphanumeric.sample_string(&mut rand::rng(), PASSWORD_CHARS);
    certs::write(file, &password, 0o600)?;
    Ok(password)
}

/// A folder that nobody else may look into.
pub(crate) fn private(dir: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(Error::file("cannot create", dir))
}

fn connector(files: &Files) -> Result<TlsConnector, Error> {
    let wrong = |error: &dyn fmt::Display| Error::System(format!("the launcher's certificate: {error}"));
    let read = |file: &Path| std::fs::read(file).map_err(Error::file("cannot read", file));
    let list = |pem: Vec<u8>| {
        CertificateDer::pem_slice_iter(&pem)
            .map(|it| it.map(CertificateDer::into_owned))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong(&error))
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(list(read(&files.ca)?)?);
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?).map_err(|error| wrong(&error))?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(list(read(&files.cert)?)?, key)
        .map_err(|error| wrong(&error))?;
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_passwords_and_stays_of_its_kind() {
        let parent = tempfile::tempdir().unwrap();
        let folder = |name: &str| Folder::open(Some(&parent.path().join(name))).unwrap();
        let secure = folder("secure");
        let first = Access::open(&secure, true).unwrap().unwrap();
        let again = Access::open(&secure, true).unwrap().unwrap();
        for service in GUARDED {
            assert_eq!(first.password(service), again.password(service));
            assert_eq!(first.password(service).len(), PASSWORD_CHARS);
        }
        assert_ne!(first.password(Service::Nats), first.password(Service::Etcd));
        assert!(!format!("{first:?}").contains(first.password(Service::Nats)));
        let open = folder("open");
        assert!(Access::open(&open, false).unwrap().is_none());
        for (folder, other, fix) in [(&secure, false, "add --secure"), (&open, true, "leave --secure")] {
            std::fs::create_dir(folder.path().join("etcd")).unwrap();
            let error = Access::open(folder, other).unwrap_err().to_string();
            assert!(error.contains(fix) && error.contains("another folder"), "{error}");
            Access::open(folder, !other).unwrap();
        }
    }
}
