use sluice_proto::limits::NAME_BYTES_MAX;

use super::*;

const NOW_MS: i64 = 1_763_719_200_000;
const NOW_S: f64 = 1_763_719_200.0;

fn auth() -> Auth {
    Auth::new("correct horse battery staple", None)
}

fn ann() -> Claims {
    Claims { sub: "ann".into(), ..Claims::default() }
}

fn judge(claims: &Claims) -> Result<Identity, AuthError> {
    auth().authenticate(&auth().sign(claims).expect("signed"), NOW_MS)
}

#[test]
fn a_token_without_grants_opens_the_own_room_only() {
    let identity = judge(&ann()).expect("valid");
    assert_eq!(identity.user.as_str(), "ann");
    assert_eq!(identity.grants, Grants { sub: vec!["@ann".into()], publish: Vec::new() });
    assert_eq!((identity.anonymous, identity.token, identity.expires_at_ms), (false, None, None));
}

#[test]
fn grants_are_taken_over() {
    let grants = Grants { sub: vec!["news.*".into(), "@ann".into()], publish: vec!["*".into()] };
    let identity = judge(&Claims { grants: Some(grants.clone()), ..ann() }).expect("valid");
    assert_eq!(identity.grants, grants, "the own room is not named twice");
}

#[test]
fn what_a_token_says_of_its_user_is_taken_over_up_to_a_kilobyte() {
    let says = |info: serde_json::Value| Claims { info: Some(info), ..ann() };
    let info = |claims: &Claims| judge(claims).map(|identity| identity.info);
    assert_eq!(info(&ann()), Ok(String::new()));
    assert_eq!(info(&says(serde_json::json!({"name": "Ann"}))), Ok(r#"{"name":"Ann"}"#.into()));
    let long = |bytes: usize| says("x".repeat(bytes - 2).into());
    assert_eq!(info(&long(INFO_BYTES_MAX)).map(|info| info.len()), Ok(INFO_BYTES_MAX));
    assert!(matches!(info(&long(INFO_BYTES_MAX + 1)), Err(AuthError::Info(_))));
}

#[test]
fn the_own_room_is_never_read_as_a_prefix() {
    let identity = judge(&Claims { sub: "a*".into(), ..Claims::default() }).expect("valid");
    assert_eq!(identity.grants, Grants::default());
    let longest = Claims { sub: "u".repeat(NAME_BYTES_MAX), ..Claims::default() };
    let own = vec![format!("@{}", longest.sub)];
    assert_eq!(judge(&longest).expect("valid").grants.sub, own, "one byte longer than any other room");
}

#[test]
fn an_issuer_and_an_audience_are_needed_once_they_are_asked_for() {
    let claims = RequiredClaims { issuer: "https://id.example".into(), audience: "chat".into() };
    let auth = Auth::new("correct horse battery staple", Some(Grants::all())).requiring(&claims);
    let judge = |claims: serde_json::Value| {
        let key = EncodingKey::from_secret(b"correct horse battery staple");
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).expect("signed");
        auth.authenticate(&token, NOW_MS).map(|identity| identity.user.to_string())
    };
    let token = |iss: &str, aud: serde_json::Value| serde_json::json!({"sub": "ann", "iss": iss, "aud": aud});
    let ours = "https://id.example";
    assert_eq!(judge(token(ours, "chat".into())), Ok("ann".into()));
    assert_eq!(judge(token(ours, serde_json::json!(["mail", "chat"]))), Ok("ann".into()));
    assert_eq!(judge(token("https://other.example", "chat".into())), Err(AuthError::Issuer));
    assert_eq!(judge(token(ours, "mail".into())), Err(AuthError::Audience));
    assert_eq!(judge(serde_json::json!({"sub": "ann", "aud": "chat"})), Err(AuthError::Issuer));
    assert_eq!(judge(serde_json::json!({"sub": "ann", "iss": ours})), Err(AuthError::Audience));
    // Who came without a token gets one that is good for the next time.
    let first = auth.authenticate("", NOW_MS).expect("anonymous");
    let again = auth.authenticate(&first.token.expect("a token"), NOW_MS).expect("known");
    assert_eq!(again.user, first.user);
}

#[test]
fn an_audience_is_nobodys_business_unless_it_is_asked_for() {
    let claims = Claims { aud: Some("mail".into()), iss: Some("anybody".into()), ..ann() };
    assert_eq!(judge(&claims).map(|identity| identity.user.to_string()), Ok("ann".into()));
}

#[test]
fn what_must_be_understood_and_is_not_is_refused() {
    let header = Header { crit: Some(vec!["b64".into()]), ..Header::new(Algorithm::HS256) };
    let key = EncodingKey::from_secret(b"correct horse battery staple");
    let token = jsonwebtoken::encode(&header, &ann(), &key).expect("signed");
    assert_eq!(auth().authenticate(&token, NOW_MS), Err(AuthError::Critical));
}

#[test]
fn times_have_thirty_seconds_of_leeway() {
    let exp = |exp| Claims { exp: Some(exp), ..ann() };
    let identity = judge(&exp(NOW_S - 29.0)).expect("within the leeway");
    assert_eq!(identity.expires_at_ms, Some(NOW_MS + 1_000));
    assert_eq!(judge(&exp(NOW_S - 30.0)), Err(AuthError::Expired));
    assert_eq!(judge(&exp(0.0)), Err(AuthError::Expired));
    assert!(judge(&exp(1e300)).is_ok(), "far away, and no overflow");
    let nbf = |nbf| Claims { nbf: Some(nbf), ..ann() };
    assert!(judge(&nbf(NOW_S + 30.0)).is_ok());
    assert_eq!(judge(&nbf(NOW_S + 31.0)), Err(AuthError::NotYetValid));
}

#[test]
fn another_secret_or_algorithm_is_refused() {
    let other = Auth::new("another secret", None).sign(&ann()).expect("signed");
    assert_eq!(auth().authenticate(&other, NOW_MS), Err(AuthError::Signature));
    let key = EncodingKey::from_secret(b"correct horse battery staple");
    let hs512 = jsonwebtoken::encode(&Header::new(Algorithm::HS512), &ann(), &key).expect("signed");
    assert_eq!(auth().authenticate(&hs512, NOW_MS), Err(AuthError::Algorithm));
    // {"alg":"none","typ":"JWT"} . {"sub":"ann"} . nothing
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJhbm4ifQ.";
    assert!(matches!(auth().authenticate(none, NOW_MS), Err(AuthError::Malformed(_))));
}

#[test]
fn a_secret_is_replaced_without_refusing_anybody() {
    let accepting = |secret, other: &str| Auth::new(secret, None).accepting(&[other.into()]);
    let (old, new) = ("correct horse battery staple", "another secret");
    let signed = |secret| Auth::new(secret, None).sign(&ann()).expect("signed");
    // Two logics at each step of the way, and what either of them signs.
    for auth in [accepting(old, new), accepting(new, old)] {
        for token in [signed(old), signed(new)] {
            assert!(auth.authenticate(&token, NOW_MS).is_ok());
        }
        assert_eq!(auth.authenticate(&signed("a third secret"), NOW_MS), Err(AuthError::Signature));
    }
    assert_eq!(accepting(new, old).sign(&ann()), Ok(signed(new)), "the other secret signs nothing");
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    for text in ["x", "a.b.c", "..", "\0", &"a".repeat(TOKEN_BYTES_MAX + 1)] {
        assert!(matches!(auth().authenticate(text, NOW_MS), Err(AuthError::Malformed(_))), "{text}");
    }
    assert_eq!(auth().authenticate("", NOW_MS), Err(AuthError::Missing));
    assert!(matches!(judge(&Claims::default()), Err(AuthError::User(_))), "an empty sub");
    assert!(matches!(judge(&Claims { sub: "a\nb".into(), ..Claims::default() }), Err(AuthError::User(_))));
    let grants = |sub| Claims { grants: Some(Grants { sub, publish: Vec::new() }), ..ann() };
    assert!(matches!(judge(&grants(vec![String::new()])), Err(AuthError::Grants(_))));
    assert!(matches!(judge(&grants(vec!["r".repeat(ROOM_BYTES_MAX + 2)])), Err(AuthError::Grants(_))));
    assert!(matches!(
        judge(&grants(vec!["r".into(); GRANTS_MAX + 1])),
        Err(AuthError::Malformed(_) | AuthError::Grants(_))
    ));
}

#[test]
fn anonymous_users_are_each_their_own_and_come_back_by_token() {
    let auth = Auth::new("correct horse battery staple", Some(Grants::all()));
    let new = || auth.authenticate("", NOW_MS).expect("allowed");
    let (one, two) = (new(), new());
    assert_ne!(one.user, two.user, "or they would share a dedupe space");
    assert_eq!(one.user.as_str().len(), "anon-".len() + 32);
    assert!(one.anonymous && one.grants.publish == ["*"]);
    let token = one.token.expect("a token");
    let back = auth.authenticate(&token, NOW_MS).expect("valid");
    assert_eq!((back.user, back.anonymous, back.token), (one.user, true, None));
    assert_eq!(self::auth().authenticate(&token, NOW_MS), Err(AuthError::AnonymousOff));
}

#[test]
fn the_second_of_issue_is_taken_where_it_can_be_believed() {
    let issued = |iat: Option<f64>| judge(&Claims { iat, ..ann() }).expect("valid").issued_at_s;
    assert_eq!(issued(Some(NOW_S + 0.9)), Some(1_763_719_200), "a part of a second does not count");
    assert!(issued(Some(NOW_S + 30.0)).is_some(), "clocks may differ");
    // Else it could not be revoked until then.
    assert_eq!([Some(NOW_S + 31.0), Some(-1.0), Some(0.5), Some(1e300), None].map(issued), [None; 5]);
}
