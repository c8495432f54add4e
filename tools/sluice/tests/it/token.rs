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
