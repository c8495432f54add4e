//! Where a connection leads: an address, the name it is asked for by, and TLS or none. It connects to nobody.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

/// Ports of a URL that names none.
const PORTS: [(&str, u16); 2] = [("ws", 80), ("wss", 443)];

/// Where a connection leads.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Where it listens.
    pub address: SocketAddr,
    /// What a request calls it.
    pub host: String,
    /// Whom its certificate has to be for, and whose word is taken for it; `None` = nothing is encrypted.
    pub tls: Option<Tls>,
}

/// What a handshake needs.
#[derive(Debug, Clone)]
pub struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

impl From<SocketAddr> for Destination {
    fn from(address: SocketAddr) -> Self {
        Self { address, host: address.to_string(), tls: None }
    }
}

impl Destination {
    /// Of `ws://host:port/path`, or `wss://`, whose certificates `trust` judges.
    ///
    /// # Errors
    /// It is no such URL, or names a host that is not known.
    pub fn of(url: &str, trust: &Arc<ClientConfig>) -> Result<Self, String> {
        let wrong = || format!("{url:?} is no address of the form ws://host:port/path, or wss://");
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let port = PORTS.iter().find(|(known, _)| *known == scheme).ok_or_else(wrong)?.1;
        let host = rest.split(['/', '?']).next().unwrap_or_default().to_owned();
        let (name, place) = match host.rsplit_once(':') {
            Some((name, digits)) if !digits.ends_with(']') => (name, host.clone()),
            Some(_) | None => (host.as_str(), format!("{host}:{port}")),
        };
        let address = place.to_socket_addrs().ok().and_then(|mut all| all.next()).ok_or_else(wrong)?;
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let tls = (scheme == "wss").then(|| {
            let name = ServerName::try_from(name.to_owned()).map_err(|_| wrong())?;
            Ok::<_, String>(Tls { config: Arc::clone(trust), name })
        });
        Ok(Self { address, tls: tls.transpose()?, host })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
    use sluice_testing::{Authority, TlsFiles};
    use tempfile::TempDir;

    use super::*;
    use crate::frame::{self, TEXT};
    use crate::socket::Heard;
    use crate::{Driver, driver::Ready};

    const LONG: Duration = Duration::from_secs(20);
    /// More than a socket, or a session of TLS, holds at once.
    const ANSWER: usize = 1 << 20;

    fn provider() -> Arc<rustls::crypto::CryptoProvider> {
        Arc::new(rustls::crypto::ring::default_provider())
    }

    /// A certificate for 127.0.0.1 of an authority of its own.
    fn files(dir: &TempDir, name: &str) -> TlsFiles {
        Authority::in_dir(dir.path(), name).issue("127.0.0.1")
    }

    fn trusting(files: &TlsFiles) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&files.ca).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        Arc::new(config.unwrap().with_root_certificates(roots).with_no_client_auth())
    }

    /// A server of one connection: upgrades it, reads `want` bytes more, answers with one large frame and one small.
    fn serve(files: &TlsFiles, want: usize) -> (String, std::thread::JoinHandle<std::io::Result<()>>) {
        let chain = vec![CertificateDer::from_pem_file(&files.cert).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("wss://{}/ws", listener.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            let session = ServerConnection::new(Arc::new(config)).map_err(std::io::Error::other)?;
            let mut stream = StreamOwned::new(session, listener.accept()?.0);
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte)?;
                head.push(byte[0]);
            }
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")?;
            stream.flush()?;
            stream.read_exact(&mut vec![0; want])?;
            let mut answer = Vec::new();
            frame::server_frame(&mut answer, TEXT, &vec![b'x'; ANSWER]);
            frame::server_frame(&mut answer, TEXT, b"end");
            stream.write_all(&answer)?;
            stream.flush()
        });
        (url, serving)
    }

    /// Runs one client until it has heard the small frame; what ended it before, if something did.
    fn run(to: &Destination, question: &[u8], heard: &mut Vec<usize>) -> Option<String> {
        let mut driver = Driver::<()>::new().unwrap();
        let first = frame::request(&to.host, None);
        let key = driver.dial_with(to, None, first, ()).unwrap();
        let (mut ready, until) = (Vec::<Ready>::new(), Instant::now() + LONG);
        while heard.last() != Some(&3) {
            assert!(Instant::now() < until, "{heard:?}");
            driver.wait(Some(Duration::from_millis(100)), &mut ready).unwrap();
            for one in ready.drain(..).filter(|one| one.key == key) {
                let outcome = driver.attend(one, true, |(), out, what| match what {
                    Heard::Upgraded => out.extend_from_slice(question),
                    Heard::Text(text) => heard.push(text.len()),
                    Heard::Answer(..) => {}
                });
                // The server leaves right after the small frame: its end may come with it.
                if let (Err(gone), true) = (outcome, heard.last() != Some(&3)) {
                    return Some(gone.to_string());
                }
            }
        }
        None
    }

    #[test]
    fn frames_of_every_size_pass_through_tls() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(&dir, "gateway");
        // More than the system takes at once: the rest goes when it can.
        let question = vec![b'q'; 4 * ANSWER];
        let (url, serving) = serve(&files, question.len());
        let mut heard = Vec::new();
        let ended = run(&Destination::of(&url, &trusting(&files)).unwrap(), &question, &mut heard);
        assert_eq!((ended, heard), (None, vec![ANSWER, 3]));
        serving.join().unwrap().unwrap();
    }

    #[test]
    fn a_certificate_of_nobody_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (files(&dir, "gateway"), files(&dir, "other"));
        let (url, serving) = serve(&ours, 0);
        let ended = run(&Destination::of(&url, &trusting(&theirs)).unwrap(), b"", &mut Vec::new());
        assert!(ended.as_deref().is_some_and(|why| why.contains("certificate")), "{ended:?}");
        serving.join().unwrap().unwrap_err();
    }

    #[test]
    fn urls_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let trust = trusting(&files(&dir, "any"));
        let of = |url: &str| Destination::of(url, &trust);
        let plain = of("ws://127.0.0.1:81/ws").unwrap();
        assert_eq!((plain.address.port(), &*plain.host, plain.tls.is_none()), (81, "127.0.0.1:81", true));
        let secure = of("wss://[::1]/ws").unwrap();
        assert_eq!((secure.address.port(), &*secure.host, secure.tls.is_some()), (443, "[::1]", true));
        for wrong in ["nonsense", "http://127.0.0.1:81", "ws:///ws"] {
            assert!(of(wrong).unwrap_err().contains("ws://host:port"), "{wrong}");
        }
    }
}
