//! Secrets that are made here.

/// Random bytes of a token secret.
const SECRET_BYTES: usize = 32;

/// A new token secret, as `openssl rand -hex 32` makes it.
pub(crate) fn random() -> String {
    let bytes: [u8; SECRET_BYTES] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
