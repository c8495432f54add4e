//! The browser whose tabs are clients: one for all of a load. It must be there before the gateways are, which let pages in by
//! the address that they come from.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use super::program::command;
use crate::load::plan::ClientKind;

/// It has started within this, on a machine that is busy.
const STARTS: Duration = Duration::from_secs(60);
/// It has ended within this, else it is killed.
const ENDS: Duration = Duration::from_secs(15);

/// What the program says first.
#[derive(Deserialize)]
struct Introduction {
    origin: String,
    port: u16,
}

/// A browser that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    origin: String,
    address: SocketAddr,
}

/// What it says besides.
pub(super) fn log(dir: &Path) -> PathBuf {
    dir.join("browser.log")
}

impl Browser {
    /// Starts it, with its profile in this folder.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let path = log(dir);
        let log =
            std::fs::File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut command = tokio::process::Command::from(command(ClientKind::Tab)?);
        command.arg(dir.join("browser-profile"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().context("node cannot be started")?;
        let output = child.stdout.take().context("it has no standard output")?;
        let mut lines = BufReader::new(output).lines();
        let said = || format!("the browser does not start; what it said is in {}", path.display());
        let line = timeout(STARTS, lines.next_line()).await.with_context(said)??.with_context(said)?;
        let Introduction { origin, port } = serde_json::from_str(&line).with_context(said)?;
        Ok(Self { child, origin, address: (Ipv4Addr::LOCALHOST, port).into() })
    }

    /// Where its page comes from, as a gateway's `origins` name it.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Where tabs are to be had: one for each connection.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it, with all its tabs.
    pub async fn stop(mut self) {
        drop(self.child.stdin.take());
        // One that does not end is killed when this is dropped: the records are whole.
        timeout(ENDS, self.child.wait()).await.ok();
    }
}
