//! What the files of `[tls]` hold, as rustls takes it, once it was found to be of use: another service must be able
//! to believe it, now. Reads files; follows nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore, ServerConfig};

use super::notice::SOON;
use super::{Role, Tls};

/// All that both ends speak.
const ALPN: &[u8] = b"h2";
/// No certificate is asked about further ahead than a century.
const FAR: u64 = 100 * 365 * 24 * 3600;

/// Why files cannot be used: a sentence with its fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadCredentials(String);

/// The bytes of the three files.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pem {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Pem {
    /// Of texts that no file has.
    pub(super) fn of(ca: &str, cert: &str, key: &str) -> Self {
        Self { ca: ca.into(), cert: cert.into(), key: key.into() }
    }

    pub(super) fn read(files: &Tls) -> Result<Self, BadCredentials> {
        let read = |key: &str, file: &str| {
            std::fs::read(file)
                .map_err(|error| BadCredentials(format!("{key} {file:?} cannot be read: {error}")))
        };
        Ok(Self {
            ca: read("tls.ca", &files.ca)?,
            cert: read("tls.cert", &files.cert)?,
            key: read("tls.key", &files.key)?,
        })
    }
}

/// The certificate of a service with its key, and the authorities it believes.
pub struct Credentials {
    pem: Pem,
    role: Role,
    /// The last second, since 1970, at which others believe it.
    ends: u64,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Credentials {
    /// Reads the files and tries them on each other.
    ///
    /// # Errors
    /// A file is missing or none of its kind, the key is another's, or nobody would believe the certificate now.
    pub fn load(files: &Tls, role: Role) -> Result<Self, BadCredentials> {
        Self::of(Pem::read(files)?, files, role)
    }

    pub(super) fn of(pem: Pem, files: &Tls, role: Role) -> Result<Self, BadCredentials> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(roots(&pem, files)?);
        let chain = certificates(&pem.cert).map_err(|why| {
            BadCredentials(format!("tls.cert {:?} is no PEM certificate: {why}", files.cert))
        })?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| BadCredentials(format!("tls.ca {:?} is of no use: {error}", files.ca)))?;
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| BadCredentials(format!("tls.ca {:?} is of no use: {error}", files.ca)))?;
        believed(&*verifier, &*clients, &chain, role)
            .map_err(|error| BadCredentials(disbelief(&error, files, role)))?;
        let ends = believed_until(&*verifier, &chain, role);
        let server = server(&pem, &chain, clients, &provider).map_err(|why| bad_key(&why, files))?;
        let client = client(&pem, &chain, roots, provider).map_err(|why| bad_key(&why, files))?;
        Ok(Self { pem, role, ends, server: Arc::new(server), client: Arc::new(client) })
    }

    /// For accepting: who connects must show a certificate of our authorities.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// For dialling, likewise.
    pub(super) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    pub(super) const fn pem(&self) -> &Pem {
        &self.pem
    }

    /// How long others will believe the certificate.
    #[must_use]
    pub fn left(&self) -> Duration {
        Duration::from_secs(self.ends.saturating_sub(UnixTime::now().as_secs()))
    }

    /// Whether nobody will believe the certificate a while from now.
    #[must_use]
    pub fn ends_soon(&self) -> bool {
        self.left() < SOON
    }
}

/// Shows no key.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("role", &self.role).finish_non_exhaustive()
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(all) if all.is_empty() => Err("it has none".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(error.to_string()),
    }
}

fn roots(pem: &Pem, files: &Tls) -> Result<RootCertStore, BadCredentials> {
    let wrong = |why: String| BadCredentials(format!("tls.ca {:?} is no PEM certificate: {why}", files.ca));
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&pem.ca).map_err(wrong)? {
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(roots)
}

/// As the other services will look at it: the sooner it is said the better.
fn believed(
    servers: &dyn ServerCertVerifier,
    clients: &dyn ClientCertVerifier,
    chain: &[CertificateDer<'_>],
    role: Role,
) -> Result<(), Error> {
    let Some((first, rest)) = chain.split_first() else {
        return Err(Error::NoCertificatesPresented);
    };
    servers.verify_server_cert(first, rest, &role.server_name(), &[], UnixTime::now())?;
    clients.verify_client_cert(first, rest, UnixTime::now()).map(drop)
}

/// Until when it is, in seconds since 1970: whoever judges is asked, as every certificate of the chain counts.
fn believed_until(servers: &dyn ServerCertVerifier, chain: &[CertificateDer<'_>], role: Role) -> u64 {
    let Some((first, rest)) = chain.split_first() else { return 0 };
    let believed = |at: u64| {
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
        servers.verify_server_cert(first, rest, &role.server_name(), &[], at).is_ok()
    };
    let now = UnixTime::now().as_secs();
    let (mut good, mut bad) = (now, now + FAR);
    while good + 1 < bad {
        let middle = good + (bad - good) / 2;
        if believed(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    good
}

#[expect(clippy::wildcard_enum_match_arm, reason = "rustls has many more, and adds to them")]
fn disbelief(error: &Error, files: &Tls, role: Role) -> String {
    let Tls { ca, cert, .. } = files;
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            format!(
                "tls.cert {cert:?} was not signed by tls.ca {ca:?}: `sluice certs --dir certs` makes files that belong together"
            )
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!(
                "tls.cert {cert:?} has expired: renew it, for example with `sluice certs --dir certs --renew`"
            )
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!(
            "tls.cert {cert:?} is not for a {role}: the name {} must be among its DNS names",
            role.dns_name()
        ),
        Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => format!(
            "tls.cert {cert:?} must be good for servers and for clients (extended key usage serverAuth and clientAuth)"
        ),
        _ => format!("tls.cert {cert:?} would be believed by nobody: {error}"),
    }
}

fn bad_key(why: &str, files: &Tls) -> BadCredentials {
    BadCredentials(format!(
        "tls.key {:?} is not the private key of tls.cert {:?}: {why}",
        files.key, files.cert
    ))
}

fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&pem.key).map_err(|error| error.to_string())
}

fn server(
    pem: &Pem,
    chain: &[CertificateDer<'static>],
    clients: Arc<dyn ClientCertVerifier>,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, String> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain.to_vec(), private_key(pem)?)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would not look at certificates again: an expired one would stay good.
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client(
    pem: &Pem,
    chain: &[CertificateDer<'static>],
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
) -> Result<ClientConfig, String> {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.to_vec(), private_key(pem)?)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}
