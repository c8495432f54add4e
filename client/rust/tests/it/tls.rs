//! The client at `wss://`: whom it believes, and what it says of everybody else.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use sluice_client::raw::{ConnectError, Handshake, Socket};
use sluice_client::{Client, Options, Trust};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;

use crate::welcome;

/// Why the certificate is not to be trusted.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    OtherName,
    Expired,
    NotYet,
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn trust(&self) -> Trust {
        Trust::with_ca(self.0.pem().as_bytes()).unwrap()
    }

    /// A server with a certificate of this authority.
    fn acceptor(&self, flaw: Flaw) -> TlsAcceptor {
        let name = if flaw == Flaw::OtherName { "rooms.example.org" } else { "localhost" };
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        if flaw == Flaw::Expired {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        } else if flaw == Flaw::NotYet {
            params.not_before = rcgen::date_time_ymd(4000, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_no_client_auth();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A port, and its URL by name with this scheme.
async fn bind(scheme: &str) -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("{scheme}://localhost:{}/ws", listener.local_addr().unwrap().port());
    (listener, url)
}

/// What a client says that trusts this, of a server that has that.
async fn refusal(trust: Trust, acceptor: TlsAcceptor) -> String {
    let (listener, url) = bind("wss").await;
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        assert!(acceptor.accept(tcp).await.is_err());
    });
    let handshake = Handshake { trust, ..Handshake::new(url) };
    let error = Socket::connect(&handshake).await.unwrap_err();
    server.join_next().await.unwrap().unwrap();
    assert!(matches!(error, ConnectError::Tls(_)), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn a_client_connects_with_tls_to_whom_its_authority_vouches_for() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(Flaw::None);
    let (listener, url) = bind("wss").await;
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let tls = acceptor.accept(tcp).await.unwrap();
        // one that prefers HTTP/2, as balancers do, is told that this is HTTP/1.1
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let mut socket: WebSocketStream<TlsStream<TcpStream>> =
            tokio_tungstenite::accept_async(tls).await.unwrap();
        welcome(&mut socket).await;
        socket
    });
    let options = Options::new(url).trust(authority.trust());
    let (client, _events) = Client::connect(options).await.unwrap();
    drop(server.join_next().await.unwrap().unwrap());
    drop(client);
}

#[tokio::test]
async fn each_certificate_that_is_wrong_is_refused_with_the_fix() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let unknown = "is signed by no authority that is trusted here: name its CA";
    assert!(refusal(Trust::default(), ours.acceptor(Flaw::None)).await.ends_with(unknown));
    assert!(refusal(theirs.trust(), ours.acceptor(Flaw::None)).await.ends_with(unknown));
    for (flaw, said) in [
        (Flaw::OtherName, "the certificate of localhost is for another name: dial the name that it is for"),
        (Flaw::Expired, "has expired: renew it, or look at this machine's clock"),
        (Flaw::NotYet, "is not valid yet: look at this machine's clock"),
    ] {
        let why = refusal(ours.trust(), ours.acceptor(flaw)).await;
        assert!(why.ends_with(said), "{why}");
    }
}

#[tokio::test]
async fn a_port_without_tls_is_told_from_a_wrong_certificate() {
    let (listener, url) = bind("wss").await;
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        assert!(tokio_tungstenite::accept_async(tcp).await.is_err()); // a handshake of TLS is no HTTP
    });
    let error = Socket::connect(&Handshake::new(url)).await.unwrap_err().to_string();
    server.join_next().await.unwrap().unwrap();
    assert!(error.contains("localhost") && error.contains("use ws://"), "{error}");
}

#[test]
fn a_file_that_is_no_authority_is_refused_when_it_is_read() {
    let why = Trust::with_ca(b"hello").unwrap_err();
    assert!(why.contains("no certificate"), "{why}");
    let why = Trust::with_ca(b"-----BEGIN CERTIFICATE-----\n@@@\n-----END CERTIFICATE-----\n").unwrap_err();
    assert!(why.contains("no PEM"), "{why}");
}
