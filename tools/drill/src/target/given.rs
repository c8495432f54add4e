//! A deployment that is there already: processes by pid, containers by name, or one that a command starts. Only what
//! was named is touched, and what was never named is refused with the option that would name it.

mod container;
mod hold;
mod refusal;
mod wanted;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use sluice_launcher::{Signal, probe};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::Ended;
use crate::api::ApiAccess;
use crate::place::{Place, Role};
pub use container::Attachment;
use hold::Hold;
pub use wanted::Wanted;

/// A replacement is ready within this.
const READY: Duration = Duration::from_secs(60);
/// Between two looks at something that becomes ready, and one look.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Longest run of a command that restarts something in an ordered way.
const COMMAND: Duration = Duration::from_secs(120);
/// How the URL of a store in a file begins.
const SQLITE: &str = "sqlite:";
/// Where `sluice dev` keeps the secret of its tokens, beside its data. Who keeps none there is told one by options.
const SECRET_FILE: &str = "sluice-dev.json";

/// A deployment that is given.
pub struct Given {
    wanted: Wanted,
    gateways: BTreeMap<Place, String>,
    admins: BTreeMap<Place, String>,
    holds: BTreeMap<Place, Hold>,
    logs: PathBuf,
}

impl Given {
    /// Takes hold of what was named; starts what `--spawn` says. What processes say that we start goes to `logs`.
    ///
    /// # Errors
    /// When a pid is nobody's, a command does not introduce itself, or a gateway does not answer.
    pub async fn take(wanted: &Wanted, logs: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(logs).with_context(|| format!("cannot create {}", logs.display()))?;
        let mut given = Self {
            wanted: wanted.clone(),
            gateways: wanted.gateways(),
            admins: wanted.admins()?,
            holds: BTreeMap::new(),
            logs: logs.to_owned(),
        };
        let mut restarts = wanted.restarts()?;
        for (place, pid) in wanted.pids()? {
            given.holds.insert(place, Hold::of_pid(pid, restarts.remove(&place))?);
        }
        for (place, name) in wanted.containers()? {
            given.holds.insert(place, Hold::of_container(name));
        }
        if let Some((place, _)) = restarts.first_key_value() {
            bail!("--restart names {place}, but no --pid does: add --pid {place}=PID");
        }
        if let Some(command) = &wanted.spawn {
            let (hold, said) = Hold::spawn(command, &given.log(Place::only(Role::Dev))).await?;
            given.holds.insert(Place::only(Role::Dev), hold);
            given.introduced(said)?;
        }
        if given.gateways.is_empty() {
            bail!("no gateway is known: name it with --gateway ws://host:port/ws");
        }
        for url in given.gateways.values() {
            answers(url).await.with_context(|| format!("{url} does not answer"))?;
        }
        Ok(given)
    }

    /// What a deployment in one process says of itself: its gateways, its store, and where its secret is.
    fn introduced(&mut self, said: hold::Introduction) -> anyhow::Result<()> {
        for (index, gateway) in said.gateways.into_iter().enumerate() {
            let named = gateway.name.as_deref().and_then(|name| name.parse().ok());
            let place = named.unwrap_or(Place { role: Role::Gateway, index });
            self.gateways.insert(place, gateway.ws);
            self.admins.insert(place, gateway.admin);
        }
        if self.wanted.apis.is_empty()
            && let Some(key) = said.api_key
        {
            // Without one every call would be refused, and nobody would miss what was never sent.
            self.wanted.apis = said.logics.into_iter().filter_map(|logic| logic.http).collect();
            self.wanted.api_key = key;
        }
        self.admins.extend(said.page.map(|page| (Place::only(Role::Dev), page)));
        let store = said.store.map(|file| format!("{SQLITE}{}", file.display()));
        self.wanted.store = self.wanted.store.take().or(store);
        if let (true, Some(dir)) = (self.wanted.token_secret.is_empty(), said.dir) {
            self.wanted.token_secret = kept_secret(&dir.join(SECRET_FILE))?;
        }
        self.wanted.check_complete()
    }

    fn log(&self, place: Place) -> PathBuf {
        self.logs.join(format!("{place}.log"))
    }

    pub(super) fn places(&self, role: Role) -> Vec<Place> {
        if role == Role::Gateway && self.holds.keys().all(|place| place.role != role) {
            // not in reach by a signal, but a command may roll them
            return self.gateways.keys().copied().collect();
        }
        self.holds.keys().filter(|place| place.role == role).copied().collect()
    }

    pub(super) fn endpoints(&self) -> Vec<String> {
        self.gateways.values().cloned().collect()
    }

    pub(super) fn api(&self) -> Option<ApiAccess> {
        let Wanted { apis, api_key, .. } = self.wanted.clone();
        (!apis.is_empty()).then(|| ApiAccess::new(move || apis.clone(), api_key))
    }

    pub(super) fn token_secret(&self) -> &str {
        &self.wanted.token_secret
    }

    pub(super) fn store_url(&self) -> Option<String> {
        self.wanted.store.clone()
    }

    /// Where its store is, if that is a file.
    pub(crate) fn store_folder(&self) -> Option<PathBuf> {
        let file = self.wanted.store.as_deref()?.strip_prefix(SQLITE)?;
        Path::new(file).parent().map(Path::to_owned)
    }

    /// The admin page of a place.
    pub(crate) fn page(&self, place: Place) -> anyhow::Result<String> {
        self.admins.get(&place).cloned().with_context(|| format!("{place} has named no page of its own"))
    }

    pub(super) fn admins(&self) -> BTreeMap<Place, String> {
        self.admins.clone()
    }

    pub(super) fn pids(&self) -> BTreeMap<Place, u32> {
        self.holds.iter().filter_map(|(place, hold)| Some((*place, hold.pid()?))).collect()
    }

    pub(super) fn log_dir(&self) -> Option<&Path> {
        Some(&self.logs)
    }

    pub(super) async fn signal(&self, place: Place, signal: Signal) -> bool {
        match self.holds.get(&place) {
            Some(hold) => hold.signal(signal).await,
            None => false,
        }
    }

    pub(super) async fn ended(&self, place: Place, within: Duration) -> Option<Ended> {
        self.holds.get(&place)?.ended(within).await
    }

    pub(super) async fn start_at(&self, place: Place) -> anyhow::Result<()> {
        let hold = self.holds.get(&place).with_context(|| format!("{place} was not named"))?;
        hold.start(&self.log(place)).await.with_context(|| format!("{place} could not be started again"))?;
        self.ready(place).await
    }

    /// Waits until a process says that it is ready, or takes connections where it has no admin page.
    async fn ready(&self, place: Place) -> anyhow::Result<()> {
        let until = Instant::now() + READY;
        let dev = place.role == Role::Dev;
        let admins: Vec<&String> =
            self.admins.iter().filter(|(at, _)| dev || **at == place).map(|(_, url)| url).collect();
        let ports: Vec<&String> =
            self.gateways.iter().filter(|(at, _)| dev || **at == place).map(|(_, url)| url).collect();
        loop {
            let mut last = None;
            for admin in &admins {
                let answer = probe::get(&format!("{}/readyz", admin.trim_end_matches('/')), LOOK.1).await;
                last = match answer {
                    Ok(answer) if answer.status == 200 => last,
                    Ok(answer) => Some(format!("{admin}: {} {}", answer.status, answer.body.trim())),
                    Err(error) => Some(format!("{admin}: {error}")),
                };
            }
            for url in &ports {
                last = last.or(answers(url).await.err().map(|error| format!("{url}: {error}")));
            }
            let Some(last) = last else { return Ok(()) };
            if Instant::now() >= until {
                bail!("{place} was not ready after {READY:?}: {last}");
            }
            sleep(LOOK.0).await;
        }
    }

    /// Runs the command that restarts one in an ordered way, with its name as `$1` and in `{}`.
    ///
    /// # Errors
    /// When it fails or takes too long.
    pub async fn roll(&self, place: Place) -> anyhow::Result<()> {
        let command = self.wanted.roll_command.as_deref().context("there is no --roll-command")?;
        let command = command.replace("{}", &place.to_string());
        hold::finish(&command, &place.to_string(), &self.logs.join("roll.log"), COMMAND).await?;
        self.ready(place).await
    }

    /// Takes a container off its networks, or brings it back.
    ///
    /// # Errors
    /// What docker said.
    pub async fn connect(
        &self,
        place: Place,
        networks: Option<&[Attachment]>,
    ) -> anyhow::Result<Vec<Attachment>> {
        let name = self.holds.get(&place).and_then(Hold::container).context("no container was named")?;
        match networks {
            None => container::disconnect(name).await,
            Some(networks) => container::connect(name, networks).await.map(|()| networks.to_vec()),
        }
    }

    /// Ends what the drill itself started; leaves alone what it found.
    pub(super) async fn stop(&self) -> Vec<(Place, Ended)> {
        let mut ends = Vec::new();
        for (place, hold) in &self.holds {
            if hold.is_ours()
                && hold.signal(Signal::SIGTERM).await
                && let Some(ended) = hold.ended_or_killed(READY).await
            {
                ends.push((*place, ended));
            }
        }
        ends
    }
}

/// What is in the file, if there is one.
fn kept_secret(path: &Path) -> anyhow::Result<String> {
    if !path.exists() {
        return Ok(String::new());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let known: serde_json::Value = serde_json::from_str(&text)?;
    let secret = known.get("token_secret").and_then(serde_json::Value::as_str);
    Ok(secret.unwrap_or_default().to_owned())
}

async fn answers(url: &str) -> anyhow::Result<()> {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or(url);
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    tokio::time::timeout(LOOK.1, TcpStream::connect(host)).await??;
    Ok(())
}
