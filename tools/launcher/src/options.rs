//! What a cluster shall be: counts, folder, binaries and settings of the services.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::doors::Doors;
use crate::engines::Engines;
use crate::error::Error;
use crate::service::Service;

/// What to start. [`Options::default`] is one of each service in a temporary folder.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many gateways.
    pub gateways: usize,
    /// How many logics.
    pub logics: usize,
    /// How many tasks.
    pub tasks: usize,
    /// How many servers of each kind it stands on.
    pub engines: Engines,
    /// Where data and logs go, used again when it exists; `None` = a temporary folder that is removed at the end.
    pub dir: Option<PathBuf>,
    /// Where the service binaries are; `None` = beside the running executable (or one folder up), else on PATH.
    pub bin_dir: Option<PathBuf>,
    /// Where the binaries of another version are: the first process of each place is one of it, the next one of `bin_dir`,
    /// and so on in turn.
    pub previous: Option<PathBuf>,
    /// Configuration handed to services as environment, later entries win.
    pub settings: Vec<Setting>,
    /// Start a child again that ended by itself.
    pub restart: bool,
    /// Read the logs of services through pipes that can be made to fail, [`Cluster::set_log_reading`], instead of
    /// letting them write their files.
    ///
    /// [`Cluster::set_log_reading`]: crate::Cluster::set_log_reading
    pub log_readers: bool,
    /// Secret of the tokens; `None` = a random one.
    pub token_secret: Option<String>,
    /// Whether every link is encrypted: services and servers show each other certificates, and servers ask for a password;
    /// both are made in the folder when they are not there.
    pub secure: bool,
    /// Who opens doors before the members of groups; not with [`Options::secure`].
    pub doors: Option<Arc<dyn Doors>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            gateways: 1,
            logics: 1,
            tasks: 1,
            engines: Engines::default(),
            dir: None,
            bin_dir: None,
            previous: None,
            settings: Vec::new(),
            restart: false,
            log_readers: false,
            token_secret: None,
            secure: false,
            doors: None,
        }
    }
}

impl Options {
    /// Adds a setting written as on the command line, `gateway.drain.rate_per_s=5`.
    ///
    /// # Errors
    /// [`Error::Setting`] when it cannot be understood.
    pub fn set(mut self, setting: &str) -> Result<Self, Error> {
        self.settings.push(setting.parse()?);
        Ok(self)
    }

    pub(crate) fn count(&self, service: Service) -> usize {
        match service {
            Service::Gateway => self.gateways,
            Service::Logic => self.logics,
            Service::Task => self.tasks,
            Service::Nats
            | Service::Etcd
            | Service::Redis
            | Service::Sentinel
            | Service::Postgres
            | Service::Haproxy => self.engines.count(service),
        }
    }
}

/// One configuration value for some of the services: `SERVICE.KEY=VALUE`.
///
/// `SERVICE` is `gateway`, `logic`, `task`, one process of them (`logic-1`), or `all`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    service: Option<Service>,
    index: Option<usize>,
    key: String,
    value: String,
}

impl Setting {
    /// Its value, if it is of this key and meant for every process of this service.
    #[must_use]
    pub fn of_all(&self, service: Service, key: &str) -> Option<&str> {
        let is_it =
            self.key == key && self.index.is_none() && self.service.is_none_or(|wanted| wanted == service);
        is_it.then_some(self.value.as_str())
    }

    /// Whether it is meant for this process.
    pub(crate) fn applies(&self, service: Service, index: usize) -> bool {
        self.service.is_none_or(|wanted| wanted == service) && self.index.is_none_or(|wanted| wanted == index)
    }

    /// The environment variable that carries it: `SLUICE_DRAIN__RATE_PER_S`.
    pub(crate) fn env(&self) -> (String, &str) {
        (env_name(&self.key), &self.value)
    }
}

/// `drain.rate_per_s` → `SLUICE_DRAIN__RATE_PER_S`.
pub(crate) fn env_name(key: &str) -> String {
    format!("SLUICE_{}", key.to_uppercase().replace('.', "__"))
}

impl FromStr for Setting {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Setting(text.to_owned());
        // At the first one: a value may have some of its own.
        let (path, value) = text.split_once('=').ok_or_else(wrong)?;
        let (target, key) = path.split_once('.').ok_or_else(wrong)?;
        if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') {
            return Err(wrong());
        }
        let (name, index) = match target.split_once('-') {
            // Names count from 1, as those of `sluice dev` and of containers do.
            Some((name, number)) => {
                (name, Some(number.parse::<usize>().ok().and_then(|n| n.checked_sub(1)).ok_or_else(wrong)?))
            }
            None => (target, None),
        };
        let service = match name {
            "all" if index.is_none() => None,
            _ => Some(name.parse::<Service>().ok().filter(|s| !s.is_store()).ok_or_else(wrong)?),
        };
        Ok(Self { service, index, key: key.to_owned(), value: value.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_services_keys_and_values() {
        let setting: Setting = "gateway.drain.rate_per_s=5".parse().unwrap();
        assert_eq!(setting.env(), ("SLUICE_DRAIN__RATE_PER_S".to_owned(), "5"));
        assert!(setting.applies(Service::Gateway, 3));
        assert!(!setting.applies(Service::Logic, 3));
        let one: Setting = "logic-1.token_secret=a=b".parse().unwrap();
        assert_eq!(one.env().1, "a=b");
        assert!(one.applies(Service::Logic, 0) && !one.applies(Service::Logic, 1));
        assert!("logic-0.log.level=debug".parse::<Setting>().is_err(), "instances are counted from 1");
        let all: Setting = "all.etcd.lease_ttl_s=2".parse().unwrap();
        assert!(all.applies(Service::Task, 0));
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        for text in [
            "",
            "x",
            "gateway=1",
            "gateway.=1",
            "nats.url=x",
            "all-1.a=1",
            "gateway-x.a=1",
            "cat.a=1",
            "gateway.a b=1",
        ] {
            assert!(text.parse::<Setting>().is_err(), "{text:?}");
        }
    }
}
