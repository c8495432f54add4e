//! What tokens are verified with: secrets, public keys in PEM files, and JWK sets. Pure: text in, keys out.
//!
//! A key is good for one algorithm, that of its type, whatever a token says: a public key is never a secret (HS256), and a
//! set that is published holds no secrets. A key with a `kid` verifies tokens that name it, or none; one without verifies
//! any. Weak keys are left out, and said.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use crate::defaults::{JWKS_KEYS_MAX, RSA_BITS_MAX, RSA_BITS_MIN};

/// The algorithms that tokens may be signed with.
pub const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// What verifies tokens of one algorithm.
#[derive(Debug, Clone)]
pub struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

/// Some keys.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<Key>);

/// The keys of a JWK set.
#[derive(Debug, Clone, Default)]
pub struct JwkSet {
    /// Those that verify tokens.
    pub keys: Keys,
    /// Why each of the others does not; for the log.
    pub left_out: Vec<String>,
}

/// One member of a JWK set, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RawSet {
    keys: Vec<serde_json::Value>,
}

/// Algorithm identifier and everything before the key itself: RFC 5480 for P-256, RFC 8410 for Ed25519.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// The algorithm identifier `rsaEncryption` with its NULL (RFC 8017).
const RSA_ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
const DER_INTEGER: u8 = 0x02;
const DER_BIT_STRING: u8 = 0x03;
const DER_SEQUENCE: u8 = 0x30;

impl Key {
    /// A secret: HS256.
    #[must_use]
    pub fn secret(secret: &str) -> Self {
        let decoding = DecodingKey::from_secret(secret.as_bytes());
        Self { kid: None, algorithm: Algorithm::HS256, decoding }
    }

    /// A public key in PEM (`-----BEGIN PUBLIC KEY-----`): RSA, P-256 or Ed25519.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn from_pem(kid: &str, pem: &[u8]) -> Result<Self, String> {
        let info = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| {
            "there is no public key in it (-----BEGIN PUBLIC KEY-----): make one with openssl pkey -in KEY -pubout"
        })?;
        let (algorithm, decoding) = of_spki(info.as_ref())?;
        Ok(Self { kid: Some(kid.to_owned()), algorithm, decoding })
    }

    /// What it is good for.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What verifies with it.
    #[must_use]
    pub fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    fn fits(&self, algorithm: Algorithm, kid: Option<&str>) -> bool {
        self.algorithm == algorithm
            && match (&self.kid, kid) {
                (Some(own), Some(named)) => own == named,
                (None, _) | (_, None) => true,
            }
    }
}

impl Keys {
    /// One more.
    pub fn push(&mut self, key: Key) {
        self.0.push(key);
    }

    /// Those that may have signed a token with this header.
    pub fn fitting<'a>(
        &'a self,
        algorithm: Algorithm,
        kid: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Key> {
        self.0.iter().filter(move |key| key.fits(algorithm, kid))
    }

    /// Whether any is for this algorithm.
    #[must_use]
    pub fn any_for(&self, algorithm: Algorithm) -> bool {
        self.0.iter().any(|key| key.algorithm == algorithm)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl JwkSet {
    /// Reads a JWK set (RFC 7517).
    ///
    /// # Errors
    /// It is none, or no key of it is of use: then a set that was good before is the better one.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let set: RawSet = serde_json::from_slice(text)
            .map_err(|error| format!("this is no JWK set, {{\"keys\":[…]}}: {error}"))?;
        let mut read = Self::default();
        for (place, member) in set.keys.into_iter().enumerate() {
            let kid = member.get("kid").and_then(|kid| kid.as_str()).map(str::to_owned);
            let name = kid.map_or_else(|| format!("key {place}"), |kid| format!("key {kid:?}"));
            // Each costs a try of the signature where a token names no `kid`.
            let key = if read.keys.len() < JWKS_KEYS_MAX {
                serde_json::from_value(member).map_err(|error| error.to_string()).and_then(of_jwk)
            } else {
                Err(format!("a set has at most {JWKS_KEYS_MAX} keys"))
            };
            match key {
                Ok(key) => read.keys.push(key),
                Err(why) => read.left_out.push(format!("{name}: {why}")),
            }
        }
        if read.keys.is_empty() {
            return Err(format!("no key of the JWK set verifies tokens ({})", read.left_out.join("; ")));
        }
        Ok(read)
    }
}

fn of_jwk(jwk: Jwk) -> Result<Key, String> {
    if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
        return Err("its use is not sig".into());
    }
    if jwk.key_ops.as_ref().is_some_and(|ops| ops.iter().all(|op| op != "verify")) {
        return Err("its key_ops have no verify".into());
    }
    let part = |name: &str, part: &Option<String>| {
        let text = part.as_deref().ok_or_else(|| format!("{name} is missing"))?;
        URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("{name} is not base64url"))
    };
    let (algorithm, decoding) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => rsa(&part("n", &jwk.n)?, &part("e", &jwk.e)?)?,
        ("EC", Some("P-256")) => {
            let point = [&[0x04][..], &part("x", &jwk.x)?, &part("y", &jwk.y)?].concat();
            p256(&point)?
        }
        ("OKP", Some("Ed25519")) => ed25519(&part("x", &jwk.x)?)?,
        ("oct", _) => return Err("a secret in a set that is published is known to everybody".into()),
        (kty, crv) => {
            return Err(format!(
                "{kty} {} is not known here: RSA, EC P-256 and OKP Ed25519 are",
                crv.unwrap_or_default()
            ));
        }
    };
    // RFC 9864 has names of its own for what EdDSA leaves open.
    let named = match jwk.alg.as_deref() {
        Some("Ed25519") => Some("EdDSA"),
        named => named,
    };
    if let Some(named) = named
        && named != format!("{algorithm:?}")
    {
        return Err(format!("its alg is {named}, of its type only {algorithm:?} is accepted"));
    }
    Ok(Key { kid: jwk.kid, algorithm, decoding })
}

fn of_spki(der: &[u8]) -> Result<(Algorithm, DecodingKey), String> {
    if let Some(point) = der.strip_prefix(&P256_PREFIX) {
        return p256(point);
    }
    if let Some(key) = der.strip_prefix(&ED25519_PREFIX) {
        return ed25519(key);
    }
    let read = || {
        let (body, _) = element(der, DER_SEQUENCE)?;
        let key = element(body.strip_prefix(&RSA_ALGORITHM)?, DER_BIT_STRING)?.0.strip_prefix(&[0])?;
        let (n, rest) = element(element(key, DER_SEQUENCE)?.0, DER_INTEGER)?;
        Some((n, element(rest, DER_INTEGER)?.0))
    };
    let (n, e) = read().ok_or("the key is neither RSA nor P-256 nor Ed25519")?;
    rsa(n, e)
}

/// The content of the first element, if it is of this type, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    (first == tag).then(|| rest.split_at_checked(length)).flatten()
}

fn rsa(n: &[u8], e: &[u8]) -> Result<(Algorithm, DecodingKey), String> {
    let trimmed = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        number[zeros..].to_vec()
    };
    let (n, e) = (trimmed(n), trimmed(e));
    let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if bits < RSA_BITS_MIN {
        return Err(format!("the RSA key has {bits} bits, fewer than {RSA_BITS_MIN} can be broken"));
    }
    if bits > RSA_BITS_MAX {
        return Err(format!("the RSA key has {bits} bits, at most {RSA_BITS_MAX} are verified here"));
    }
    // An exponent of 1 verifies whatever is sent; the library takes at most 33 bits.
    let exponent = (e.len() <= 4).then(|| e.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
    if exponent.is_none_or(|exponent| exponent < 3 || exponent.is_multiple_of(2)) {
        return Err("the exponent of the RSA key is none that is in use (65537)".into());
    }
    Ok((Algorithm::RS256, DecodingKey::from_rsa_raw_components(&n, &e)))
}

/// An uncompressed point.
fn p256(point: &[u8]) -> Result<(Algorithm, DecodingKey), String> {
    match point {
        [0x04, rest @ ..] if rest.len() == 64 => Ok((Algorithm::ES256, DecodingKey::from_ec_der(point))),
        _ => Err("the point on P-256 has to be 04, and x and y of 32 bytes each".into()),
    }
}

fn ed25519(key: &[u8]) -> Result<(Algorithm, DecodingKey), String> {
    if key.len() != 32 {
        return Err(format!("the Ed25519 key has {} bytes, it must have 32", key.len()));
    }
    Ok((Algorithm::EdDSA, DecodingKey::from_ed_der(key)))
}

#[cfg(test)]
mod tests;
