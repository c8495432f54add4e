//! The effective configuration for `--print-config`, without what must stay secret.

use std::collections::BTreeMap;

use serde::Serialize;
use toml::{Table, Value};
use xxhash_rust::xxh3::xxh3_64;

use super::is_empty;

/// Stands for a secret that is set.
const MASK: &str = "********";
/// A string under a key that contains one of these is a secret.
const SECRET_WORDS: [&str; 4] = ["secret", "password", "token", "api_key"];

/// Each key with its value as text, to be held against those of other services: what is masked has a number behind it
/// that is the same for the same text and the same salt.
#[must_use]
pub fn comparable<T: Serialize>(config: &T, salt: &str) -> BTreeMap<String, String> {
    let Ok(clear) = Table::try_from(config) else { return BTreeMap::new() };
    let mut shown = clear.clone();
    mask_table(&mut shown);
    let (clear, shown) = (flat(&clear), flat(&shown));
    let text = |(key, value): (&String, &Value)| {
        let real = clear.get(key).map(ToString::to_string).unwrap_or_default();
        let mut text = value.to_string();
        if text != real {
            text.push_str(&format!(" (#{:016x})", xxh3_64(format!("{salt}{real}").as_bytes())));
        }
        (key.clone(), text)
    };
    shown.iter().map(text).collect()
}

fn flat(tree: &Table) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (key, value) in tree {
        match value.as_table() {
            Some(below) => {
                all.extend(flat(below).into_iter().map(|(path, value)| (format!("{key}.{path}"), value)))
            }
            None => drop(all.insert(key.clone(), value.clone())),
        }
    }
    all
}

/// A URL to be shown.
pub(super) fn masked_url(url: &str) -> String {
    let mut text = url.to_owned();
    mask_password(&mut text);
    text
}

/// The configuration as TOML; strings under keys that name secrets, and passwords in URLs, are masked.
#[must_use]
pub fn masked_toml<T: Serialize>(config: &T) -> String {
    let masked = Table::try_from(config).map(|mut tree| {
        mask_table(&mut tree);
        toml::to_string_pretty(&tree)
    });
    match masked {
        Ok(Ok(text)) => text,
        Ok(Err(error)) | Err(error) => format!("# cannot be written as TOML: {error}\n"),
    }
}

fn mask_table(tree: &mut Table) {
    for (key, value) in tree.iter_mut() {
        // The name of a file is none.
        let secret =
            !key.ends_with("_file") && SECRET_WORDS.iter().any(|word| key.to_lowercase().contains(word));
        mask(value, secret);
    }
}

fn mask(value: &mut Value, secret: bool) {
    // An empty secret is shown empty: that it is not set is what one looks for.
    if secret && value.is_str() && !is_empty(value) {
        *value = Value::String(MASK.into());
    } else if let Value::String(text) = value {
        mask_password(text);
    } else if let Value::Array(items) = value {
        items.iter_mut().for_each(|item| mask(item, secret));
    } else if let Value::Table(tree) = value {
        mask_table(tree);
    }
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
    fn secrets_are_masked_and_the_rest_is_shown() {
        let tree: Table = toml::from_str(
            r#"
            token_secret = "s3cret"
            empty_secret = ""
            token_ttl_s = 5
            prefix = "sluice"
            [postgres]
            url = "postgres://sluice:p@ss/w@db:5432/sluice?password=hush&x=1"
            [nats]
            url = "nats://n:4222"
            api_keys = ["a", "b"]
            "#,
        )
        .unwrap();
        let shown = masked_toml(&tree);
        for hidden in ["s3cret", "hush", "\"a\""] {
            assert!(!shown.contains(hidden), "{shown}");
        }
        for clear in ["token_ttl_s = 5", "prefix = \"sluice\"", "nats://n:4222", "empty_secret = \"\""] {
            assert!(shown.contains(clear), "{clear} in {shown}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_masked() {
        let mut url = "redis://ann:hush@h:1/0".to_owned();
        mask_password(&mut url);
        assert_eq!(url, "redis://ann:********@h:1/0");
        let mut url = "redis://:hu@sh@h:1".to_owned();
        mask_password(&mut url);
        assert_eq!(url, "redis://:********@h:1");
        for (url, shown) in [
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
            assert_eq!(masked_url(url), shown);
        }
    }

    #[test]
    fn secrets_can_be_compared_without_being_shown() {
        let tree = |secret: &str| -> Table {
            toml::from_str(&format!(
                "prefix = \"p\"\ntoken_secret = \"{secret}\"\n[redis]\nurl = \"redis://:{secret}@h\""
            ))
            .unwrap()
        };
        let (one, same, other) =
            (comparable(&tree("a"), "s"), comparable(&tree("a"), "s"), comparable(&tree("b"), "s"));
        assert_eq!(one, same);
        assert_ne!(one, comparable(&tree("a"), "t"), "nobody can look up what a number stands for");
        assert_eq!(one["prefix"], "\"p\"");
        for key in ["token_secret", "redis.url"] {
            assert!(one[key] != other[key] && one[key].contains("********"), "{one:?}");
        }
    }
}
