//! Keys of the HTTP API: how one is made, and the file that says which ones are good. The file holds hashes: whoever
//! reads it cannot call. A key has 256 random bits, so a plain hash of it tells nothing.

use std::collections::HashSet;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use toml::value::{Datetime, Offset};

/// Begins every key, so that scanners for leaked secrets know it.
pub const API_KEY_PREFIX: &str = "sluice_";
/// Most keys in a file: their names are labels of metrics.
pub const API_KEYS_MAX: usize = 1_000;
/// Longest name of a key, bytes.
const NAME_BYTES_MAX: usize = 64;
/// Most rooms, users or prefixes in one scope of a key.
const SCOPE_MAX: usize = 1_000;

/// SHA-256 of a key.
pub type KeyHash = [u8; 32];

/// A fresh key. It is shown once and kept nowhere.
#[must_use]
pub fn new_api_key() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().fold(API_KEY_PREFIX.to_owned(), |mut key, byte| {
        // Writing into a String cannot fail.
        let _ = write!(key, "{byte:02x}");
        key
    })
}

/// The hash of a key, by which it is known.
#[must_use]
pub fn api_key_hash(key: &str) -> KeyHash {
    Sha256::digest(key.as_bytes()).into()
}

/// What a file says of one key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyEntry {
    /// Shown in metrics and logs, and who publishes where a call does not say: letters, digits and `._-`.
    pub name: String,
    /// `sha256:` and 64 hex digits.
    pub hash: String,
    /// Rooms to read and look into, exact or prefixes ending in `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sub: Vec<String>,
    /// Rooms to publish to, likewise.
    #[serde(default, rename = "pub", skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
    /// Users to disconnect and to take out of rooms, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disconnect: Vec<String>,
    /// Not good from then on, as `2027-01-31T00:00:00Z`; without it good for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Datetime>,
    /// Calls a second instead of `api.calls_per_s`; 0 = no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_per_s: Option<u32>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    #[serde(default)]
    keys: Vec<ApiKeyEntry>,
}

impl ApiKeyEntry {
    /// An entry without scopes for a key.
    #[must_use]
    pub fn of(name: &str, key: &str) -> Self {
        let mut hash = "sha256:".to_owned();
        for byte in api_key_hash(key) {
            let _ = write!(hash, "{byte:02x}");
        }
        let (sub, publish, disconnect) = Default::default();
        Self { name: name.into(), hash, sub, publish, disconnect, expires: None, calls_per_s: None }
    }

    /// As it stands in the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn to_toml(&self) -> Result<String, String> {
        self.check()?;
        let file = KeysFile { keys: vec![self.clone()] };
        toml::to_string(&file).map_err(|error| error.to_string())
    }

    /// The hash as bytes; `None` where it is none.
    #[must_use]
    pub fn key_hash(&self) -> Option<KeyHash> {
        let digits = self.hash.strip_prefix("sha256:").filter(|digits| digits.len() == 64)?;
        let mut hash = [0; 32];
        for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
        }
        Some(hash)
    }

    /// When it ends, milliseconds since 1970.
    #[must_use]
    pub fn expires_ms(&self) -> Option<i64> {
        self.expires.as_ref().and_then(unix_ms)
    }

    fn check(&self) -> Result<(), String> {
        let Self { name, .. } = self;
        let named = (1..=NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !named {
            return Err(format!(
                "{name:?} is no name of a key: 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes or underscores"
            ));
        }
        if self.key_hash().is_none() {
            return Err(format!("the hash of {name} is not sha256: and 64 hex digits"));
        }
        if [&self.sub, &self.publish, &self.disconnect].iter().any(|scope| scope.len() > SCOPE_MAX) {
            return Err(format!("{name} has more than {SCOPE_MAX} names or prefixes in one scope"));
        }
        if self.expires.is_some() && self.expires_ms().is_none() {
            return Err(format!(
                "expires of {name} needs a date, a time and an offset: 2027-01-31T00:00:00Z"
            ));
        }
        Ok(())
    }
}

/// Reads a file of keys.
///
/// # Errors
/// What is wrong with it, by line or by the key's name. No part of a bad file counts.
pub fn read_api_keys(text: &str) -> Result<Vec<ApiKeyEntry>, String> {
    let KeysFile { keys } = toml::from_str(text).map_err(|error| error.to_string())?;
    if keys.len() > API_KEYS_MAX {
        return Err(format!("it has {} keys, at most {API_KEYS_MAX} are allowed", keys.len()));
    }
    let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
    for entry in &keys {
        entry.check()?;
        if !names.insert(&entry.name) {
            return Err(format!("two keys have the name {}", entry.name));
        }
        if !hashes.insert(entry.key_hash()) {
            return Err(format!("{} has the hash of another key", entry.name));
        }
    }
    Ok(keys)
}

/// Milliseconds since 1970; `None` without a date, a time and an offset.
fn unix_ms(at: &Datetime) -> Option<i64> {
    let (date, time) = (at.date?, at.time?);
    let offset_min = match at.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    // Days since 1970 by the proleptic Gregorian calendar; a year begins in March, so that the day of a leap year is its last.
    let (month, day) = (i64::from(date.month), i64::from(date.day));
    let year = i64::from(date.year) - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let minutes = (days * 24 + i64::from(time.hour)) * 60 + i64::from(time.minute) - offset_min;
    Some((minutes * 60 + i64::from(time.second.unwrap_or(0))) * 1_000)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_was_made_is_read_again() {
        let key = new_api_key();
        assert!(key.starts_with(API_KEY_PREFIX) && key.len() == API_KEY_PREFIX.len() + 64);
        let entry = ApiKeyEntry {
            publish: vec!["news.*".into()],
            disconnect: vec!["guest-*".into()],
            expires: Some("2027-01-31T12:00:00+02:00".parse().unwrap()),
            ..ApiKeyEntry::of("billing", &key)
        };
        let other = ApiKeyEntry::of("other", &new_api_key());
        let text = format!("# keys\n{}\n{}", entry.to_toml().unwrap(), other.to_toml().unwrap());
        assert!(!text.contains(&key));
        let read = read_api_keys(&text).unwrap();
        assert_eq!(read, [entry.clone(), other]);
        assert_eq!(read[0].key_hash(), Some(api_key_hash(&key)));
        assert_eq!(read[0].expires_ms(), Some(1_801_389_600_000));
        assert_eq!(read_api_keys("").unwrap(), []);
    }

    #[test]
    fn times_are_counted_from_1970() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2024-03-01T00:00:00Z", 1_709_251_200),
            ("2100-02-28T00:00:00-01:30", 4_107_461_400),
            ("1969-12-31T23:59:00Z", -60),
        ] {
            assert_eq!(unix_ms(&text.parse().unwrap()), Some(seconds * 1_000), "{text}");
        }
        assert_eq!(unix_ms(&"2027-01-31".parse().unwrap()), None);
    }

    #[test]
    fn a_bad_file_is_refused_as_a_whole() {
        let entry = ApiKeyEntry::of("a", "k").to_toml().unwrap();
        let with = |line: &str| format!("{entry}{line}\n");
        for (text, says) in [
            ("keys".to_owned(), "line 1"),
            (with("scopes = []"), "unknown field"),
            (with("expires = 2027-01-31"), "offset"),
            (format!("{entry}{entry}"), "two keys have the name a"),
            (format!("{entry}{}", entry.replace("\"a\"", "\"b\"")), "hash of another key"),
            (entry.replace("\"a\"", "\"a b\""), "no name of a key"),
            (entry.replace("sha256:", "md5:"), "64 hex digits"),
        ] {
            let error = read_api_keys(&text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
