use serde_json::{Value, json};
use sluice_launcher::token::SigningKey;

use super::super::{Auth, AuthError, Claims};
use super::*;

const RSA: [&str; 2] = [
    include_str!("../../../../tools/launcher/keys/rsa2048.pem"),
    include_str!("../../../../tools/launcher/keys/rsa2048.pub.pem"),
];
const RSA_WEAK: &str = include_str!("../../../../tools/launcher/keys/rsa1024.pub.pem");
const P256: [&str; 2] = [
    include_str!("../../../../tools/launcher/keys/p256.pem"),
    include_str!("../../../../tools/launcher/keys/p256.pub.pem"),
];
const P384: &str = include_str!("../../../../tools/launcher/keys/p384.pub.pem");
const ED25519: [&str; 2] = [
    include_str!("../../../../tools/launcher/keys/ed25519.pem"),
    include_str!("../../../../tools/launcher/keys/ed25519.pub.pem"),
];
const SECRET: &str = "correct horse battery staple";
const NOW_MS: i64 = 1_763_719_200_000;

fn signing(pem: &str) -> SigningKey {
    SigningKey::from_pem(pem.as_bytes()).expect("a key")
}

fn ann() -> Claims {
    Claims { sub: "ann".into(), ..Claims::default() }
}

/// The public part of a key, as a provider publishes it.
fn jwk(pem: &str, kid: &str) -> Value {
    serde_json::to_value(signing(pem).named(kid).public().expect("public")).expect("JSON")
}

fn set(keys: &[Value]) -> Result<JwkSet, String> {
    JwkSet::read(json!({ "keys": keys }).to_string().as_bytes())
}

/// What becomes of a token, by somebody who has the secret, these keys in files and these of a provider.
fn verdict(token: &str, files: &[(&str, &str)], published: &[Value]) -> Result<String, AuthError> {
    let files = files.iter().map(|(kid, pem)| Key::from_pem(kid, pem.as_bytes()).expect(kid));
    let (_fetched, keys) = tokio::sync::watch::channel(std::sync::Arc::new(match published {
        [] => Keys::default(),
        keys => set(keys).expect("a set").keys,
    }));
    let auth = Auth::new(SECRET, None).trusting(files).following(keys);
    auth.authenticate(token, NOW_MS).map(|identity| identity.user.to_string())
}

#[test]
fn each_algorithm_is_verified_by_its_key_from_a_file_and_from_a_provider() {
    for [private, public] in [RSA, P256, ED25519] {
        let named = signing(private).named("k1").sign(&ann()).expect("signed");
        let nameless = signing(private).sign(&ann()).expect("signed");
        for token in [&named, &nameless] {
            assert_eq!(verdict(token, &[("k1", public)], &[]), Ok("ann".into()));
            assert_eq!(verdict(token, &[], &[jwk(private, "k0"), jwk(private, "k1")]), Ok("ann".into()));
        }
        assert_eq!(verdict(&named, &[], &[]), Err(AuthError::Algorithm), "nobody has a key for it");
        let other = verdict(&named, &[("k2", public)], &[jwk(private, "k3")]);
        assert_eq!(other, Err(AuthError::UnknownKey("k1".into())));
        assert!(other.unwrap_err().to_string().contains("\"k1\""));
    }
    let secret = SigningKey::secret(SECRET).named("anything").sign(&ann()).expect("signed");
    assert_eq!(verdict(&secret, &[("k1", RSA[1])], &[]), Ok("ann".into()), "secrets have no names");
}

#[test]
fn a_key_is_good_for_its_own_algorithm_alone() {
    let published = [jwk(RSA[0], "rsa"), jwk(P256[0], "p256"), jwk(ED25519[0], "ed")];
    // The public key is known to everybody: as a secret it would let everybody sign.
    for [_, public] in [RSA, P256, ED25519] {
        for text in [public, public.trim_end()] {
            let forged = SigningKey::secret(text).named("rsa").sign(&ann()).expect("signed");
            assert_eq!(verdict(&forged, &[("rsa", public)], &published), Err(AuthError::Signature));
        }
    }
    // Signed by one key, in the name of one of another type, of the same type, and with another algorithm in its header.
    let named = |kid: &str| signing(ED25519[0]).named(kid).sign(&ann()).expect("signed");
    assert_eq!(verdict(&named("rsa"), &[], &published), Err(AuthError::UnknownKey("rsa".into())));
    let pair = rcgen_ed25519();
    let stranger = pair.named("ed").sign(&ann()).expect("signed");
    assert_eq!(verdict(&stranger, &[], &published), Err(AuthError::Signature));
    let swapped = |alg: &str| {
        let token = named("ed");
        let (_, rest) = token.split_once('.').expect("three parts");
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": "ed", "typ": "JWT"}).to_string());
        format!("{header}.{rest}")
    };
    assert_eq!(verdict(&swapped("HS256"), &[], &published), Err(AuthError::Signature));
    assert_eq!(verdict(&swapped("RS256"), &[], &published), Err(AuthError::UnknownKey("ed".into())));
    for known_to_the_library in ["RS384", "PS256", "ES384", "HS512"] {
        assert_eq!(verdict(&swapped(known_to_the_library), &[], &published), Err(AuthError::Algorithm));
    }
    for unknown in ["none", "None", "", "HS1"] {
        let refused = verdict(&swapped(unknown), &[], &published);
        assert!(
            matches!(refused, Err(AuthError::Malformed(_) | AuthError::Algorithm)),
            "{unknown}: {refused:?}"
        );
    }
}

/// A key that nobody publishes.
fn rcgen_ed25519() -> SigningKey {
    let der = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key").serialize_der();
    SigningKey::from_pkcs8(&der).expect("usable")
}

#[test]
fn an_empty_secret_verifies_nothing() {
    let forged = SigningKey::secret("").sign(&ann()).expect("signed");
    let key = Key::from_pem("ed", ED25519[1].as_bytes()).expect("a key");
    let auth = Auth::new("", None).trusting([key]).accepting(&["".into()]);
    assert_eq!(auth.authenticate(&forged, NOW_MS), Err(AuthError::Algorithm));
    let good = signing(ED25519[0]).sign(&ann()).expect("signed");
    assert!(auth.authenticate(&good, NOW_MS).is_ok());
}

#[test]
fn weak_and_foreign_keys_are_left_out_by_name_and_the_others_count() {
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let rsa = jwk(RSA[0], "good");
    let n = rsa["n"].clone();
    let short = b64(&[0xff; 128]);
    let table = [
        (json!({"kty": "RSA", "kid": "a", "n": short, "e": "AQAB"}), "1024 bits"),
        (json!({"kty": "RSA", "kid": "a", "n": b64(&[0xff; 1024]), "e": "AQAB"}), "at most 4096"),
        (json!({"kty": "RSA", "kid": "a", "n": n, "e": "AQ"}), "exponent"),
        (json!({"kty": "RSA", "kid": "a", "n": n, "e": "Ag"}), "exponent"),
        (json!({"kty": "RSA", "kid": "a", "n": n}), "e is missing"),
        (json!({"kty": "RSA", "kid": "a", "n": "+/", "e": "AQAB"}), "not base64url"),
        (json!({"kty": "RSA", "kid": "a", "n": n, "e": "AQAB", "alg": "RS512"}), "only RS256"),
        (json!({"kty": "RSA", "kid": "a", "n": n, "e": "AQAB", "use": "enc"}), "use is not sig"),
        (json!({"kty": "RSA", "kid": "a", "n": n, "e": "AQAB", "key_ops": ["sign"]}), "no verify"),
        (json!({"kty": "EC", "kid": "a", "crv": "P-384", "x": "AA", "y": "AA"}), "not known here"),
        (json!({"kty": "EC", "kid": "a", "crv": "P-256", "x": "AA", "y": "AA"}), "32 bytes"),
        (json!({"kty": "OKP", "kid": "a", "crv": "Ed25519", "x": "AA"}), "it must have 32"),
        (json!({"kty": "OKP", "kid": "a", "crv": "X25519", "x": "AA"}), "not known here"),
        (json!({"kty": "oct", "kid": "a", "k": b64(b"secret")}), "known to everybody"),
        (json!({"kid": "a"}), "kty"),
        (json!([1]), ""),
    ];
    for (key, why) in table {
        let read = set(&[key.clone(), rsa.clone()]).expect("the other one is good");
        assert_eq!((read.keys.len(), read.left_out.len()), (1, 1), "{key}");
        assert!(read.left_out[0].contains(why), "{key}: {:?}", read.left_out);
        let alone = set(&[key]).expect_err("none is good");
        assert!(alone.contains("no key of the JWK set"), "{alone}");
    }
    for none in ["", "{}", "[]", "{\"keys\":1}", "<html>", "{\"keys\":[]}"] {
        assert!(JwkSet::read(none.as_bytes()).is_err(), "{none}");
    }
    let many: Vec<_> = (0..JWKS_KEYS_MAX + 3).map(|n| jwk(ED25519[0], &n.to_string())).collect();
    let read = set(&many).expect("a set");
    assert_eq!((read.keys.len(), read.left_out.len()), (JWKS_KEYS_MAX, 3));
}

#[test]
fn a_point_beside_its_curve_verifies_nothing_and_hides_nobody() {
    let bad = json!({"kty": "EC", "crv": "P-256", "kid": "k", "x": URL_SAFE_NO_PAD.encode([1; 32]),
        "y": URL_SAFE_NO_PAD.encode([1; 32])});
    let token = signing(P256[0]).named("k").sign(&ann()).expect("signed");
    assert_eq!(verdict(&token, &[], &[bad.clone(), jwk(P256[0], "k")]), Ok("ann".into()));
    assert_eq!(verdict(&token, &[], &[bad]), Err(AuthError::Signature));
}

#[test]
fn files_that_are_no_public_key_are_refused_with_what_mends_it() {
    for (pem, why) in [
        (RSA_WEAK, "1024 bits"),
        (P384, "neither RSA nor P-256"),
        (RSA[0], "openssl pkey"),
        ("", "openssl pkey"),
    ] {
        let error = Key::from_pem("k", pem.as_bytes()).expect_err(why);
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_token_lacks_its_key_only_where_a_set_fetched_anew_can_bring_it() {
    let key = Key::from_pem("k1", P256[1].as_bytes()).expect("a key");
    let auth = Auth::new(SECRET, None).trusting([key]);
    let token = |key: SigningKey| key.sign(&ann()).expect("signed");
    assert!(!auth.lacks_key(&token(signing(P256[0]).named("k1"))));
    assert!(!auth.lacks_key(&token(signing(P256[0]))), "without a name any will do");
    assert!(auth.lacks_key(&token(signing(P256[0]).named("k2"))));
    assert!(auth.lacks_key(&token(signing(ED25519[0]))), "nobody has one of its type");
    assert!(!auth.lacks_key(&token(SigningKey::secret("another").named("k2"))), "nobody fetches secrets");
    for nonsense in ["", "x", "a.b.c"] {
        assert!(!auth.lacks_key(nonsense), "{nonsense}");
    }
}
