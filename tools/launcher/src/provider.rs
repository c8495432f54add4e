//! A provider of identities, small but real: it signs tokens, publishes the JWK set that verifies them over HTTP, and has
//! the faults of real ones. For tests and drills of whoever fetches such a set.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::token::{Claims, Refused, SigningKey};

/// Longest a client may take for its request.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answers {
    /// At once.
    #[default]
    AtOnce,
    /// After so long.
    After(Duration),
    /// Connections are refused: nobody listens.
    Not,
    /// With an error of its own (500).
    WithError,
}

/// What kind of keys it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// For ES256.
    P256,
    /// For EdDSA.
    Ed25519,
}

#[derive(Debug)]
struct Key {
    kid: String,
    signing: SigningKey,
    public: Value,
}

#[derive(Debug, Default)]
struct State {
    /// The last one signs.
    keys: Vec<Key>,
    made: u64,
    asked: u64,
}

/// It runs until this is dropped.
#[derive(Debug)]
pub struct Provider {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    answers: watch::Sender<Answers>,
    _tasks: JoinSet<()>,
}

impl Provider {
    /// Listens on a free port of loopback, with one key.
    ///
    /// # Errors
    /// There is no port, or no key can be made.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (answers, seen) = watch::channel(Answers::default());
        let state = Arc::<Mutex<State>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, address, seen, Arc::clone(&state)));
        let provider = Self { address, state, answers, _tasks: tasks };
        provider.rotate(KeyType::Ed25519)?;
        Ok(provider)
    }

    /// Where its JWK set is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/.well-known/jwks.json", self.address)
    }

    /// Signs with a new key from now on; the one before it is published still, those before that are not. Returns its
    /// `kid`.
    ///
    /// # Errors
    /// No key can be made.
    pub fn rotate(&self, of: KeyType) -> io::Result<String> {
        let algorithm = match of {
            KeyType::P256 => &PKCS_ECDSA_P256_SHA256,
            KeyType::Ed25519 => &PKCS_ED25519,
        };
        let pair = KeyPair::generate_for(algorithm).map_err(io::Error::other)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.made += 1;
        let kid = format!("key-{}", state.made);
        let signing = SigningKey::from_pkcs8(&pair.serialize_der()).map_err(io::Error::other)?;
        let public = public(of, &kid, pair.public_key_raw());
        let keep = state.keys.len().saturating_sub(1);
        state.keys.drain(..keep);
        state.keys.push(Key { signing: signing.named(&kid), public, kid: kid.clone() });
        Ok(kid)
    }

    /// Withdraws all keys but the one that signs.
    pub fn withdraw(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let keep = state.keys.len().saturating_sub(1);
        state.keys.drain(..keep);
    }

    /// Signs with the newest key.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn sign(&self, claims: &Claims) -> Result<String, Refused> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let key = state.keys.last().ok_or_else(|| Refused("there is no key".into()))?;
        key.signing.sign(claims)
    }

    /// The key that signs, as somebody who stole it has it.
    #[must_use]
    pub fn signing_key(&self) -> Option<(String, SigningKey)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.keys.last().map(|key| (key.kid.clone(), key.signing.clone()))
    }

    /// Answers like this from now on.
    pub fn answer(&self, answers: Answers) {
        self.answers.send_replace(answers);
    }

    /// How often its set was asked for.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).asked
    }
}

fn public(of: KeyType, kid: &str, raw: &[u8]) -> Value {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match of {
        KeyType::Ed25519 => json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": text(raw)}),
        KeyType::P256 => {
            // An uncompressed point: 04, x, y.
            let (x, y) = raw.get(1..).unwrap_or_default().split_at(32);
            json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": text(x), "y": text(y)})
        }
    }
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    mut answers: watch::Receiver<Answers>,
    state: Arc<Mutex<State>>,
) {
    let mut listener = Some(listener);
    let mut answering = JoinSet::new();
    loop {
        let now = *answers.borrow_and_update();
        if now == Answers::Not {
            // Closed, not deaf: whoever dials is refused.
            listener = None;
            answering.abort_all();
            if answers.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Some(open) = &listener else {
            listener = TcpListener::bind(address).await.ok();
            if listener.is_none() {
                // Somebody's connection from this port: it goes away.
                sleep(Duration::from_millis(10)).await;
            }
            continue;
        };
        tokio::select! {
            changed = answers.changed() => if changed.is_err() { return },
            accepted = open.accept() => if let Ok((stream, _)) = accepted {
                answering.spawn(timeout(REQUEST_WITHIN * 6, answer(stream, now, Arc::clone(&state))));
            },
            Some(_) = answering.join_next() => {}
        }
    }
}

async fn answer(mut stream: TcpStream, answers: Answers, state: Arc<Mutex<State>>) {
    let mut request = Vec::new();
    let whole = async {
        while !request.windows(4).any(|part| part == b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
            if !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
                return;
            }
        }
    };
    timeout(REQUEST_WITHIN, whole).await.ok();
    if let Answers::After(pause) = answers {
        sleep(pause).await;
    }
    let (status, body) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked += 1;
        let keys: Vec<_> = state.keys.iter().map(|key| &key.public).collect();
        match answers {
            Answers::WithError | Answers::Not => ("500 Internal Server Error", "out of order".to_owned()),
            Answers::AtOnce | Answers::After(_) => ("200 OK", json!({ "keys": keys }).to_string()),
        }
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // Whoever asked may be gone.
    stream.write_all(format!("{head}{body}").as_bytes()).await.ok();
    stream.shutdown().await.ok();
}
