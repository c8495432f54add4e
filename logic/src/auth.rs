//! Who a client is and what it may do: reads signed tokens, names anonymous users.
//!
//! Tokens are JWTs signed with HS256, RS256, ES256 or EdDSA, by what [`keys`] holds: the UTF-8 bytes of `token_secret`, or
//! of one of `token_secrets_accepted`, which sign nothing; public keys in files; a JWK set that somebody else fetches
//! ([`Auth::following`]). Claims: `sub` (the
//! user), `exp` and `nbf` (seconds, [`LEEWAY_S`] of leeway, both optional), `iat` (seconds, for revocations), `grants: {"sub":[…],"pub":[…]}`, and `iss`
//! and `aud` where [`RequiredClaims`] ask for them.
//! A token without `grants`, or without one of its lists, grants nothing of it; the user's own room
//! `@<user>` may always be subscribed to. No other algorithm is accepted, above all not `none`.
//! Nothing here keeps a session: the same token gives the same answer on every instance.

pub mod keys;

use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sluice_access::Secret;
use sluice_proto::ids::{InvalidName, RoomId, UserId};
use sluice_proto::json;
use sluice_proto::limits::{INFO_BYTES_MAX, ROOM_BYTES_MAX};
use tokio::sync::watch;

use self::keys::{ALGORITHMS, Key, Keys};
use crate::defaults::{GRANTS_MAX, LEEWAY_S, TOKEN_BYTES_MAX};

/// What a user may do: exact room names, or prefixes ending in `*`. Rooms that address one user (`@…`) are only granted by
/// what begins with `@`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object with sub and pub")]
pub struct Grants {
    /// Rooms to subscribe to, read and look into.
    pub sub: Vec<String>,
    /// Rooms to publish to.
    #[serde(rename = "pub")]
    pub publish: Vec<String>,
}

impl Grants {
    /// Every room, both ways.
    #[must_use]
    pub fn all() -> Self {
        Self { sub: vec!["*".into()], publish: vec!["*".into()] }
    }
}

/// The claims of a token that are looked at; others are ignored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// Not valid from this second on; absent: valid for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<f64>,
    /// Not valid before this second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<f64>,
    /// When it was issued, in seconds: those of a user that were issued up to a second can be revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<f64>,
    /// What the user may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Grants>,
    /// What is said of the user to whoever is in a room with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<serde_json::Value>,
    /// Who signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// Whom it is for: one name, or a list. Judged by the library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud: Option<serde_json::Value>,
    /// Set in tokens of anonymous users: their grants come from the configuration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anon: bool,
}

/// Who a client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// Whether nobody vouched for it.
    pub anonymous: bool,
    /// For a new anonymous user: proves this identity at the next connection.
    pub token: Option<String>,
    /// When the token ends, leeway included, in milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
    /// In which second the token was issued, if it says so and can be believed.
    pub issued_at_s: Option<u32>,
    /// What it may do, its own room included.
    pub grants: Grants,
    /// The claim `info`, as JSON; empty = none.
    pub info: String,
}

/// Why a token was refused. The text is shown to the client and names the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No token, and anonymous users are not allowed here.
    #[error(
        "a token is needed: send {{\"connect\":{{\"token\":\"…\"}}}} or the header Authorization: Bearer …"
    )]
    Missing,
    /// Not a JWT, or its claims have the wrong shape.
    #[error("the token cannot be read: {0}")]
    Malformed(String),
    /// Signed by somebody else.
    #[error("the token's signature is wrong: no secret and no key of this server fits it")]
    Signature,
    /// Another algorithm, or none, or one for which there is no key.
    #[error("the token's algorithm is none for which this server has a key (of HS256, RS256, ES256, EdDSA)")]
    Algorithm,
    /// Its header names a key that nobody here has. One that is fetched may yet bring it.
    #[error("the token's kid {0:?} names no key of its algorithm that this server has")]
    UnknownKey(String),
    /// The time in `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `iss` is another one, or missing where one is asked for.
    #[error("the token's iss is not the one asked for here")]
    Issuer,
    /// `aud` does not name who is asked, or is missing where one is asked for.
    #[error("the token's aud does not name this service")]
    Audience,
    /// `crit` names what must be understood, and nothing of the kind is.
    #[error("the token's header has crit, of which nothing is understood here")]
    Critical,
    /// `nbf` is yet to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Issued before its user's tokens were revoked, or it does not say when.
    #[error("the token was revoked: a new one is needed, with an iat of a later second")]
    Revoked,
    /// `sub` is no user name.
    #[error("the token's sub is not usable: {0}")]
    User(#[from] InvalidName),
    /// A grant is empty or longer than any room, or there are too many.
    #[error("the token's grants are not usable: {0}")]
    Grants(&'static str),
    /// `info` is too long, or not for every reader of JSON.
    #[error("the token's info is not usable: {0}")]
    Info(String),
    /// An anonymous user's token where anonymous users are not allowed (any more).
    #[error("anonymous users are not allowed here")]
    AnonymousOff,
}

/// Reads and writes tokens.
pub struct Auth {
    encoding: EncodingKey,
    /// What tokens are verified with as long as this runs.
    keys: Keys,
    /// And what was fetched last.
    fetched: Option<watch::Receiver<Arc<Keys>>>,
    validation: Validation,
    anonymous: Option<Grants>,
    required: RequiredClaims,
}

/// `[token_claims]`: what every token must say of itself. Empty: not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequiredClaims {
    /// `iss`, who signed it.
    pub issuer: String,
    /// `aud` is this, or has it among others.
    pub audience: String,
}

impl Auth {
    /// Tokens signed with `secret`, none if it is empty; `anonymous` = what anonymous users may do, if they are allowed.
    #[must_use]
    pub fn new(secret: &str, anonymous: Option<Grants>) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // Times are judged in `authenticate`, by the clock it is given; `aud` counts only where it is asked for.
        // The library demands `exp` unless told otherwise; a token without an end is allowed here.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let mut keys = Keys::default();
        // Anybody could sign with an empty one.
        if !secret.is_empty() {
            keys.push(Key::secret(secret));
        }
        Self {
            encoding: EncodingKey::from_secret(secret.as_bytes()),
            keys,
            fetched: None,
            validation,
            anonymous,
            required: RequiredClaims::default(),
        }
    }

    /// Tokens must say this of themselves; those of anonymous users do.
    #[must_use]
    pub fn requiring(mut self, claims: &RequiredClaims) -> Self {
        if !claims.issuer.is_empty() {
            self.validation.set_issuer(&[&claims.issuer]);
            self.validation.required_spec_claims.insert("iss".to_owned());
        }
        if !claims.audience.is_empty() {
            self.validation.set_audience(&[&claims.audience]);
            self.validation.validate_aud = true;
            self.validation.required_spec_claims.insert("aud".to_owned());
        }
        self.required = claims.clone();
        self
    }

    /// Tokens signed with one of `secrets` are valid too, while one secret replaces another.
    #[must_use]
    pub fn accepting(mut self, secrets: &[Secret]) -> Self {
        let secrets = secrets.iter().filter(|secret| !secret.is_empty());
        secrets.for_each(|secret| self.keys.push(Key::secret(secret.reveal())));
        self
    }

    /// Tokens that these keys verify are valid too.
    #[must_use]
    pub fn trusting(mut self, keys: impl IntoIterator<Item = Key>) -> Self {
        keys.into_iter().for_each(|key| self.keys.push(key));
        self
    }

    /// And those that what was fetched last verifies.
    #[must_use]
    pub fn following(mut self, fetched: watch::Receiver<Arc<Keys>>) -> Self {
        self.fetched = Some(fetched);
        self
    }

    /// Whether a token names a key that nobody here has, or is of an algorithm without one: a set fetched anew may say more.
    #[must_use]
    pub fn lacks_key(&self, token: &str) -> bool {
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return false;
        }
        let Ok(Header { alg, kid, .. }) = jsonwebtoken::decode_header(token) else { return false };
        let fetched = self.fetched.as_ref().map(|fetched| Arc::clone(&fetched.borrow()));
        // Nobody fetches secrets.
        alg != Algorithm::HS256 && ALGORITHMS.contains(&alg) && {
            let has = |keys: &Keys| keys.fitting(alg, kid.as_deref()).next().is_some();
            !has(&self.keys) && !fetched.is_some_and(|fetched| has(&fetched))
        }
    }

    /// Reads a token, or makes a new anonymous user when there is none.
    ///
    /// # Errors
    /// [`AuthError`] says which rule the token breaks.
    pub fn authenticate(&self, token: &str, now_ms: i64) -> Result<Identity, AuthError> {
        if token.is_empty() {
            return self.new_anonymous(now_ms);
        }
        // Before the library parses it: what strangers send is bounded first.
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Malformed(format!("it has more than {TOKEN_BYTES_MAX} bytes")));
        }
        let claims = self.decode(token)?;
        let (expires_at_ms, issued_at_s) = (judge_times(&claims, now_ms)?, issued_at_s(&claims, now_ms));
        let user = UserId::parse(&claims.sub)?;
        let grants = match (claims.anon, &self.anonymous) {
            // The switch counts at each connection: old anonymous tokens end with it.
            (true, None) => return Err(AuthError::AnonymousOff),
            (true, Some(grants)) => grants.clone(),
            (false, _) => checked(claims.grants.unwrap_or_default())?,
        };
        let grants = with_own_room(grants, &user);
        let info = claims.info.as_ref().map(checked_info).transpose()?.unwrap_or_default();
        Ok(Identity { user, anonymous: claims.anon, token: None, expires_at_ms, issued_at_s, grants, info })
    }

    /// Signs claims.
    ///
    /// # Errors
    /// Only when the claims cannot be written as JSON (a time that is not finite).
    pub fn sign(&self, claims: &Claims) -> Result<String, AuthError> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.encoding)
            .map_err(|error| AuthError::Malformed(error.to_string()))
    }

    fn new_anonymous(&self, now_ms: i64) -> Result<Identity, AuthError> {
        let Some(grants) = &self.anonymous else { return Err(AuthError::Missing) };
        // 128 random bits: two anonymous users never share a dedupe space.
        let user = UserId::parse(&format!("anon-{:032x}", rand::random::<u128>()))?;
        let now_s = u32::try_from(now_ms.div_euclid(1_000)).unwrap_or_default();
        let RequiredClaims { issuer, audience } = &self.required;
        let named = |text: &String| (!text.is_empty()).then(|| text.clone());
        let token = self.sign(&Claims {
            sub: user.to_string(),
            iss: named(issuer),
            aud: named(audience).map(Into::into),
            iat: Some(f64::from(now_s)),
            anon: true,
            ..Claims::default()
        })?;
        let grants = with_own_room(grants.clone(), &user);
        Ok(Identity {
            user,
            anonymous: true,
            token: Some(token),
            expires_at_ms: None,
            issued_at_s: Some(now_s),
            grants,
            info: String::new(),
        })
    }

    fn decode(&self, token: &str) -> Result<Claims, AuthError> {
        let Header { alg, kid, .. } = jsonwebtoken::decode_header(token).map_err(|error| refusal(&error))?;
        let fetched = self.fetched.as_ref().map(|fetched| Arc::clone(&fetched.borrow()));
        let sets = || [Some(&self.keys), fetched.as_deref()].into_iter().flatten();
        if !sets().any(|keys| keys.any_for(alg)) {
            return Err(AuthError::Algorithm);
        }
        let mut verdict = Err(kid.clone().map_or(AuthError::Signature, AuthError::UnknownKey));
        for key in sets().flat_map(|keys| keys.fitting(alg, kid.as_deref())) {
            verdict = self.decode_with(key, token);
            // Only a wrong signature can be right with another key.
            if verdict != Err(AuthError::Signature) {
                break;
            }
        }
        verdict
    }

    fn decode_with(&self, key: &Key, token: &str) -> Result<Claims, AuthError> {
        // The key says what it is for, never the token.
        let validation = Validation { algorithms: vec![key.algorithm()], ..self.validation.clone() };
        let decoded = jsonwebtoken::decode::<Claims>(token, key.decoding(), &validation);
        // RFC 7515, 4.1.11: whoever does not understand what is named there must refuse it.
        if decoded.as_ref().is_ok_and(|decoded| decoded.header.crit.is_some()) {
            return Err(AuthError::Critical);
        }
        decoded.map(|decoded| decoded.claims).map_err(|error| refusal(&error))
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum; what is not named is malformed")]
fn refusal(error: &jsonwebtoken::errors::Error) -> AuthError {
    match error.kind() {
        ErrorKind::InvalidIssuer => AuthError::Issuer,
        ErrorKind::InvalidAudience => AuthError::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => AuthError::Issuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => AuthError::Audience,
        // Of a key that is none, as a point beside its curve: it verifies nothing, and another one may.
        ErrorKind::InvalidSignature
        | ErrorKind::InvalidEcdsaKey
        | ErrorKind::InvalidEddsaKey
        | ErrorKind::InvalidRsaKey(_) => AuthError::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => AuthError::Algorithm,
        ErrorKind::Json(why) => {
            AuthError::Malformed(format!("its header or claims are not as they should be: {why}"))
        }
        ErrorKind::InvalidToken | ErrorKind::Base64(_) | ErrorKind::Utf8(_) => {
            AuthError::Malformed("it is not three base64url parts joined by dots".to_owned())
        }
        _ => AuthError::Malformed(error.to_string()),
    }
}

/// When the token ends, leeway included; an error when that is past, or its beginning is yet to come.
fn judge_times(claims: &Claims, now_ms: i64) -> Result<Option<i64>, AuthError> {
    #[expect(clippy::cast_possible_truncation, reason = "saturates, which is what is wanted")]
    let to_ms = |seconds: f64| (seconds * 1000.0) as i64;
    let leeway_ms = LEEWAY_S.saturating_mul(1000);
    if claims.nbf.is_some_and(|nbf| to_ms(nbf).saturating_sub(leeway_ms) > now_ms) {
        return Err(AuthError::NotYetValid);
    }
    match claims.exp.map(|exp| to_ms(exp).saturating_add(leeway_ms)) {
        Some(end) if end <= now_ms => Err(AuthError::Expired),
        end => Ok(end),
    }
}

/// In whole seconds, as a revocation counts. A time that is further ahead than clocks may be says nothing: such a token
/// could not be revoked until then.
fn issued_at_s(claims: &Claims, now_ms: i64) -> Option<u32> {
    let iat = claims.iat.filter(|iat| iat.is_finite())?.floor();
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and is looked at below")]
    let at_s = iat as i64;
    let latest_s = now_ms.div_euclid(1_000).saturating_add(LEEWAY_S);
    u32::try_from(at_s).ok().filter(|at_s| *at_s > 0 && i64::from(*at_s) <= latest_s)
}

fn checked(grants: Grants) -> Result<Grants, AuthError> {
    if grants.sub.len() + grants.publish.len() > GRANTS_MAX {
        return Err(AuthError::Grants("there are too many; use prefixes ending in \"*\""));
    }
    // A prefix is at most a whole room name and its "*".
    let usable = |grant: &String| (1..=ROOM_BYTES_MAX + 1).contains(&grant.len());
    if !grants.sub.iter().chain(&grants.publish).all(usable) {
        return Err(AuthError::Grants("one is empty or longer than a room name"));
    }
    Ok(grants)
}

/// As it is passed on.
fn checked_info(info: &serde_json::Value) -> Result<String, AuthError> {
    let text = info.to_string();
    if text.len() > INFO_BYTES_MAX {
        return Err(AuthError::Info(format!(
            "it has {} bytes, at most {INFO_BYTES_MAX} are allowed",
            text.len()
        )));
    }
    json::check(&text).map_err(|why| AuthError::Info(why.to_string()))?;
    Ok(text)
}

/// Adds the user's own room. A user whose name has a `*` has none: the grant would be read as a prefix.
fn with_own_room(mut grants: Grants, user: &UserId) -> Grants {
    let own = RoomId::own_room_of(user);
    if RoomId::parse_from_client(&own).is_ok() && !grants.sub.contains(&own) {
        grants.sub.push(own);
    }
    grants
}

#[cfg(test)]
mod tests;
