//! Which servers a URL names, and the one of them that is the primary. The driver takes one host: a list, as libpq has
//! it, is tried here, beginning with the one that served last.

use std::str::FromStr as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::time::timeout;

use super::access::PgAccess;
use super::session;
use crate::StoreError;

/// For one of several servers: one that does not answer must leave time for the others within a call.
const HOST_WITHIN: Duration = Duration::from_secs(1);

/// What libpq takes for `target_session_attrs` and has a meaning here: only the primary is of use.
const ATTRIBUTES: [&str; 3] = ["any", "read-write", "primary"];

/// The servers of one URL.
pub(super) struct Servers {
    hosts: Vec<PgConnectOptions>,
    password_file: String,
    /// Which of them served last.
    served: AtomicUsize,
}

impl Servers {
    /// Reads a URL; what is wrong with it is said without its password.
    pub(super) fn new(access: &PgAccess) -> Result<Self, StoreError> {
        let urls = each_host(access.url.reveal()).map_err(StoreError::Misconfigured)?;
        let hosts = urls.iter().map(|url| options_of(url)).collect::<Result<_, _>>()?;
        Ok(Self { hosts, password_file: access.password_file.clone(), served: AtomicUsize::new(0) })
    }

    /// Opens a durable connection to the first that can be trusted.
    pub(super) async fn open(&self) -> Result<PgConnection, StoreError> {
        let hosts: Vec<PgConnectOptions> = match self.password()? {
            Some(password) => self.hosts.iter().map(|host| host.clone().password(&password)).collect(),
            None => self.hosts.clone(),
        };
        match &*hosts {
            [only] => session::open(only).await,
            several => self.open_one_of(several).await,
        }
    }

    async fn open_one_of(&self, hosts: &[PgConnectOptions]) -> Result<PgConnection, StoreError> {
        let (count, first) = (hosts.len(), self.served.load(Ordering::Relaxed));
        let mut said = Vec::with_capacity(count);
        for at in (0..count).map(|step| (first + step) % count) {
            let options = &hosts[at];
            let opened = timeout(HOST_WITHIN, session::open(options)).await;
            let error = match opened {
                Ok(Ok(connection)) => {
                    self.served.store(at, Ordering::Relaxed);
                    return Ok(connection);
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {HOST_WITHIN:?}"),
            };
            // Whoever dials next goes on here: this call may be cut off before it has tried them all.
            self.served.store((at + 1) % count, Ordering::Relaxed);
            said.push(format!("{}:{}: {error}", options.get_host(), options.get_port()));
        }
        // Also when all are standbys: one of them is about to be promoted.
        Err(StoreError::Unreachable(said.join("; ")))
    }

    fn password(&self) -> Result<Option<String>, StoreError> {
        if self.password_file.is_empty() {
            return Ok(None);
        }
        // Tried again: it may be about to be replaced.
        let password = sluice_access::secret("postgres.password_file", &self.password_file);
        password.map(Some).map_err(StoreError::Unreachable)
    }
}

fn options_of(url: &str) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|e| StoreError::Misconfigured(format!("postgres.url cannot be read: {e}")))?;
    Ok(options.application_name("sluice").disable_statement_logging())
}

/// One URL for each host of a list, without what only the list needs.
fn each_host(url: &str) -> Result<Vec<String>, String> {
    let Some((scheme, rest)) =
        url.split_once("://").filter(|(scheme, _)| ["postgres", "postgresql"].contains(scheme))
    else {
        return Err("postgres.url must begin with postgres://".to_owned());
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = place.split_at(place.find('/').unwrap_or(place.len()));
    let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let user = if user.is_empty() { String::new() } else { format!("{user}@") };
    let mut options = Vec::new();
    for option in query.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("target_session_attrs", wanted)) if ATTRIBUTES.contains(&wanted) => {}
            Some(("target_session_attrs", wanted)) => {
                return Err(format!(
                    "postgres.url has target_session_attrs={wanted}: only the primary can store, use read-write"
                ));
            }
            Some(_) | None => options.push(option),
        }
    }
    let query = if options.is_empty() { String::new() } else { format!("?{}", options.join("&")) };
    Ok(hosts.split(',').map(|host| format!("{scheme}://{user}{host}{database}{query}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_one_url_for_each_host() {
        let each = |url| each_host(url).expect("a list");
        assert_eq!(each("postgres://u:p@a/db?sslmode=require"), ["postgres://u:p@a/db?sslmode=require"]);
        assert_eq!(each("postgres:///db?host=/run/pg"), ["postgres:///db?host=/run/pg"]);
        let list = "postgresql://u:p,w@a:1,[::1]:2,c/db?target_session_attrs=read-write&sslmode=verify-full";
        let hosts = ["a:1", "[::1]:2", "c"];
        assert_eq!(each(list), hosts.map(|host| format!("postgresql://u:p,w@{host}/db?sslmode=verify-full")));
        let standby = each_host("postgres://a,b/db?target_session_attrs=standby");
        assert!(standby.is_err_and(|why| why.contains("use read-write")));
        assert!(each_host("http://a").is_err());
        assert!(!format!("{:?}", PgAccess::at("postgres://u:hush@a/db")).contains("hush"));
    }
}
