//! The flags every service has. Parsing only: what to do with them is `main`'s.

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::{self, ConfigError};

/// Flags shared by the services, to be flattened into their own.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "SLUICE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Set one configuration key, over file and environment; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub overrides: Vec<(String, String)>,
    /// Print the effective configuration, secrets masked, and exit
    #[arg(long)]
    pub print_config: bool,
    /// Check the configuration for mistakes and contradictions, and exit
    #[arg(long)]
    pub check: bool,
    /// With --check: connect once to each server that is configured, and say what it answers
    #[arg(long, requires = "check")]
    pub connect: bool,
    /// What `sluice check` holds against other services; secrets as numbers that depend on this salt
    #[arg(long, value_name = "SALT", hide = true)]
    pub print_comparable: Option<String>,
}

impl Args {
    /// Loads the configuration from the defaults, the file, the process's environment and `--set`.
    ///
    /// # Errors
    /// [`ConfigError`] names the source of what is wrong.
    pub fn load<T>(&self, service: &str) -> Result<T, ConfigError>
    where
        T: Serialize + DeserializeOwned + Default,
    {
        config::load(
            service,
            self.config.as_deref(),
            std::env::vars_os().filter_map(readable),
            &self.overrides,
        )
    }
}

/// Variables that are no Unicode are not ours.
fn readable((name, value): (std::ffi::OsString, std::ffi::OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        Some(_) | None => Err("expected KEY=VALUE, for instance drain.rate_per_s=500".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn flags_are_read() {
        let command =
            Command::parse_from(["x", "--config", "c.toml", "--set", "a.b=1=2", "--set", "c=", "--check"]);
        assert_eq!(command.args.config, Some("c.toml".into()));
        assert_eq!(command.args.overrides, [("a.b".into(), "1=2".into()), ("c".into(), String::new())]);
        assert!(command.args.check && !command.args.print_config);
        assert!(Command::try_parse_from(["x", "--set", "nonsense"]).is_err());
    }
}
