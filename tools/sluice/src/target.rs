//! Which gateway to talk to, and as whom: the flags shared by `pub` and `sub`, and a connection that says what keeps it
//! waiting.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use sluice_client::{Client, Error, Event, Events, Options, Trust};
use sluice_program::output;
use tokio::time::sleep;

use crate::paste;

/// Who waits for longer than this wants to know for what.
pub(crate) const QUIET: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub(crate) struct Target {
    /// Gateway, ws:// or wss:// (TLS); may be repeated, each attempt goes to the next
    #[arg(long, env = "SLUICE_URL", value_delimiter = ',', default_value = "ws://127.0.0.1:8080/ws")]
    url: Vec<String>,
    /// Token (`sluice token` makes one); without it the gateway may give an anonymous user
    #[arg(long, env = "SLUICE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Certificate authority to trust at wss:// beside the public ones, PEM
    #[arg(long, env = "SLUICE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Target {
    /// The first connection.
    pub(crate) async fn connect(self) -> anyhow::Result<(Client, Events)> {
        let urls = self.url.join(", ");
        let connect = Client::connect(self.options()?);
        tokio::pin!(connect);
        let connected = tokio::select! {
            connected = &mut connect => connected,
            // The client tries for ever, and whoever mistyped the URL should not have to guess why.
            () = sleep(QUIET) => {
                output::note(format_args!("sluice: {urls} has not answered yet; still trying"));
                connect.await
            }
        };
        if let Err(Error::TokenNeeded) = connected {
            let sluice = paste::program();
            bail!(
                "a token is needed: --token, or SLUICE_TOKEN (`{sluice} token --help` says how to make one)"
            );
        }
        Ok(connected?)
    }

    fn options(self) -> anyhow::Result<Options> {
        let trust = trust(self.ca.as_deref())?;
        let mut urls = self.url.into_iter();
        let options = urls.by_ref().take(1).fold(Options::new(""), |_, url| Options::new(url));
        let options = urls.fold(options, Options::or).trust(trust);
        Ok(match self.token.filter(|token| !token.is_empty()) {
            Some(token) => options.token(token),
            None => options,
        })
    }
}

/// Whom a connection with TLS trusts: the public authorities, and that of a file.
pub(crate) fn trust(ca: Option<&Path>) -> anyhow::Result<Trust> {
    let Some(file) = ca else { return Ok(Trust::default()) };
    let pem = std::fs::read(file).with_context(|| format!("--ca {}", file.display()))?;
    Trust::with_ca(&pem).map_err(|why| anyhow!("--ca {}: {why}", file.display()))
}

/// Why nothing comes, as far as the last events tell.
pub(crate) fn latest(event: &Event, why: &mut String) {
    if let Event::Connected(_) = event {
        *why = "connected, the gateway has not answered".to_owned();
    } else if let Event::Closed { code, reason, .. } = event {
        let code = code.map(|code| format!("closed with {code}"));
        *why = format!("{}: {reason}", code.as_deref().unwrap_or("the connection broke off"));
    } else if let Event::Bye(bye) = event {
        why.clone_from(&bye.reason);
    } else if let Event::Drain(drain) = event {
        why.clone_from(&drain.reason);
    } else if let Event::Error(error) = event {
        why.clone_from(&error.message);
    }
}
