//! What is given, as options say it. Understands text, touches nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};
use sluice_client::Trust;

use crate::place::{Place, Role};

/// The options that name a deployment.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Client URLs, `ws://host:port/ws` or `wss://`, in order of the gateways' numbers.
    pub gateways: Vec<String>,
    /// The API of logics, `http://host:port`; empty: nobody calls it.
    pub apis: Vec<String>,
    /// A key of it that may publish in every room, and disconnect.
    pub api_key: String,
    /// Which authorities may have signed their certificates.
    pub trust: Trust,
    /// The file of the one that is not public, for clients in other languages.
    pub ca: Option<PathBuf>,
    /// Admin URLs: `http://…`, of the gateways in order, or `PLACE=http://…`.
    pub admins: Vec<String>,
    /// `PLACE=PID`.
    pub pids: Vec<String>,
    /// `PLACE=COMMAND`.
    pub restarts: Vec<String>,
    /// `PLACE=NAME`.
    pub containers: Vec<String>,
    /// `postgres://…` or `sqlite:FILE`.
    pub store: Option<String>,
    /// What tokens are signed with.
    pub token_secret: String,
    /// Command of a deployment in one process.
    pub spawn: Option<String>,
    /// Command that restarts one gateway in an ordered way.
    pub roll_command: Option<String>,
}

impl Wanted {
    /// Whether anything is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gateways.is_empty() && self.spawn.is_none()
    }

    pub(super) fn admins(&self) -> anyhow::Result<BTreeMap<Place, String>> {
        let mut found = BTreeMap::new();
        for (index, text) in self.admins.iter().enumerate() {
            let (place, url) = match text.split_once('=').filter(|(place, _)| !place.contains(':')) {
                Some((place, url)) => (place.parse().map_err(anyhow::Error::msg)?, url),
                None => (Place { role: Role::Gateway, index }, text.as_str()),
            };
            if !url.starts_with("http://") {
                bail!("--admin {text}: an admin page is at http://host:port");
            }
            found.insert(place, url.to_owned());
        }
        Ok(found)
    }

    pub(super) fn pids(&self) -> anyhow::Result<BTreeMap<Place, u32>> {
        named("--pid", &self.pids)
    }

    pub(super) fn restarts(&self) -> anyhow::Result<BTreeMap<Place, String>> {
        named("--restart", &self.restarts)
    }

    pub(super) fn containers(&self) -> anyhow::Result<BTreeMap<Place, String>> {
        named("--container", &self.containers)
    }

    pub(super) fn gateways(&self) -> BTreeMap<Place, String> {
        let places = (0..).map(|index| Place { role: Role::Gateway, index });
        places.zip(self.gateways.iter().cloned()).collect()
    }

    /// Whether all of it can be understood.
    ///
    /// # Errors
    /// Names the option that cannot.
    pub fn check(&self) -> anyhow::Result<()> {
        self.admins()?;
        if let Some(url) = self.apis.iter().find(|url| !url.starts_with("http://")) {
            bail!("--api {url}: the API of a logic is at http://host:port");
        }
        if self.apis.is_empty() != self.api_key.is_empty() && self.spawn.is_none() {
            bail!("the API needs an address and a key: give --api and --api-key, or neither");
        }
        self.pids()?;
        self.restarts()?;
        self.containers()?;
        // a deployment that is started says the rest itself
        if self.spawn.is_some() { Ok(()) } else { self.check_complete() }
    }

    pub(super) fn check_complete(&self) -> anyhow::Result<()> {
        if self.token_secret.is_empty() {
            bail!(
                "clients need tokens: give --token-secret or --token-secret-file, or set SLUICE_TOKEN_SECRET or \
                 SLUICE_TOKEN_SECRET_FILE, as logic has it"
            );
        }
        match &self.store {
            Some(url)
                if !["postgres:", "postgresql:", "sqlite:"].iter().any(|scheme| url.starts_with(scheme)) =>
            {
                bail!("--store {url}: the truth is read from postgres://… or sqlite:FILE")
            }
            None => {
                bail!("nothing can be judged without the truth: give --store postgres://… or sqlite:FILE")
            }
            Some(_) => Ok(()),
        }
    }
}

/// `gateway-1=value`, each place once.
fn named<T: FromStr>(option: &str, texts: &[String]) -> anyhow::Result<BTreeMap<Place, T>> {
    let mut found = BTreeMap::new();
    for text in texts {
        let (place, value) =
            text.split_once('=').with_context(|| format!("{option} {text}: write gateway-1=…"))?;
        let place: Place =
            place.parse().map_err(anyhow::Error::msg).with_context(|| format!("{option} {text}"))?;
        let value =
            value.parse().ok().with_context(|| format!("{option} {text}: {value:?} is not usable"))?;
        if found.insert(place, value).is_some() {
            bail!("{option} names {place} twice");
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn targets_are_understood() {
        let wanted = Wanted {
            admins: texts(&["http://a:1", "logic-1=http://b:2?x=y"]),
            pids: texts(&["gateway-2=12", "redis=13"]),
            restarts: texts(&["gateway-2=run --with a=b"]),
            containers: texts(&["gateway=sluice-gateway-1"]),
            store: Some("postgres://x".into()),
            token_secret: "s".into(),
            ..Wanted::default()
        };
        wanted.check().unwrap();
        let place = |text: &str| text.parse::<Place>().unwrap();
        assert_eq!(wanted.admins().unwrap()[&place("gateway-1")], "http://a:1");
        assert_eq!(wanted.admins().unwrap()[&place("logic-1")], "http://b:2?x=y");
        assert_eq!(wanted.pids().unwrap()[&place("redis")], 13);
        assert_eq!(wanted.restarts().unwrap()[&place("gateway-2")], "run --with a=b");
        assert_eq!(wanted.containers().unwrap()[&place("gateway-1")], "sluice-gateway-1");
    }

    #[test]
    fn what_cannot_be_understood_names_its_option() {
        let good =
            Wanted { store: Some("postgres://x".into()), token_secret: "s".into(), ..Wanted::default() };
        for (wanted, option) in [
            (Wanted { pids: texts(&["gateway-1=x"]), ..good.clone() }, "--pid gateway-1=x"),
            (Wanted { pids: texts(&["12"]), ..good.clone() }, "--pid 12"),
            (Wanted { pids: texts(&["cat-1=3"]), ..good.clone() }, "--pid cat-1=3"),
            (Wanted { pids: texts(&["task-1=3", "task-1=4"]), ..good.clone() }, "--pid names task-1 twice"),
            (Wanted { admins: texts(&["a:1"]), ..good.clone() }, "--admin a:1"),
            (Wanted { apis: texts(&["https://a"]), ..good.clone() }, "--api https://a"),
            (Wanted { apis: texts(&["http://a:1"]), ..good.clone() }, "--api-key"),
            (Wanted { store: Some("mysql:x".into()), ..good.clone() }, "--store mysql:x"),
            (Wanted { store: None, ..good.clone() }, "--store"),
            (Wanted { token_secret: String::new(), ..good }, "--token-secret"),
        ] {
            let error = format!("{:#}", wanted.check().unwrap_err());
            assert!(error.contains(option), "{option}: {error}");
        }
    }
}
