//! The effective configuration for `--print-config`, without what must stay secret.

use std::collections::BTreeMap;

use serde::Serialize;
use sluice_access::{MASK, masked_url};
use toml::{Table, Value};
use xxhash_rust::xxh3::xxh3_64;

use super::is_empty;

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

/// What is not as usual, for the log: `prefix="a" shards=2`. Masked as [`masked_toml`] does.
#[must_use]
pub fn changed<T: Serialize + Default>(config: &T) -> String {
    let tree = |config: &T| Table::try_from(config).unwrap_or_default();
    let (clear, usual) = (flat(&tree(config)), flat(&tree(&T::default())));
    let mut shown = tree(config);
    mask_table(&mut shown);
    // By what is set: two secrets look the same behind their masks.
    let differs = |(key, _): &(String, Value)| clear.get(key) != usual.get(key);
    let pairs = flat(&shown).into_iter().filter(differs).map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(" ")
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
        *text = masked_url(text);
    } else if let Value::Array(items) = value {
        items.iter_mut().for_each(|item| mask(item, secret));
    } else if let Value::Table(tree) = value {
        mask_table(tree);
    }
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
    fn what_is_not_as_usual_is_shown_without_secrets() {
        #[derive(Serialize)]
        struct Store {
            url: String,
            lanes: u64,
        }
        #[derive(Serialize)]
        struct Settings {
            prefix: String,
            token_secret: String,
            store: Store,
        }
        impl Default for Settings {
            fn default() -> Self {
                let store = Store { url: "postgres://db".to_owned(), lanes: 8 };
                Self { prefix: "sluice".to_owned(), token_secret: "usual".to_owned(), store }
            }
        }
        assert_eq!(changed(&Settings::default()), "");
        let store = Store { url: "postgres://u:hush@db".to_owned(), lanes: 8 };
        let settings = Settings { token_secret: "s3cret".to_owned(), store, ..Settings::default() };
        let expected = "store.url=\"postgres://u:********@db\" token_secret=\"********\"";
        assert_eq!(changed(&settings), expected);
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
