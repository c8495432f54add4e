//! Keys that sign and verify tokens, as people have them: secrets, PEM files, JWK sets. A key is good for the algorithm of
//! its type and no other.

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, encode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde::Serialize;

use super::Refused;

/// Object identifiers, as they stand in DER: rsaEncryption, prime256v1, Ed25519.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
/// An uncompressed point on P-256, and a key of Ed25519: the end of what stands around them.
const P256_BYTES: usize = 65;
const ED25519_BYTES: usize = 32;
/// PKCS #1 of a key of 2,048 bits has 1,190 bytes or so, one of 1,024 has 610.
const RSA_BYTES_MIN: usize = 1_000;

/// What signs tokens.
#[derive(Debug, Clone)]
pub struct SigningKey {
    algorithm: Algorithm,
    kid: Option<String>,
    encoding: EncodingKey,
}

impl SigningKey {
    /// The UTF-8 bytes of a secret: HS256.
    #[must_use]
    pub fn secret(secret: &str) -> Self {
        let encoding = EncodingKey::from_secret(secret.as_bytes());
        Self { algorithm: Algorithm::HS256, kid: None, encoding }
    }

    /// A private key in PEM: RSA, P-256 or Ed25519.
    ///
    /// # Errors
    /// [`Refused`] says what is wrong with it, and what would be right.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Refused> {
        match PrivateKeyDer::from_pem_slice(pem) {
            Ok(PrivateKeyDer::Pkcs8(key)) => Self::from_pkcs8(key.secret_pkcs8_der()),
            Ok(PrivateKeyDer::Pkcs1(key)) => Self::rsa(key.secret_pkcs1_der()),
            Ok(_) => Err(Refused("this is no PKCS #8: openssl pkcs8 -topk8 -nocrypt -in KEY makes it one".into())),
            Err(_) => Err(Refused(
                "there is no private key in it (-----BEGIN PRIVATE KEY-----): openssl genpkey -algorithm ed25519 \
                 makes one"
                    .into(),
            )),
        }
    }

    /// A private key in PKCS #8.
    ///
    /// # Errors
    /// As [`SigningKey::from_pem`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, Refused> {
        let found = |id: &[u8]| der.get(..40.min(der.len())).is_some_and(|head| holds(head, id));
        let key = |algorithm, encoding| Ok(Self { algorithm, kid: None, encoding });
        if found(RSA) {
            // The key itself is the last element: an octet string behind the algorithm and its NULL.
            let at = der.windows(RSA.len()).position(|part| part == RSA).unwrap_or_default() + RSA.len() + 2;
            return match der.get(at..) {
                Some([0x04, 0x82, _, _, key @ ..] | [0x04, 0x81, _, key @ ..]) => Self::rsa(key),
                _ => Err(Refused("the RSA key cannot be read".into())),
            };
        }
        if found(P256) {
            return key(Algorithm::ES256, EncodingKey::from_ec_der(der));
        }
        if found(ED25519) {
            return key(Algorithm::EdDSA, EncodingKey::from_ed_der(der));
        }
        Err(Refused("the key is neither RSA nor P-256 nor Ed25519".into()))
    }

    fn rsa(der: &[u8]) -> Result<Self, Refused> {
        if der.len() < RSA_BYTES_MIN {
            return Err(Refused("the RSA key is shorter than 2048 bits, which logic refuses".into()));
        }
        let encoding = EncodingKey::from_rsa_der(der);
        Ok(Self { algorithm: Algorithm::RS256, kid: None, encoding })
    }

    /// Its tokens name it.
    #[must_use]
    pub fn named(mut self, kid: impl Into<String>) -> Self {
        self.kid = Some(kid.into());
        self
    }

    /// What it signs with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Signs these claims as they are.
    ///
    /// # Errors
    /// [`Refused`] when they are no JSON, or the key is none.
    pub fn sign<T: Serialize>(&self, claims: &T) -> Result<String, Refused> {
        let header = Header { kid: self.kid.clone(), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.encoding).map_err(|error| Refused(format!("cannot be signed: {error}")))
    }

    /// Its public part, as a provider publishes it.
    ///
    /// # Errors
    /// [`Refused`] when there is none: a secret has no part for others.
    pub fn public(&self) -> Result<Jwk, Refused> {
        if self.algorithm == Algorithm::HS256 {
            return Err(Refused("a secret has no public part".into()));
        }
        let jwk = Jwk::from_encoding_key(&self.encoding, self.algorithm);
        let mut jwk = jwk.map_err(|error| Refused(format!("the key cannot be used: {error}")))?;
        jwk.common.key_id.clone_from(&self.kid);
        Ok(jwk)
    }
}

/// What verifies tokens.
#[derive(Debug, Clone)]
pub struct VerifyingKeys(Vec<(Option<String>, Algorithm, DecodingKey)>);

impl VerifyingKeys {
    /// The UTF-8 bytes of a secret: HS256.
    #[must_use]
    pub fn secret(secret: &str) -> Self {
        Self(vec![(None, Algorithm::HS256, DecodingKey::from_secret(secret.as_bytes()))])
    }

    /// A JWK set, or a public or private key in PEM.
    ///
    /// # Errors
    /// [`Refused`] says what is wrong with it.
    pub fn read(text: &[u8]) -> Result<Self, Refused> {
        if text.trim_ascii_start().starts_with(b"{") {
            let set: JwkSet = serde_json::from_slice(text)
                .map_err(|error| Refused(format!("this is no JWK set, {{\"keys\":[…]}}: {error}")))?;
            return Ok(Self(set.keys.iter().filter_map(of_jwk).collect()));
        }
        if let Ok(key) = SubjectPublicKeyInfoDer::from_pem_slice(text) {
            return of_spki(key.as_ref()).map(|(algorithm, key)| Self(vec![(None, algorithm, key)]));
        }
        let public = SigningKey::from_pem(text)?.public()?;
        Ok(Self(of_jwk(&public).into_iter().collect()))
    }

    /// Those that may have signed a token with this header.
    pub(super) fn fitting(&self, header: &Header) -> impl Iterator<Item = &DecodingKey> + use<'_> {
        let (wanted, named) = (header.alg, header.kid.clone());
        self.0.iter().filter_map(move |(kid, algorithm, key)| {
            let fits = kid.is_none() || named.is_none() || *kid == named;
            (fits && *algorithm == wanted).then_some(key)
        })
    }

    /// What they are good for, for people.
    pub(super) fn names(&self) -> String {
        let name = |(kid, algorithm, _): &(Option<String>, Algorithm, DecodingKey)| match kid {
            Some(kid) => format!("{algorithm:?} {kid:?}"),
            None => format!("{algorithm:?}"),
        };
        self.0.iter().map(name).collect::<Vec<_>>().join(", ")
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that may grow")]
fn of_jwk(jwk: &Jwk) -> Option<(Option<String>, Algorithm, DecodingKey)> {
    use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve};
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        // A foreign enum; what is not named verifies nothing.
        _ => return None,
    };
    Some((jwk.common.key_id.clone(), algorithm, DecodingKey::from_jwk(jwk).ok()?))
}

fn of_spki(der: &[u8]) -> Result<(Algorithm, DecodingKey), Refused> {
    let end = |bytes: usize| &der[der.len().saturating_sub(bytes)..];
    if holds(der, P256) {
        return Ok((Algorithm::ES256, DecodingKey::from_ec_der(end(P256_BYTES))));
    }
    if holds(der, RSA) {
        // A bit string behind the algorithm and its NULL: its length, no unused bits, the key.
        let at = der.windows(RSA.len()).position(|part| part == RSA).unwrap_or_default() + RSA.len() + 2;
        return match der.get(at..) {
            Some([0x03, 0x82, _, _, 0, key @ ..] | [0x03, 0x81, _, 0, key @ ..]) => {
                Ok((Algorithm::RS256, DecodingKey::from_rsa_der(key)))
            }
            _ => Err(Refused("the RSA key cannot be read".into())),
        };
    }
    if holds(der, ED25519) {
        return Ok((Algorithm::EdDSA, DecodingKey::from_ed_der(end(ED25519_BYTES))));
    }
    Err(Refused("the key is neither RSA nor P-256 nor Ed25519".into()))
}

fn holds(der: &[u8], id: &[u8]) -> bool {
    der.windows(id.len()).any(|part| part == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_of_key_signs_with_its_algorithm_and_publishes_what_verifies() {
        for (private, public, algorithm) in [
            (
                &include_bytes!("../../keys/rsa2048.pem")[..],
                &include_bytes!("../../keys/rsa2048.pub.pem")[..],
                Algorithm::RS256,
            ),
            (
                include_bytes!("../../keys/p256.pem"),
                include_bytes!("../../keys/p256.pub.pem"),
                Algorithm::ES256,
            ),
            (
                include_bytes!("../../keys/ed25519.pem"),
                include_bytes!("../../keys/ed25519.pub.pem"),
                Algorithm::EdDSA,
            ),
        ] {
            let key = SigningKey::from_pem(private).unwrap().named("k1");
            assert_eq!(key.algorithm(), algorithm);
            let claims = serde_json::json!({"sub": "ann", "exp": super::super::now_s() + 60});
            let token = key.sign(&claims).unwrap();
            let set = serde_json::to_vec(&JwkSet { keys: vec![key.public().unwrap()] }).unwrap();
            for verifying in [&set[..], public, private] {
                let keys = VerifyingKeys::read(verifying).unwrap();
                let checked = super::super::check_with(&keys, &token).map(|claims| claims.sub);
                assert_eq!(checked, Ok("ann".to_owned()), "{algorithm:?}");
            }
            let other = VerifyingKeys::secret("secret");
            let refused = super::super::check_with(&other, &token).unwrap_err().0;
            assert!(refused.contains(&format!("{algorithm:?}")) && refused.contains("HS256"), "{refused}");
            // The public key is known to everybody: as a secret it would be everybody's.
            let forged = SigningKey::secret(std::str::from_utf8(public).unwrap()).sign(&claims).unwrap();
            let keys = VerifyingKeys::read(public).unwrap();
            assert!(super::super::check_with(&keys, &forged).is_err());
        }
    }

    #[test]
    fn what_signs_nothing_is_said() {
        let why = |pem: &[u8]| SigningKey::from_pem(pem).unwrap_err().0;
        assert!(why(include_bytes!("../../keys/rsa1024.pem")).contains("2048"));
        assert!(why(include_bytes!("../../keys/p384.pem")).contains("neither RSA nor P-256"));
        assert!(why(include_bytes!("../../keys/p256.pub.pem")).contains("no private key"));
        assert!(SigningKey::secret("s").public().is_err());
    }
}
