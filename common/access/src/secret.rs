//! Secrets of a configuration: they are read and written as the text they are, and shown as what they are not. Whoever
//! needs the text says so, by [`SecretUrl::reveal`] and [`Secret::reveal`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// Stands for a secret that is set.
pub const MASK: &str = "********";

/// A URL, or several separated by commas, in which a password or a token may stand.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

/// A password, or what tokens are signed with.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl SecretUrl {
    /// As it is written, with its password.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// That it is not set is what one looks for.
    fn shown(&self) -> &'static str {
        if self.is_empty() { "" } else { MASK }
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked_url(&self.0))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", masked_url(&self.0))
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

impl From<String> for SecretUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl From<&str> for SecretUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Self {
        Self(secret.to_owned())
    }
}

/// A URL to be shown.
#[must_use]
pub fn masked_url(url: &str) -> String {
    let mut text = url.to_owned();
    mask_password(&mut text);
    text
}

/// Of each URL of a list, as NATS takes one; a token that stands alone before the `@` is masked too.
fn mask_nats(text: &mut String) {
    let mut masked = Vec::new();
    for url in text.split(',') {
        let mut url = url.to_owned();
        let start = url.find("://").map_or(0, |at| at + 3);
        if let Some(at) = url.rfind('@').filter(|at| *at >= start && !url[start..*at].contains(':')) {
            url.replace_range(start..at, MASK);
        } else if start > 0 {
            mask_url(&mut url);
        }
        masked.push(url);
    }
    *text = masked.join(",");
}

fn mask_password(text: &mut String) {
    if text.starts_with("nats://") || text.starts_with("tls://") { mask_nats(text) } else { mask_url(text) }
}

/// `scheme://user:password@host` becomes `scheme://user:********@host`; so does a password in the query.
fn mask_url(text: &mut String) {
    let Some(start) = text.find("://").map(|at| at + 3) else { return };
    // A password may itself contain "@", "/" or "?": the host begins after the last "@" before the options.
    let options = text[start..].find("=").map_or(text.len(), |at| start + at);
    let end = text[start..options].rfind('?').map_or(options, |at| start + at);
    let end = if text[start..end].contains('@') { end } else { options };
    let behind = text[start..end].rfind('@').map(|at| start + at);
    // A "=" may also stand in the password: an "@" before the first "/" ends one in any case.
    let authority = text[start..].find(['/', '?', '#']).map_or(text.len(), |at| start + at);
    let within = text[start..authority].rfind('@').map(|at| start + at);
    if let Some(at) = behind.max(within)
        && let Some(colon) = text[start..at].find(':').map(|colon| start + colon)
    {
        text.replace_range(colon + 1..at, MASK);
    }
    mask_options(text);
}

/// Each password among the options behind the `?`.
fn mask_options(text: &mut String) {
    let Some(start) = text.find('?').map(|at| at + 1) else { return };
    let hidden = |option: &str| match option.split_once('=') {
        Some((key @ ("password" | "pass" | "sslpassword"), _)) => format!("{key}={MASK}"),
        Some(_) | None => option.to_owned(),
    };
    let options: Vec<_> = text[start..].split('&').map(hidden).collect();
    text.replace_range(start.., &options.join("&"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_masked() {
        for (url, shown) in [
            ("redis://ann:hush@h:1/0", "redis://ann:********@h:1/0"),
            ("redis://:hu@sh@h:1", "redis://:********@h:1"),
            ("redis+sentinel://ann:hush@a:1,b:2/main/3", "redis+sentinel://ann:********@a:1,b:2/main/3"),
            ("postgres://sluice:aHVzaA==@db:5432/sluice", "postgres://sluice:********@db:5432/sluice"),
            ("rediss://:aHVzaA=@redis:6379/0", "rediss://:********@redis:6379/0"),
            (
                "postgres://u:hu=sh@a,b/db?sslmode=verify-full",
                "postgres://u:********@a,b/db?sslmode=verify-full",
            ),
            ("postgres://u:hu?sh@db:5432/sluice", "postgres://u:********@db:5432/sluice"),
            ("postgres://u:hush@db/sluice?user=a@b", "postgres://u:********@db/sluice?user=a@b"),
            ("postgres://db/sluice?password=hush&x=1", "postgres://db/sluice?password=********&x=1"),
            (
                "postgres://db/s?password=a&x=1&password=b",
                "postgres://db/s?password=********&x=1&password=********",
            ),
            ("unix:///run/redis.sock?db=1&pass=hush", "unix:///run/redis.sock?db=1&pass=********"),
            ("nats://token@h:4222", "nats://********@h:4222"),
            ("tls://ann:hush@a:1,nats://token@b:1,c:1", "tls://ann:********@a:1,nats://********@b:1,c:1"),
        ] {
            let typed = SecretUrl::from(url);
            assert_eq!((masked_url(url), typed.to_string()), (shown.to_owned(), shown.to_owned()));
            assert_eq!((format!("{typed:?}"), typed.reveal()), (format!("{shown:?}"), url));
        }
    }

    #[test]
    fn a_secret_is_shown_as_set_or_not() {
        let secret = Secret::from("hush");
        assert_eq!(
            (secret.to_string(), format!("{secret:?}"), secret.reveal()),
            (MASK.into(), format!("{MASK:?}"), "hush")
        );
        assert_eq!(
            (Secret::default().to_string(), format!("{:?}", Secret::default())),
            ("".into(), "\"\"".into())
        );
    }
}
