//! Keys of a provider: over a real socket, while it rotates them, answers slowly, answers nonsense and is away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sluice_launcher::provider::{Answers, KeyType, Provider};
use sluice_launcher::token::{Claims, Grants};
use sluice_logic::config::{Config, TokenKeys};
use sluice_proto::grpc::authenticate_result::Result as Verdict;
use sluice_proto::grpc::{AuthenticateManyRequest, AuthenticateRequest};
use sluice_testing::{Authority, eventually};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use super::rig::{Caller, Faked, config, faked_with, get};

const SOON: Duration = Duration::from_secs(20);
/// A gateway gives a call as long.
const GATEWAY_TRY: Duration = Duration::from_secs(2);

fn ann() -> Claims {
    // The clock of the rig stands at one second.
    Claims {
        sub: "ann".into(),
        exp: 1_000,
        grants: Grants::default(),
        iss: None,
        aud: None,
        info: None,
        iat: None,
    }
}

fn settings(url: String, refresh_s: u64) -> Config {
    let keys = TokenKeys { jwks_url: url, jwks_refresh_s: refresh_s, ..TokenKeys::default() };
    Config { token_keys: keys, token_secret: "".into(), ..config() }
}

/// What becomes of these tokens, asked about together.
async fn judged(caller: &Caller, tokens: &[&String]) -> Vec<&'static str> {
    let tokens = tokens.iter().map(|token| (*token).clone()).collect();
    let asking = Instant::now();
    let reply = caller.clone().authenticate_many(AuthenticateManyRequest { tokens }).await.unwrap();
    assert!(asking.elapsed() < GATEWAY_TRY, "a gateway would not have waited: {:?}", asking.elapsed());
    let one = |verdict: Option<Verdict>| match verdict {
        Some(Verdict::Known(reply)) if reply.user == "ann" => "known",
        Some(Verdict::Known(_)) => "somebody else",
        Some(Verdict::Invalid(_)) => "invalid",
        None => "open",
    };
    reply.into_inner().results.into_iter().map(|result| one(result.result)).collect()
}

async fn until_judged(caller: &Caller, token: &String, verdict: &str) {
    eventually(verdict, SOON, async || judged(caller, &[token]).await == [verdict]).await;
}

async fn started(refresh_s: u64) -> (Provider, Faked, Caller) {
    let provider = Provider::start().await.unwrap();
    let faked = faked_with(settings(provider.url(), refresh_s)).await;
    let caller = faked.rig.caller().await;
    until_judged(&caller, &provider.sign(&ann()).unwrap(), "known").await;
    (provider, faked, caller)
}

#[tokio::test]
async fn a_key_that_is_new_is_fetched_when_a_token_names_it() {
    let (provider, faked, caller) = started(3_600).await;
    let first = provider.sign(&ann()).unwrap();
    for of in [KeyType::P256, KeyType::Ed25519] {
        let asked = provider.asked();
        provider.rotate(of).unwrap();
        let new = provider.sign(&ann()).unwrap();
        // The first one is asked for at once; a second within ten seconds is not, and the token has no verdict till then.
        if asked < 2 {
            assert_eq!(judged(&caller, &[&first, &new]).await, ["known", "known"]);
            assert_eq!(provider.asked(), 2);
        } else {
            assert_eq!(judged(&caller, &[&new]).await, ["open"]);
            let single = caller.clone().authenticate(AuthenticateRequest { token: new.clone() }).await;
            assert_eq!(single.unwrap_err().code(), tonic::Code::ResourceExhausted);
            assert_eq!(provider.asked(), 2);
            until_judged(&caller, &new, "known").await;
        }
    }
    let (_, status) = get(faked.rig.admin, "/status").await;
    assert!(status.contains("\"token_keys\":{"), "{status}");
    let (_, metrics) = get(faked.rig.admin, "/metrics").await;
    assert!(metrics.contains("sluice_logic_token_keys 2"), "{metrics}");
    assert!(metrics.contains("sluice_logic_token_key_fetches_total{outcome=\"good\"} 3"), "{metrics}");
    assert!(faked.rig.stop().await.is_clean());
}

#[tokio::test]
async fn a_key_that_nobody_has_is_refused_and_one_that_is_withdrawn_ends() {
    let (provider, faked, caller) = started(1).await;
    let old = provider.sign(&ann()).unwrap();
    // Signed by a stranger, in the name of a key that is there, and of one that is not.
    let stranger = Provider::start().await.unwrap();
    let (_, theirs) = stranger.signing_key().unwrap();
    let (kid, _) = provider.signing_key().unwrap();
    let forged = theirs.clone().named(kid).sign(&ann()).unwrap();
    let unknown = theirs.named("nobody's").sign(&ann()).unwrap();
    assert_eq!(judged(&caller, &[&forged, &old]).await, ["invalid", "known"]);
    until_judged(&caller, &unknown, "invalid").await;
    provider.rotate(KeyType::P256).unwrap();
    provider.withdraw();
    until_judged(&caller, &provider.sign(&ann()).unwrap(), "known").await;
    until_judged(&caller, &old, "invalid").await;
    assert!(faked.rig.stop().await.is_clean());
}

#[tokio::test]
async fn what_was_fetched_last_counts_while_the_provider_is_away_and_nobody_is_refused_for_it() {
    let (provider, faked, caller) = started(1).await;
    let old = provider.sign(&ann()).unwrap();
    for answers in [Answers::Not, Answers::WithError] {
        provider.answer(answers);
        provider.rotate(KeyType::P256).unwrap();
        let new = provider.sign(&ann()).unwrap();
        eventually("it is noticed", SOON, async || {
            let (_, status) = get(faked.rig.admin, "/status").await;
            status.contains("no connection to") || status.contains("it answers 500")
        })
        .await;
        assert_eq!(judged(&caller, &[&old, &new]).await, ["known", "open"], "{answers:?}");
        provider.answer(Answers::AtOnce);
        until_judged(&caller, &new, "known").await;
    }
    assert!(faked.rig.stop().await.is_clean());
}

#[tokio::test]
async fn a_provider_that_answers_slowly_makes_nobody_wait_who_is_known() {
    let (provider, faked, caller) = started(3_600).await;
    let old = provider.sign(&ann()).unwrap();
    provider.answer(Answers::After(Duration::from_secs(3)));
    provider.rotate(KeyType::Ed25519).unwrap();
    let new = provider.sign(&ann()).unwrap();
    // It is asked for, and comes later: meanwhile others are judged at once.
    assert_eq!(judged(&caller, &[&new, &old]).await, ["open", "known"]);
    for _ in 0..20 {
        assert_eq!(judged(&caller, &[&old]).await, ["known"]);
    }
    until_judged(&caller, &new, "known").await;
    assert_eq!(provider.asked(), 2, "one question, however many ask");
    assert!(faked.rig.stop().await.is_clean());
}

/// A start while the provider is away: nobody is refused, and nobody let in, until it is there.
#[tokio::test]
async fn before_the_first_set_nobody_is_judged() {
    let provider = Provider::start().await.unwrap();
    provider.answer(Answers::Not);
    let token = provider.sign(&ann()).unwrap();
    let faked = faked_with(settings(provider.url(), 3_600)).await;
    let caller = faked.rig.caller().await;
    let nonsense = "x.y.z".to_owned();
    assert_eq!(judged(&caller, &[&token, &nonsense]).await, ["open", "invalid"]);
    provider.answer(Answers::AtOnce);
    until_judged(&caller, &token, "known").await;
    assert!(faked.rig.stop().await.is_clean());
}

/// The provider behind TLS, as `localhost`.
async fn behind_tls(authority: &Authority, provider: SocketAddr, tasks: &mut JoinSet<()>) -> SocketAddr {
    let files = authority.issue("localhost");
    let chain = CertificateDer::pem_file_iter(&files.cert).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // Whoever does not trust it hangs up.
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            let mut plain = TcpStream::connect(provider).await.unwrap();
            copy_bidirectional(&mut tls, &mut plain).await.ok();
        }
    });
    address
}

#[tokio::test]
async fn https_is_believed_where_its_authority_is_named() {
    let (authority, other, mut tasks) = (Authority::new(), Authority::new(), JoinSet::new());
    let provider = Provider::start().await.unwrap();
    let plain: SocketAddr = provider.url().split('/').nth(2).unwrap().parse().unwrap();
    let address = behind_tls(&authority, plain, &mut tasks).await;
    let token = provider.sign(&ann()).unwrap();
    for (ca, verdict) in
        [(authority.issue("anyone").ca, "known"), (other.issue("anyone").ca, "open"), (String::new(), "open")]
    {
        let mut config = settings(format!("https://localhost:{}/jwks", address.port()), 3_600);
        config.token_keys.jwks_ca_file = ca;
        let faked = faked_with(config).await;
        let caller = faked.rig.caller().await;
        until_judged(&caller, &token, verdict).await;
        if verdict == "open" {
            eventually("it is said", SOON, async || {
                get(faked.rig.admin, "/status").await.1.contains("no TLS with localhost")
            })
            .await;
            assert_eq!(judged(&caller, &[&token]).await, ["open"]);
        }
        assert!(faked.rig.stop().await.is_clean());
    }
}
