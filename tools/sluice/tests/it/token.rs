//! `sluice token` and `sluice token check`.

use super::{run, text};

const SECRET: &str = "a secret of many bytes";

#[test]
fn a_token_is_made_and_accepted() {
    let made = run(&[
        "token",
        "--user",
        "ann",
        "--sub",
        "news.*",
        "--pub",
        "*",
        "--ttl",
        "5m",
        "--token-secret",
        SECRET,
    ]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let token = text(&made.stdout);
    let checked = run(&["token", "check", &token, "--token-secret", SECRET]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let claims: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(
        (&claims["sub"], &claims["grants"]["sub"][0], &claims["grants"]["pub"][0]),
        (&"ann".into(), &"news.*".into(), &"*".into())
    );
}

#[test]
fn refusals_are_explained() {
    let token = text(&run(&["token", "--user", "ann", "--token-secret", SECRET]).stdout);
    let wrong = run(&["token", "check", &token, "--token-secret", "another"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("signature"), "{}", text(&wrong.stderr));
    let none = run(&["token", "--user", "ann"]);
    assert!(text(&none.stderr).contains("SLUICE_TOKEN_SECRET"), "{}", text(&none.stderr));
    let odd = run(&["token", "--user", "ann", "--ttl", "soon", "--token-secret", SECRET]);
    assert!(!odd.status.success() && text(&odd.stderr).contains("15m"), "{}", text(&odd.stderr));
}

fn key(name: &str) -> String {
    format!("{}/../launcher/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn keys_of_each_type_sign_and_verify_and_are_published() {
    let dir = tempfile::tempdir().unwrap();
    for (name, algorithm) in [("rsa2048", "RS256"), ("p256", "ES256"), ("ed25519", "EdDSA")] {
        let (private, public) = (key(name), key(&format!("{name}.pub")));
        let made = run(&[
            "token", "--user", "ann", "--sub", "*", "--key", &private, "--kid", "k1", "--alg", algorithm,
        ]);
        assert!(made.status.success(), "{}", text(&made.stderr));
        let token = text(&made.stdout);
        let jwks = run(&["token", "jwks", "--key", &private, "--kid", "k1"]);
        let set: serde_json::Value = serde_json::from_slice(&jwks.stdout).unwrap();
        assert_eq!(
            (&set["keys"][0]["kid"], &set["keys"][0]["alg"]),
            (&"k1".into(), &algorithm.into()),
            "{set}"
        );
        assert!(set["keys"][0].get("d").is_none(), "nothing of the private key: {set}");
        let file = dir.path().join(name);
        std::fs::write(&file, &jwks.stdout).unwrap();
        for verifying in [&private, &public, &file.display().to_string()] {
            let checked = run(&["token", "check", &token, "--key", verifying]);
            assert!(checked.status.success(), "{verifying}: {}", text(&checked.stderr));
        }
        let other = run(&["token", "check", &token, "--token-secret", SECRET]);
        assert!(text(&other.stderr).contains(algorithm), "{}", text(&other.stderr));
        let wrong = run(&["token", "--user", "ann", "--key", &private, "--alg", "HS256"]);
        assert!(text(&wrong.stderr).contains("leave --alg out"), "{}", text(&wrong.stderr));
    }
    for (name, why) in
        [("rsa1024", "2048"), ("p384", "neither RSA"), ("p256.pub", "no private key"), ("none", "--key")]
    {
        let refused = run(&["token", "--user", "ann", "--key", &key(name)]);
        assert!(
            !refused.status.success() && text(&refused.stderr).contains(why),
            "{}",
            text(&refused.stderr)
        );
    }
}
