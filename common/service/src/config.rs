//! Reads a service's configuration: defaults, then the file, then the environment, then `--set`.
//!
//! Errors name the source and the nearest known key. A value is checked where it enters, so that the
//! message points at the line or the variable that is wrong. Never logs a value.

mod address;
mod known;
mod masked;
mod merge;
pub mod sections;
pub mod url;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

pub use address::{Address, BadAddress};
pub use known::KNOWN_ANYWHERE;
use known::NO_KEYS;
pub use masked::{changed, comparable, masked_toml};

/// Environment variables with this prefix are configuration; `__` stands between levels.
pub const ENV_PREFIX: &str = "SLUICE_";
/// A variable with the prefix that names the file.
const ENV_FILE: &str = "SLUICE_CONFIG";

/// Why there is no configuration. The texts are for people and complete.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}", path = .path.display())]
    Read {
        /// The path as it was given.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no TOML, has an unknown key or a value of the wrong type.
    #[error("in the configuration file {path}: {text}", path = .path.display())]
    File {
        /// The path as it was given.
        path: PathBuf,
        /// With line, column and caret.
        text: String,
    },
    /// A variable or flag has an unknown key or a value of the wrong type.
    #[error("{origin}: {text}")]
    Override {
        /// `environment variable SLUICE_…` or `--set …`.
        origin: String,
        /// What is wrong with it.
        text: String,
    },
    /// The defaults themselves cannot be written as TOML: a mistake in the program.
    #[error("the default configuration cannot be written as TOML: {0}")]
    Defaults(#[from] toml::ser::Error),
}

/// A configuration and what is odd about its sources.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The configuration.
    pub config: T,
    /// Sentences for people, for instance about variables of other services or with a typing error.
    pub warnings: Vec<String>,
}

/// Loads a configuration and prints its warnings on stderr (logging is not up yet).
///
/// `T` should be `#[serde(default, deny_unknown_fields)]` at every level. What counts are the defaults in
/// `T::default()`, also for a section of which only some keys are given.
///
/// # Errors
/// [`ConfigError`] names the source of what is wrong.
pub fn load<T: Serialize + DeserializeOwned + Default>(
    service: &str,
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    overrides: &[(String, String)],
) -> Result<T, ConfigError> {
    let loaded = load_with_warnings(file, env, overrides)?;
    for warning in &loaded.warnings {
        crate::lines::Lines::stderr().say(&format!("{service}: warning: {warning}"));
    }
    Ok(loaded.config)
}

/// Like [`load`], and hands the warnings to the caller.
///
/// # Errors
/// [`ConfigError`] names the source of what is wrong.
pub fn load_with_warnings<T: Serialize + DeserializeOwned + Default>(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    overrides: &[(String, String)],
) -> Result<Loaded<T>, ConfigError> {
    let defaults = Table::try_from(T::default())?;
    let mut config = T::default();
    let mut tree = defaults.clone();
    if let Some(path) = file {
        config = read_file(path, &mut tree)?;
    }
    let mut warnings = Vec::new();
    let mut env: Vec<_> = env.filter(|(name, _)| name.starts_with(ENV_PREFIX) && name != ENV_FILE).collect();
    // The environment has no order; messages should.
    env.sort();
    for (name, text) in env {
        let path = name[ENV_PREFIX.len()..].to_lowercase().replace("__", ".");
        match merge::apply(&mut tree, &path, &text) {
            Ok(parsed) => config = parsed,
            // No error: services share their environment, and one's key is unknown to another.
            Err(merge::OverrideRefused::Unknown) if is_known_elsewhere(&path) => {}
            Err(merge::OverrideRefused::Unknown) => warnings.push(unknown_variable(&name, &path, &defaults)),
            Err(merge::OverrideRefused::Invalid(text)) => {
                let origin = format!("environment variable {name}");
                return Err(ConfigError::Override { origin, text });
            }
        }
    }
    for (path, text) in overrides {
        config = merge::apply(&mut tree, path, text).map_err(|refused| {
            let text = match refused {
                merge::OverrideRefused::Invalid(text) => text,
                merge::OverrideRefused::Unknown => unknown_key(path, &defaults),
            };
            ConfigError::Override { origin: format!("--set {path}"), text }
        })?;
    }
    Ok(Loaded { config, warnings })
}

/// Lays the file over `tree`, which holds the defaults. The file is also read by itself, because only then
/// mistakes have a line.
fn read_file<T: DeserializeOwned>(path: &Path, tree: &mut Table) -> Result<T, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    let names = last_names(tree);
    let failed = |error: toml::de::Error| {
        let mut text = merge::in_words(&error.to_string());
        if let Some(near) = unknown_in(error.message()).and_then(|key| near(key, &names)) {
            let _ = write!(text, "did you mean `{near}`?");
        }
        ConfigError::File { path: path.into(), text }
    };
    // Read by itself first, because only then mistakes have a line.
    toml::from_str::<T>(&text).map_err(failed)?;
    merge::overlay(tree, toml::from_str(&text).map_err(failed)?);
    T::deserialize(Value::Table(tree.clone())).map_err(failed)
}

/// The key in serde's text about an unknown field.
fn unknown_in(message: &str) -> Option<&str> {
    message.strip_prefix("unknown field `")?.split('`').next()
}

fn unknown_key(path: &str, defaults: &Table) -> String {
    match near(path, &merge::paths(defaults)) {
        Some(near) => format!("unknown key; did you mean `{near}`?"),
        None => "unknown key".into(),
    }
}

/// Whether another service, or a command, reads it.
fn is_known_elsewhere(path: &str) -> bool {
    KNOWN_ANYWHERE.contains(&path) || NO_KEYS.contains(&path)
}

/// All keys of a configuration, levels separated by dots.
///
/// # Errors
/// The defaults cannot be written as TOML.
pub fn keys<T: Serialize + Default>() -> Result<Vec<String>, ConfigError> {
    Ok(merge::paths(&Table::try_from(T::default())?))
}

fn unknown_variable(name: &str, path: &str, defaults: &Table) -> String {
    let near = near(path, &merge::paths(defaults));
    let near = near.map(|near| format!("{ENV_PREFIX}{}", near.to_uppercase().replace('.', "__")));
    match near {
        Some(near) => format!("environment variable {name} is not known here; did you mean {near}?"),
        None => format!("environment variable {name} is not known here"),
    }
}

fn last_names(defaults: &Table) -> Vec<String> {
    let mut names: Vec<String> =
        merge::paths(defaults).iter().flat_map(|path| path.split('.').map(String::from)).collect();
    names.sort();
    names.dedup();
    names
}

/// The known name most like `name`, if it is like it at all.
fn near(name: &str, known: &[String]) -> Option<String> {
    const LIKE: f64 = 0.8;
    known
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(like, _)| *like >= LIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known.clone())
}

/// Whether a value may be shown: used by `--print-config`.
fn is_empty(value: &Value) -> bool {
    value.as_str().is_some_and(str::is_empty)
}
