//! A nats-server whose accounts an operator has signed, as managed NATS is: who comes has a `.creds` file.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use sluice_queue::jetstream::{JetStream, NatsConfig, probe};
use sluice_queue::{Nats, Queue, QueueError};
use sluice_testing::{ServerKind, TestServer};

use crate::contract::{LONG, next, publish};

/// What one says of another, signed as NATS wants it.
fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let claims = part(&json!({
        "jti": name, "iat": 1, "name": name, "iss": issuer.public_key(), "sub": subject.public_key(), "nats": claims,
    }));
    let signed = format!("{header}.{claims}");
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// An operator with an account for streams and one for the system, and a server that knows them.
struct Deployment {
    account: KeyPair,
    server: TestServer,
    dir: tempfile::TempDir,
}

impl Deployment {
    async fn start() -> Self {
        let (operator, account, system) =
            (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
        let trusted = jwt(&operator, &operator, "operator", &json!({ "type": "operator", "version": 2 }));
        let of_account = |key: &KeyPair, name: &str, storage: i64| {
            let limits = json!({
                "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
                "leaf": -1, "mem_storage": storage, "disk_storage": storage, "streams": storage, "consumer": storage,
            });
            jwt(&operator, key, name, &json!({ "type": "account", "version": 2, "limits": limits }))
        };
        let config = format!(
            "operator: {trusted}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{}: {}\n{}: {}\n}}\n",
            system.public_key(),
            system.public_key(),
            of_account(&system, "system", 0),
            account.public_key(),
            of_account(&account, "sluice", -1),
        );
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nats.conf");
        std::fs::write(&file, config).unwrap();
        let args = vec!["-c".to_owned(), file.display().to_string()];
        Self { account, server: TestServer::start_with(ServerKind::Nats, args).await, dir }
    }

    /// The section for a user of this account.
    fn user_of(&self, account: &KeyPair, name: &str) -> Nats {
        let user = KeyPair::new_user();
        let rights = json!({
            "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1,
        });
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            jwt(account, &user, name, &rights),
            user.seed().unwrap()
        );
        let file = self.dir.path().join(format!("{name}.creds"));
        std::fs::write(&file, text).unwrap();
        Nats { credentials_file: file.display().to_string(), ..Nats::at(&self.server.url()) }
    }
}

#[tokio::test]
async fn who_has_credentials_of_an_account_is_let_in() {
    let deployment = Deployment::start().await;
    let nats = deployment.user_of(&deployment.account, "ann");
    assert_eq!(nats.check(), Vec::<String>::new());
    assert!(probe(nats.clone()).await.unwrap().ends_with("JetStream"));
    let queue = JetStream::connect(NatsConfig { nats, ..NatsConfig::default() }).await.unwrap();
    let mut consumer = queue.consumer().await.unwrap();
    publish(&queue, "a").await;
    assert_eq!(next(&mut consumer, LONG).await, "a");

    // Of an account that the operator has not signed, and of nobody.
    let stranger = deployment.user_of(&KeyPair::new_account(), "eve");
    for wrong in [stranger, Nats::at(&deployment.server.url())] {
        let Err(QueueError::Refused(why)) = probe(wrong).await else { panic!("let in") };
        assert!(why.contains("authorization violation") && why.contains("credentials_file"), "{why}");
    }
}
