//! `sluice instances`, `duties`, `stop`, `drain`, `undrain`, `disconnect`: what an operator asks of any one instance about all of them.

pub(crate) mod commands;
pub(crate) mod disconnect;
pub(crate) mod duties;
pub(crate) mod instances;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use sluice_launcher::probe::{self, Answer, ProbeError};

/// Whom to ask.
#[derive(clap::Args)]
pub(crate) struct Admin {
    /// Admin address of any instance, http://host:port
    #[arg(long, value_name = "ADMIN-URL", env = "SLUICE_ADMIN_URL", default_value = "http://127.0.0.1:8081")]
    admin: String,
    /// Longest wait for an answer, seconds
    #[arg(long, default_value_t = 5)]
    timeout_s: u64,
}

/// Whom to ask, and what shows that one may.
#[derive(clap::Args)]
pub(crate) struct Authorized {
    #[command(flatten)]
    admin: Admin,
    /// File with the token, as the instance has it in admin.token_file
    #[arg(long, value_name = "FILE", env = "SLUICE_ADMIN__TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

impl Admin {
    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.read(probe::get(&self.url(path), self.within()).await)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.admin.trim_end_matches('/'))
    }

    fn within(&self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }

    /// What it answered, if it did what it was asked.
    fn read(&self, answer: Result<Answer, ProbeError>) -> anyhow::Result<Value> {
        let answer = answer.with_context(|| format!("{} does not answer", self.admin))?;
        let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        if (200..300).contains(&answer.status) {
            return Ok(said);
        }
        match said.get("error").and_then(Value::as_str) {
            Some(why) => bail!("{why}"),
            None => bail!("{} answers {}: is this an admin address?", self.admin, answer.status),
        }
    }
}

impl Authorized {
    async fn post(&self, path: &str, body: &str) -> anyhow::Result<Value> {
        let Some(file) = &self.token_file else {
            bail!("a token is needed: --token-file with the file that the instance has in admin.token_file")
        };
        let token =
            std::fs::read_to_string(file).with_context(|| format!("--token-file {}", file.display()))?;
        let shown = format!("Bearer {}", token.trim());
        let (admin, url) = (&self.admin, self.admin.url(path));
        let asked = probe::post_with(&url, ("Authorization", &shown), body, admin.within());
        admin.read(asked.await)
    }
}
