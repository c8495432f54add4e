//! Tokens of clients: minted for people and tests, and explained when a server refuses them. The services verify
//! tokens with their own code; what is accepted here and refused there would be a fault worth finding.

mod keys;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::dangerous::insecure_decode;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde::{Deserialize, Serialize};
use sluice_proto::limits::INFO_BYTES_MAX;

pub use keys::{SigningKey, VerifyingKeys};

/// Seconds by which clocks may differ.
const LEEWAY_S: u64 = 30;
const NO_JWT: &str = "this is no JWT (three base64url parts joined by dots)";

/// Which rooms: exact names, or a prefix ending in `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object with sub and pub")]
pub struct Grants {
    /// Rooms to read.
    #[serde(default)]
    pub sub: Vec<String>,
    /// Rooms to write.
    #[serde(default, rename = "pub")]
    pub publish: Vec<String>,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// End of life, seconds since 1970.
    pub exp: u64,
    /// When it was issued, seconds since 1970: without it a token is refused as soon as any of its user are revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// What the user may do.
    #[serde(default)]
    pub grants: Grants,
    /// Who signed it, where logic asks for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// Whom it is for, where logic asks for that: a name, or a list of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud: Option<serde_json::Value>,
    /// What others are told of the user in presence, any JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<serde_json::Value>,
}

/// Why a token is refused, in words for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Signs a token (HS256; the secret is the UTF-8 bytes of `secret`) that lives for `ttl`.
///
/// # Errors
/// [`Refused`] when the user is no valid name.
pub fn mint(secret: &str, user: &str, grants: Grants, ttl: Duration) -> Result<String, Refused> {
    let (sub, exp, iat) = (user.to_owned(), ending_in(ttl), Some(now_s()));
    sign(secret, &Claims { sub, exp, iat, grants, iss: None, aud: None, info: None })
}

/// The end of a life that begins now, seconds since 1970.
#[must_use]
pub fn ending_in(ttl: Duration) -> u64 {
    now_s() + ttl.as_secs()
}

/// Signs these claims as they are, with a secret.
///
/// # Errors
/// [`Refused`] when the user is no valid name, or `info` is too long.
pub fn sign(secret: &str, claims: &Claims) -> Result<String, Refused> {
    sign_with(&SigningKey::secret(secret), claims)
}

/// Signs these claims as they are.
///
/// # Errors
/// As [`sign`]; or the key is none.
pub fn sign_with(key: &SigningKey, claims: &Claims) -> Result<String, Refused> {
    check_user(&claims.sub)?;
    check_info(claims.info.as_ref())?;
    key.sign(claims)
}

/// Reads a token and verifies it with a secret.
///
/// # Errors
/// [`Refused`] says what is wrong with it and, where that helps, what it contains.
pub fn check(secret: &str, token: &str) -> Result<Claims, Refused> {
    check_with(&VerifyingKeys::secret(secret), token)
}

/// Reads and verifies a token.
///
/// # Errors
/// As [`check`].
pub fn check_with(keys: &VerifyingKeys, token: &str) -> Result<Claims, Refused> {
    let header = decode_header(token).map_err(|error| explain(error.kind(), token))?;
    let mut validation = Validation::new(header.alg);
    validation.leeway = LEEWAY_S;
    validation.set_required_spec_claims(&["exp", "sub"]);
    validation.validate_aud = false;
    let mut fitting = keys.fitting(&header).map(|key| decode::<Claims>(token, key, &validation));
    let Some(mut claims) = fitting.next() else {
        let kid = header.kid.map(|kid| format!(" by the key {kid:?}")).unwrap_or_default();
        let names = keys.names();
        return Err(Refused(format!("signed with {:?}{kid}, only {names} is accepted", header.alg)));
    };
    // Several while one key replaces another: it is enough that one of them fits.
    for next in fitting {
        if claims.is_ok() {
            break;
        }
        claims = next;
    }
    let claims = claims.map_err(|error| explain(error.kind(), token))?.claims;
    check_user(&claims.sub)?;
    check_info(claims.info.as_ref())?;
    let rooms = claims.grants.sub.iter().chain(&claims.grants.publish);
    match rooms.into_iter().find(|room| room.trim_end_matches('*').contains('*') || room.is_empty()) {
        Some(room) => Err(Refused(format!("grant {room:?} is neither a name nor a prefix ending in one *"))),
        None => Ok(claims),
    }
}

fn explain(kind: &ErrorKind, token: &str) -> Refused {
    let unverified = insecure_decode::<Claims>(token).map(|data| data.claims);
    Refused(match (kind, unverified) {
        (ErrorKind::ExpiredSignature, Ok(claims)) => {
            format!("expired {} s ago, {LEEWAY_S} s are tolerated", now_s().saturating_sub(claims.exp))
        }
        (ErrorKind::InvalidSignature, Ok(claims)) => {
            format!(
                "the signature does not fit the secret or key (the token claims to be for {:?})",
                claims.sub
            )
        }
        (ErrorKind::MissingRequiredClaim(claim), _) => format!("the claim {claim:?} is missing"),
        (ErrorKind::Json(error), _) => format!("its header or claims are not as they should be: {error}"),
        (ErrorKind::InvalidToken | ErrorKind::Base64(_) | ErrorKind::Utf8(_), _) => NO_JWT.to_owned(),
        (ErrorKind::ImmatureSignature, Ok(_)) => "it is not valid yet".to_owned(),
        (kind, _) => format!("it cannot be verified ({kind:?})"),
    })
}

fn check_user(user: &str) -> Result<(), Refused> {
    sluice_proto::ids::UserId::parse(user).map(drop).map_err(|error| Refused(error.to_string()))
}

fn check_info(info: Option<&serde_json::Value>) -> Result<(), Refused> {
    let bytes = info.map_or(0, |info| info.to_string().len());
    if bytes <= INFO_BYTES_MAX {
        return Ok(());
    }
    Err(Refused(format!("its info has {bytes} bytes, at most {INFO_BYTES_MAX} are allowed")))
}

/// Seconds since 1970.
#[must_use]
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};

    use super::*;

    fn all() -> Grants {
        Grants { sub: vec!["*".into()], publish: vec!["news.*".into()] }
    }

    #[test]
    fn a_minted_token_is_accepted() {
        let token = mint("secret", "ann", all(), Duration::from_secs(60)).unwrap();
        let claims = check("secret", &token).unwrap();
        assert_eq!((claims.sub.as_str(), claims.grants), ("ann", all()));
    }

    #[test]
    fn info_is_as_long_as_logic_takes_it() {
        let claims = |info: serde_json::Value| Claims {
            sub: "ann".into(),
            exp: ending_in(Duration::from_secs(60)),
            iat: Some(now_s()),
            grants: all(),
            iss: None,
            aud: None,
            info: Some(info),
        };
        let says = claims(serde_json::json!({"name": "Ann"}));
        assert_eq!(check("secret", &sign("secret", &says).unwrap()).unwrap(), says);
        // With its quotes.
        let longest = |bytes: usize| sign("secret", &claims("x".repeat(bytes - 2).into()));
        assert!(longest(INFO_BYTES_MAX).is_ok());
        assert!(longest(INFO_BYTES_MAX + 1).unwrap_err().0.contains("at most 1024"));
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let token = mint("secret", "ann", all(), Duration::from_secs(60)).unwrap();
        let why = |secret: &str, token: &str| check(secret, token).unwrap_err().0;
        assert!(why("other", &token).contains("signature"), "{}", why("other", &token));
        assert!(why("other", &token).contains("ann"));
        assert!(why("secret", "abc").contains("no JWT"));
        let signed = |claims: serde_json::Value| {
            encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(b"secret")).unwrap()
        };
        let old = signed(serde_json::json!({"sub": "ann", "exp": now_s() - 100}));
        assert!(why("secret", &old).contains("expired 1"), "{}", why("secret", &old));
        let leeway = signed(serde_json::json!({"sub": "ann", "exp": now_s() - 10}));
        assert!(check("secret", &leeway).is_ok());
        let eternal = signed(serde_json::json!({"sub": "ann"}));
        assert!(why("secret", &eternal).contains("exp"), "{}", why("secret", &eternal));
        let odd = signed(serde_json::json!({"sub": "ann", "exp": now_s() + 9, "grants": {"sub": ["a*b"]}}));
        assert!(why("secret", &odd).contains("a*b"));
        assert!(mint("secret", "", all(), Duration::from_secs(1)).is_err());
        let other =
            encode(&Header::new(Algorithm::HS512), &serde_json::json!({}), &EncodingKey::from_secret(b"s"));
        assert!(why("s", &other.unwrap()).contains("HS256"));
    }
}
