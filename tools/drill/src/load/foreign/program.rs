//! What runs a client in another language: a process of its own, or a tab of a browser. What becomes of it, it does not know.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use tokio::net::TcpStream;
use tokio::process::Child;

use super::ForeignMeans;
use super::wire::Wire;
use crate::load::plan::ClientKind;

/// Where the programs are, in a checkout of the sources.
const FOLDER: &str = "tools/drill/foreign";

/// What runs it: a program, and its script.
fn script(kind: ClientKind) -> Option<(&'static str, &'static str)> {
    match kind {
        ClientKind::JavaScript => Some(("node", "client.mjs")),
        ClientKind::Python => Some(("python3", "client.py")),
        ClientKind::Tab => Some(("node", "tabs.mjs")),
        ClientKind::Library
        | ClientKind::Plain
        | ClientKind::Events
        | ClientKind::EventSource
        | ClientKind::Api => None,
    }
}

/// The program with its script, found from the working folder upwards.
pub(super) fn command(kind: ClientKind) -> anyhow::Result<Command> {
    let (program, script) = script(kind).context("it is written in no other language")?;
    let here = std::env::current_dir()?;
    let found = here.ancestors().map(|folder| folder.join(FOLDER).join(script)).find(|path| path.is_file());
    let path = found
        .with_context(|| format!("{FOLDER}/{script} is not here: run this in a checkout of the sources"))?;
    let mut command = Command::new(program);
    command.arg(path);
    Ok(command)
}

/// Whether clients of this kind can be started at all.
///
/// # Errors
/// What is missing, and what brings it.
pub fn check(kind: ClientKind) -> anyhow::Result<()> {
    let mut command = command(kind)?;
    let program = command.get_program().to_string_lossy().into_owned();
    let ran = command.arg("--check").stdin(Stdio::null()).output();
    let ran = ran.with_context(|| format!("{program} cannot be started: is it on PATH?"))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        bail!(
            "a client for {program} does not start; client/js/build.sh builds the one for node and browsers, `make \
             deps` brings python3 with websockets and Chromium:\n{}",
            said.trim()
        );
    }
    Ok(())
}

/// Where a client of this kind, or what it runs in, says what it says besides.
pub(in crate::load) fn log(dir: &Path, kind: ClientKind, client: u32) -> PathBuf {
    match kind {
        ClientKind::Tab => super::browser::log(dir),
        ClientKind::JavaScript
        | ClientKind::Python
        | ClientKind::Library
        | ClientKind::Plain
        | ClientKind::Events
        | ClientKind::EventSource
        | ClientKind::Api => dir.join(format!("foreign-{client}.log")),
    }
}

/// One client that runs. Dropped, it is killed.
pub(super) struct Runner {
    pub wire: Wire,
    /// `None` = a tab.
    child: Option<Child>,
}

impl Runner {
    pub(super) async fn start(kind: ClientKind, means: &ForeignMeans, log: &Path) -> anyhow::Result<Self> {
        if kind == ClientKind::Tab {
            let browser = means.browser.context("tabs need a browser, which was not started")?;
            let socket = TcpStream::connect(browser).await.context("the browser gives no tab")?;
            let (output, input) = socket.into_split();
            return Ok(Self { wire: Wire::new(Box::new(input), Box::new(output)), child: None });
        }
        let log = std::fs::File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut command = tokio::process::Command::from(command(kind)?);
        if let Some(ca) = &means.ca {
            // As a program's own user would: neither client has an option for it.
            command.env("NODE_EXTRA_CA_CERTS", ca).env("SSL_CERT_FILE", ca);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().context("a client in another language cannot be started")?;
        let input = child.stdin.take().context("it has no standard input")?;
        let output = child.stdout.take().context("it has no standard output")?;
        Ok(Self { wire: Wire::new(Box::new(input), Box::new(output)), child: Some(child) })
    }

    /// How it ended, once it tells nothing more.
    pub(super) async fn ending(&mut self) -> String {
        match &mut self.child {
            Some(child) => child.wait().await.map_or_else(|error| error.to_string(), |code| code.to_string()),
            None => "its tab is gone".to_owned(),
        }
    }
}
