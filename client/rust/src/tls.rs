//! TLS of a connection: which authorities a client trusts, and what a failed handshake means to whoever dialled.

use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, Error as TlsError, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The public authorities, parsed once for all connections of a process.
static PUBLIC: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| config(roots()));

/// The certificate authorities that a client trusts: those that browsers trust, and further ones that it is given.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Default for Trust {
    fn default() -> Self {
        Self(PUBLIC.clone())
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

impl Trust {
    /// Trusts these authorities, certificates in PEM, beside the public ones.
    ///
    /// # Errors
    /// Says what is wrong when there is no certificate in it, or one that cannot be an authority's.
    pub fn with_ca(pem: &[u8]) -> Result<Self, String> {
        let mut roots = roots();
        let mut count = 0;
        for found in CertificateDer::pem_slice_iter(pem) {
            let certificate = found.map_err(|error| format!("the CA is no PEM: {error}"))?;
            roots.add(certificate).map_err(|error| format!("the CA cannot be used: {error}"))?;
            count += 1;
        }
        if count == 0 {
            return Err("the CA holds no certificate (-----BEGIN CERTIFICATE-----)".into());
        }
        Ok(Self(config(roots)))
    }

    /// The configuration of rustls that checks this, for programs with sockets of their own.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }

    /// Makes TLS on a connection to this host.
    pub(crate) async fn handshake(&self, host: &str, tcp: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host:?} is no name that a certificate could be for"))?;
        let made = TlsConnector::from(self.0.clone()).connect(name, tcp).await;
        made.map_err(|error| explain(host, &error))
    }
}

fn roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

fn config(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    #[expect(clippy::expect_used, reason = "the versions are those of the provider itself")]
    let builder = builder.with_safe_default_protocol_versions().expect("ring speaks TLS 1.2 and 1.3");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    // A balancer that prefers HTTP/2 would take it, and the upgrade is one of HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// What a failed handshake means, and what mends it.
fn explain(host: &str, error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    match cause {
        Some(TlsError::InvalidCertificate(why)) => certificate(host, why),
        Some(TlsError::InvalidMessage(_)) => {
            format!("{host} does not speak TLS on this port: use ws://, or the port that does")
        }
        Some(TlsError::AlertReceived(alert)) => format!("{host} refused TLS: {alert:?}"),
        Some(other) => format!("TLS with {host} failed: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            format!("{host} closed the connection instead of making TLS: use ws://, or the port that does")
        }
        None => format!("TLS with {host} failed: {error}"),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library's reasons are many, and may become more")]
fn certificate(host: &str, why: &CertificateError) -> String {
    let said = match why {
        // An authority made anew under its old name has another key: the same to whoever must act.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "is signed by no authority that is trusted here: name its CA"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has expired: renew it, or look at this machine's clock"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet: look at this machine's clock"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another name: dial the name that it is for"
        }
        other => return format!("the certificate of {host} cannot be trusted: {other}"),
    };
    format!("the certificate of {host} {said}")
}
