//! Where a JWK set is: one GET over a connection of its own, bounded in time and bytes. It follows no redirect and takes no
//! proxy, so what is fetched comes from where the configuration says.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::auth::keys::JwkSet;
use crate::defaults::{JWKS_BYTES_MAX, JWKS_WITHIN};

/// Where it is, and whom to believe that.
#[derive(Clone)]
pub struct Source {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    refresh: Duration,
}

impl Source {
    /// `ca_file`: the PEM file of the authority that signed the provider's certificate; empty: those of the system, or the
    /// public ones where a system has none. Plain HTTP leads to loopback only, unless `allow_http`.
    ///
    /// # Errors
    /// What is wrong with the URL or the file, and what would be right.
    pub fn new(url: &str, ca_file: &str, allow_http: bool, refresh: Duration) -> Result<Self, String> {
        let example = "https://id.example/.well-known/jwks.json";
        let uri: Uri = url.parse().map_err(|_| format!("it is no URL, for example {example}"))?;
        let authority = uri.authority().ok_or_else(|| format!("it has no host, for example {example}"))?;
        if authority.as_str().contains('@') {
            return Err("a user or a password has no place in it: what it leads to is public".into());
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let (is_secure, usual) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err(format!("it must begin with https://, for example {example}")),
        };
        if !is_secure && !allow_http && !is_loopback(&host) {
            return Err("whoever is on the way can change what http:// brings, and then sign tokens: use https://, or set \
                        token_keys.jwks_allow_http = true where the network is yours alone"
                .into());
        }
        let tls = is_secure.then(|| trust(ca_file)).transpose()?;
        let port = authority.port_u16().unwrap_or(usual);
        Ok(Self { host, port, tls, refresh, uri })
    }

    /// As it was given.
    pub(super) fn url(&self) -> String {
        self.uri.to_string()
    }

    pub(super) fn refresh(&self) -> Duration {
        self.refresh
    }

    /// Fetches the set once.
    ///
    /// # Errors
    /// What failed, for people.
    pub async fn get(&self) -> Result<JwkSet, String> {
        let text = timeout(JWKS_WITHIN, self.fetch()).await;
        let text = text.unwrap_or_else(|_| Err(format!("no whole answer within {JWKS_WITHIN:?}")))?;
        JwkSet::read(&text)
    }

    async fn fetch(&self) -> Result<Bytes, String> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await;
        let tcp = tcp.map_err(|error| format!("no connection to {}:{}: {error}", self.host, self.port))?;
        let Some(tls) = &self.tls else { return self.exchange(tcp).await };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| format!("{:?} is no name that a certificate could be for", self.host))?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await;
        self.exchange(stream.map_err(|error| format!("no TLS with {}: {error}", self.host))?).await
    }

    async fn exchange(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<Bytes, String> {
        let failed = |error: hyper::Error| format!("the exchange broke: {error}");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
        let request = Request::get(path)
            .header(header::HOST, host)
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| format!("it cannot be asked for: {error}"))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(failed)?;
            match response.status() {
                StatusCode::OK => {}
                status if status.is_redirection() => {
                    return Err(format!("it answers {status}: name the URL that this leads to"));
                }
                status => return Err(format!("it answers {status}")),
            }
            let body = Limited::new(response.into_body(), JWKS_BYTES_MAX).collect().await;
            body.map(|body| body.to_bytes())
                .map_err(|error| format!("no whole answer of at most {JWKS_BYTES_MAX} bytes: {error}"))
        };
        let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            // What was read before its end is there for the answer.
            _ = &mut connection => answer.await,
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn trust(ca_file: &str) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    if ca_file.is_empty() {
        // One that cannot be read is not a reason to believe less in the others.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
    } else {
        let wrong = |error: &dyn std::fmt::Display| format!("jwks_ca_file {ca_file:?}: {error}");
        for found in CertificateDer::pem_file_iter(ca_file).map_err(|error| wrong(&error))? {
            let certificate = found.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        if roots.is_empty() {
            return Err(wrong(&"there is no certificate in it (-----BEGIN CERTIFICATE-----)"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(url: &str, allow_http: bool) -> Result<(), String> {
        Source::new(url, "", allow_http, Duration::from_secs(1)).map(drop)
    }

    #[test]
    fn plain_http_leads_to_loopback_unless_it_is_allowed() {
        for (url, allowed, usable) in [
            ("https://id.example/jwks", false, true),
            ("http://127.0.0.1:8080/jwks", false, true),
            ("http://[::1]:8080/jwks", false, true),
            ("http://localhost/jwks", false, true),
            ("http://id.example/jwks", false, false),
            ("http://127.0.0.1.example/jwks", false, false),
            ("http://10.0.0.1/jwks", false, false),
            ("http://id.example/jwks", true, true),
            ("ftp://id.example/jwks", true, false),
            ("https://ann:hush@id.example/jwks", false, false),
            ("id.example", false, false),
            ("", false, false),
        ] {
            assert_eq!(made(url, allowed).is_ok(), usable, "{url}: {:?}", made(url, allowed));
        }
        assert!(made("http://id.example/", false).unwrap_err().contains("jwks_allow_http"));
        assert!(!made("https://ann:hush@id.example/", false).unwrap_err().contains("hush"));
    }

    #[test]
    fn an_authority_that_is_none_is_named() {
        let source = |file: &str| Source::new("https://id.example/", file, false, Duration::from_secs(1));
        let error = source("/nowhere/ca.pem").err().expect("no such file");
        assert!(error.contains("jwks_ca_file \"/nowhere/ca.pem\""), "{error}");
    }
}
