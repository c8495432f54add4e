//! A nats-server that lets in only whom it knows, by each of its ways, and over TLS.

use nkeys::KeyPair;
use sluice_queue::jetstream::{JetStream, NatsConfig, probe};
use sluice_queue::{Nats, Queue, QueueError};
use sluice_testing::{Authority, LinkEnd, ServerKind, TestServer, TlsFiles, WrongEnds};
use tempfile::TempDir;

use crate::contract::{LONG, next, publish};

/// A server with this configuration, whose files are in `dir`.
async fn server(dir: &TempDir, config: &str) -> TestServer {
    let args = vec!["-c".to_owned(), file(dir, "nats.conf", config)];
    TestServer::start_with(ServerKind::Nats, args).await
}

fn file(dir: &TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A notice goes through it from one end to the other, and the probe is content.
async fn carries(nats: Nats) {
    assert_eq!(nats.check(), Vec::<String>::new());
    assert!(probe(nats.clone()).await.unwrap().ends_with("JetStream"));
    let queue = JetStream::connect(NatsConfig { nats, ..NatsConfig::default() }).await.unwrap();
    let mut consumer = queue.consumer().await.unwrap();
    publish(&queue, "a").await;
    assert_eq!(next(&mut consumer, LONG).await, "a");
}

/// What the probe says is wrong.
async fn refusal(nats: &Nats) -> String {
    match probe(nats.clone()).await {
        Err(QueueError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn with_user(server: &TestServer, user: &str) -> Nats {
    Nats::at(&format!("nats://{user}@127.0.0.1:{}", server.port()))
}

#[tokio::test]
async fn a_user_with_a_password_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir, r#"authorization { user: "ann", password: "p@ss/w" }"#).await;
    carries(with_user(&server, "ann:p%40ss%2Fw")).await;
    let password_file = file(&dir, "password", "p@ss/w\n");
    carries(Nats { password_file, ..with_user(&server, "ann") }).await;

    for wrong in [with_user(&server, "ann:hush"), Nats::at(&server.url())] {
        let why = refusal(&wrong).await;
        assert!(why.contains("authorization violation") && !why.contains("hush"), "{why}");
    }
}

#[tokio::test]
async fn a_token_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir, r#"authorization { token: "s3cret" }"#).await;
    carries(with_user(&server, "s3cret")).await;
    let password_file = file(&dir, "token", "s3cret\n");
    carries(Nats { password_file, ..Nats::at(&server.url()) }).await;
    assert!(refusal(&with_user(&server, "other")).await.contains("authorization violation"));
}

#[tokio::test]
async fn an_nkey_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let (known, other) = (KeyPair::new_user(), KeyPair::new_user());
    let config = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", known.public_key());
    let server = server(&dir, &config).await;
    let nkey = |name: &str, key: &KeyPair| Nats {
        nkey_file: file(&dir, name, &format!("{}\n", key.seed().unwrap())),
        ..Nats::at(&server.url())
    };
    carries(nkey("known", &known)).await;
    assert!(refusal(&nkey("other", &other)).await.contains("authorization violation"));
}

#[tokio::test]
async fn a_file_that_is_no_credentials_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let credentials_file = file(&dir, "user.creds", "nothing of the kind");
    let nats = Nats { credentials_file, ..Nats::default() };
    assert!(refusal(&nats).await.contains("user.creds\" is no .creds file"));
}

/// One that shows this certificate, and wants to see one of the same authority.
async fn tls_server(TlsFiles { ca, cert, key }: &TlsFiles) -> TestServer {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("tls {{ cert_file: {cert:?}, key_file: {key:?}, ca_file: {ca:?}, verify: true }}");
    server(&dir, &config).await
}

#[tokio::test]
async fn each_wrong_end_of_the_link_is_a_line_with_its_fix() {
    let ends = WrongEnds::of(ServerKind::Nats, tls_server).await;
    let with = |LinkEnd { server, files }: &LinkEnd| Nats {
        ca_file: files.ca.clone(),
        cert_file: files.cert.clone(),
        key_file: files.key.clone(),
        ..Nats::at(&server.url())
    };
    for (wrong, says) in [
        (with(&ends.elsewhere), "a name that stands in the server's certificate in nats.url"),
        (with(&ends.expired), "not valid now"),
        (with(&ends.plain), "the server does not speak TLS there"),
        // It encrypts by itself, and trusts nobody whom it was not told.
        (
            Nats::at(&ends.tls.server.url()),
            "name the authority that signed the server's certificate in nats.ca_file",
        ),
    ] {
        let why = tokio::time::timeout(LONG, refusal(&wrong)).await.expect("no hang");
        assert!(why.contains(says) && !why.contains('\n'), "{says}: {why:?}");
    }
}

#[tokio::test]
async fn tls_with_an_own_authority_and_a_clients_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let files = |of: &str| Authority::in_dir(dir.path(), of);
    let (ours, theirs) = (files("ours").issue("127.0.0.1"), files("theirs").issue("127.0.0.1"));
    let (server, ca) = (tls_server(&ours).await, &ours.ca);
    let shown = |pki: &TlsFiles, ca: &str| Nats {
        ca_file: ca.to_owned(),
        cert_file: pki.cert.clone(),
        key_file: pki.key.clone(),
        ..Nats::at(&server.url())
    };
    carries(shown(&ours, ca)).await;
    // Another authority on either side, or no certificate: an error that names the setting, no wait.
    let plain = Nats { ca_file: ca.clone(), ..Nats::at(&server.url()) };
    for (wrong, says) in [
        (shown(&ours, &theirs.ca), "nats.ca_file"),
        (shown(&theirs, ca), "nats.cert_file"),
        (plain, "nats.cert_file"),
    ] {
        let why = refusal(&wrong).await;
        assert!(why.contains(says), "{wrong:?}: {why}");
    }
}
