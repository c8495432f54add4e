//! Lays one source over another, value by value. A text finds its type by what the configuration accepts.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Why a text was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OverrideRefused {
    /// There is no such key.
    Unknown,
    /// The key is there, the value is of another type.
    Invalid(String),
}

/// Values of `over` replace those of `tree`; tables are merged.
pub(super) fn overlay(tree: &mut Table, over: Table) {
    for (key, value) in over {
        match (tree.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => overlay(below, above),
            (_, value) => {
                tree.insert(key, value);
            }
        }
    }
}

/// Sets `path` (levels separated by dots) to `text` and reads the whole tree anew. On refusal the tree is
/// as before.
pub(super) fn apply<T: DeserializeOwned>(
    tree: &mut Table,
    path: &str,
    text: &str,
) -> Result<T, OverrideRefused> {
    let mut refused = None;
    for value in readings(text) {
        // A copy, as a refusal must leave the tree as it was.
        let mut with = tree.clone();
        if !set(&mut with, path, value) {
            return Err(OverrideRefused::Unknown);
        }
        match T::deserialize(Value::Table(with.clone())) {
            Ok(config) => {
                *tree = with;
                return Ok(config);
            }
            // serde says it only in words.
            Err(error) if error.message().starts_with("unknown field") => {
                return Err(OverrideRefused::Unknown);
            }
            Err(error) => refused = refused.or(Some(OverrideRefused::Invalid(in_words(error.message())))),
        }
    }
    Err(refused.unwrap_or(OverrideRefused::Unknown))
}

/// serde's text without the names of our types: a section is a table.
pub(super) fn in_words(text: &str) -> String {
    const TYPE: &str = "expected struct ";
    let Some((before, after)) = text.split_once(TYPE) else { return text.to_owned() };
    let after = after.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
    format!("{before}expected a table{after}")
}

/// What a text can mean, the most literal first: a string, a TOML value, a list of strings.
fn readings(text: &str) -> impl Iterator<Item = Value> {
    let toml = text.parse::<Value>().ok().filter(|value| !value.is_str());
    let list = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let list = Value::Array(list.map(|item| Value::String(item.into())).collect());
    // A string first: a secret of digits must stay text where text is wanted.
    [Some(Value::String(text.into())), toml, Some(list)].into_iter().flatten()
}

/// Whether there is a place for `path`: every level above the last is a table, or absent.
fn set(tree: &mut Table, path: &str, value: Value) -> bool {
    match path.split_once('.') {
        None => {
            tree.insert(path.into(), value);
            true
        }
        Some((level, rest)) => {
            let below = tree.entry(level).or_insert_with(|| Value::Table(Table::new()));
            below.as_table_mut().is_some_and(|below| set(below, rest, value))
        }
    }
}

/// The paths of all values, levels separated by dots.
pub(super) fn paths(tree: &Table) -> Vec<String> {
    let mut all = Vec::new();
    for (key, value) in tree {
        match value.as_table() {
            Some(below) => all.extend(paths(below).into_iter().map(|path| format!("{key}.{path}"))),
            None => all.push(key.clone()),
        }
    }
    all
}
