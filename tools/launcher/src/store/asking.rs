//! What a server is asked: whether it is ready, what its part in a group is. Over TLS and with a password where it wants
//! to know who comes. Keeps no connection.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{PRIMARY, Store};
use crate::access::Credentials;
use crate::defaults::PROBE;
use crate::error::Error;
use crate::probe::{self, Answer, ProbeError, Way};
use crate::service::Service;

/// Where all keys of etcd begin, and end.
const ALL_KEYS: [u8; 1] = [0];
const JSON: (&str, &str) = ("Content-Type", "application/json");

impl Store {
    pub(super) fn way<'a>(&'a self, address: &'a str) -> Way<'a> {
        Way::over(address, self.secured.as_ref().map(|secured| secured.access.connector()))
    }

    fn credentials(&self) -> Option<Credentials> {
        self.secured.as_ref().map(|secured| secured.access.credentials(self.service, None))
    }

    /// Whether it answers as a working server, who knows whom to let in; else what it said.
    pub(crate) async fn is_ready(&self) -> Result<(), String> {
        let said = match self.service {
            // It says so before TLS begins, and before it asks who comes.
            Service::Nats => {
                let line = |said: &[u8]| said.contains(&b'\n');
                let said = probe::exchange(&Way::clear(&self.address()), "", line, PROBE).await;
                said.map(|said| said.starts_with(b"INFO "))
            }
            Service::Etcd => return self.etcd_is_ready().await,
            // Before it has heard of the others, it serves nobody.
            Service::Redis if self.is_node() => {
                let said = self.redis("CLUSTER INFO", PROBE).await;
                said.map(|said| said.contains("cluster_state:ok"))
            }
            Service::Redis => self.redis("PING", PROBE).await.map(|said| said == "+PONG\r\n"),
            // Before it knows all of them, it could not bring about a failover.
            Service::Sentinel => {
                let said = self.redis("INFO sentinel", PROBE).await;
                said.map(|said| said.contains("slaves=2,sentinels=3"))
            }
            Service::Postgres if self.has_patroni() => return self.says_yes("/health").await,
            Service::Postgres => return self.postgres_is_ready().await,
            Service::Haproxy => return self.says_yes("/ready").await,
            Service::Gateway | Service::Logic | Service::Task => return Ok(()),
        };
        match said {
            Ok(true) => Ok(()),
            Ok(false) => Err("it answers, but not as it should".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn postgres_is_ready(&self) -> Result<(), String> {
        let mut ask = self.of(Command::new(self.binary.with_file_name("pg_isready")));
        let port = self.client_port().to_string();
        ask.args(["-h", "127.0.0.1", "-d", "postgres", "-U", "postgres", "-p", &port]);
        let ask = ask.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(PROBE, ask).await.map_err(|_| "pg_isready takes too long")?;
        let output = output.map_err(|error| format!("pg_isready: {error}"))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
    }

    async fn etcd_is_ready(&self) -> Result<(), String> {
        let address = self.address();
        let answer = probe::http(&self.way(&address), "GET", "/health", ("Accept", "*/*"), "", PROBE).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status != 200 || !answer.body.contains("true") {
            return Err("it answers, but not as it should".into());
        }
        match self.credentials() {
            Some(credentials) => self.has_users(&credentials).await,
            None => Ok(()),
        }
    }

    /// Makes the users where there are none yet. Members of a group do so at once, and each step may be done already:
    /// what counts is that the user is let in afterwards.
    async fn has_users(&self, credentials: &Credentials) -> Result<(), String> {
        if self.etcd_token(credentials).await.is_ok() {
            return Ok(());
        }
        let (user, password) = (credentials.user.unwrap_or_default(), &credentials.password);
        let all = BASE64_STANDARD.encode(ALL_KEYS);
        let range = json!({ "permType": "READWRITE", "key": all, "range_end": all });
        // etcd insists on a root before it asks anybody who he is.
        let steps = [
            ("role/add", json!({ "name": user })),
            ("role/grant", json!({ "name": user, "perm": range })),
            ("user/add", json!({ "name": user, "password": password })),
            ("user/grant", json!({ "user": user, "role": user })),
            ("role/add", json!({ "name": "root" })),
            ("user/add", json!({ "name": "root", "password": password })),
            ("user/grant", json!({ "user": "root", "role": "root" })),
            ("enable", json!({})),
        ];
        for (step, body) in steps {
            let done = self.etcd_post(&format!("/v3/auth/{step}"), JSON, &body).await;
            done.map_err(|error| error.to_string())?;
        }
        Err("its users have just been made".to_owned())
    }

    async fn etcd_token(&self, credentials: &Credentials) -> Result<String, String> {
        let body = json!({ "name": credentials.user, "password": credentials.password });
        let answer = self.etcd_post("/v3/auth/authenticate", JSON, &body).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let said: Value = serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
        said.get("token").and_then(Value::as_str).map(str::to_owned).ok_or(answer.body)
    }

    /// What a member of etcd says of itself, which it says to everybody.
    pub(crate) async fn etcd_status(&self) -> Result<Value, String> {
        let answer = self.etcd_post("/v3/maintenance/status", JSON, &json!({})).await;
        serde_json::from_str(&answer.map_err(|error| error.to_string())?.body)
            .map_err(|error| error.to_string())
    }

    /// POSTs to etcd, as nobody where it asks who comes.
    async fn etcd_post(&self, path: &str, header: (&str, &str), body: &Value) -> Result<Answer, ProbeError> {
        let address = self.address();
        probe::http(&self.way(&address), "POST", path, header, &body.to_string(), PROBE).await
    }

    /// POSTs JSON to etcd as the user of services; the body of the answer.
    pub(crate) async fn ask_etcd(&self, path: &str, body: &Value) -> Result<Value, Error> {
        let failed = |why: String| Error::System(format!("{} does not answer {path}: {why}", self.name()));
        let token = match self.credentials() {
            Some(credentials) => Some(self.etcd_token(&credentials).await.map_err(failed)?),
            None => None,
        };
        let header = token.as_ref().map_or(JSON, |token| ("Authorization", token.as_str()));
        let answer = self.etcd_post(path, header, body).await.map_err(|error| failed(error.to_string()))?;
        if answer.status != 200 {
            return Err(failed(format!("{} {}", answer.status, answer.body.trim())));
        }
        serde_json::from_str(&answer.body).map_err(|error| failed(error.to_string()))
    }

    /// Sends lines to NATS, after who comes, and returns what came until it was `whole`.
    pub(crate) async fn ask_nats(
        &self,
        lines: &str,
        whole: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, ProbeError> {
        let mut connect = json!({ "verbose": false });
        if let Some(Credentials { user, password, .. }) = self.credentials() {
            connect["user"] = json!(user);
            connect["pass"] = json!(password);
        }
        let address = self.address();
        let request = format!("CONNECT {connect}\r\n{lines}");
        probe::exchange(&self.way(&address).greeted(), &request, whole, PROBE).await
    }

    /// What Redis, or a sentinel, says to one command.
    async fn redis(&self, command: &str, timeout: Duration) -> Result<String, ProbeError> {
        let address = self.address();
        let credentials = self.credentials();
        let ask = match &credentials {
            Some(Credentials { password, .. }) => format!("AUTH {password}\r\n{command}\r\n"),
            None => format!("{command}\r\n"),
        };
        let welcome = if credentials.is_some() { WELCOME } else { "" };
        let whole = |said: &[u8]| is_whole(&String::from_utf8_lossy(said), welcome);
        let said = probe::exchange(&self.way(&address), &ask, whole, timeout).await?;
        let said = String::from_utf8_lossy(&said);
        Ok(said.strip_prefix(welcome).unwrap_or(&said).to_owned())
    }

    /// Whether it does what it is in its group for: a replica follows.
    pub(crate) async fn has_joined(&self) -> Result<(), String> {
        if self.has_patroni() {
            return self.has_joined_patroni().await;
        }
        if self.service != Service::Redis || self.group.is_alone() {
            return Ok(());
        }
        let said = self.redis("INFO replication", PROBE).await.map_err(|error| error.to_string())?;
        let joined = said.contains("role:master") || said.contains("master_link_status:up");
        joined.then_some(()).ok_or_else(|| "it does not follow its primary yet".to_owned())
    }

    /// The port of the primary that has the first slot, as this node of a Redis Cluster has it.
    pub(crate) async fn first_primary(&self) -> Option<u16> {
        first_primary(&self.redis("CLUSTER NODES", PROBE).await.ok()?)
    }

    /// Whether this is a replica of a Redis Cluster that can take over from the primary with this port.
    pub(crate) async fn follows(&self, primary: u16) -> bool {
        let said = self.redis("INFO replication", PROBE).await.unwrap_or_default();
        said.contains(&format!("master_port:{primary}\r\n")) && said.contains("master_link_status:up")
    }

    /// Has it take over; of a sentinel, a replica of what it looks after.
    pub(crate) async fn fail_over(&self) -> Result<(), Error> {
        let of_sentinel = self.service == Service::Sentinel;
        let command =
            if of_sentinel { format!("SENTINEL FAILOVER {PRIMARY}") } else { "CLUSTER FAILOVER".to_owned() };
        match self.redis(&command, PROBE).await {
            Ok(line) if line == "+OK\r\n" => Ok(()),
            Ok(line) => Err(Error::System(format!("{command}: {}", line.trim_end()))),
            Err(error) => Err(Error::System(format!("{command}: {error}"))),
        }
    }

    /// The port of the primary, as this sentinel has it.
    pub(crate) async fn primary(&self) -> Option<u16> {
        let said = self.redis("INFO sentinel", PROBE).await.ok()?;
        let (_, rest) = said.split_once("address=127.0.0.1:")?;
        rest.split(',').next()?.parse().ok()
    }

    /// Removes all keys of a running Redis.
    pub(crate) async fn flush(&self, timeout: Duration) -> Result<(), Error> {
        match self.redis("FLUSHALL", timeout).await {
            Ok(line) if line == "+OK\r\n" => Ok(()),
            Ok(line) => Err(Error::System(format!("FLUSHALL: {}", line.trim_end()))),
            Err(error) => Err(Error::System(format!("FLUSHALL: {error}"))),
        }
    }
}

/// A line each: `id host:port@bus flags of ping pong epoch link slots…`.
fn first_primary(said: &str) -> Option<u16> {
    said.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let works = !words.get(2)?.contains("fail");
        let has_first = words.iter().skip(8).any(|slots| *slots == "0" || slots.starts_with("0-"));
        let place = words.get(1)?.split('@').next()?;
        (works && has_first).then(|| place.rsplit_once(':')?.1.parse().ok()).flatten()
    })
}

/// What Redis says to a password that is right.
const WELCOME: &str = "+OK\r\n";

/// Whether the answer that follows `welcome` is there: a line, or a text of a length that the line says. Somebody who is
/// not welcome is told so in a line.
fn is_whole(said: &str, welcome: &str) -> bool {
    let Some(rest) = said.strip_prefix(welcome) else { return said.starts_with('-') && said.contains('\n') };
    let Some((line, text)) = rest.split_once("\r\n") else { return false };
    let length = line.strip_prefix('$').and_then(|length| length.parse::<usize>().ok());
    length.is_none_or(|length| text.len() >= length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_that_is_gone_leads_no_more() {
        let nodes = |old: &str, of_new: &str| {
            format!(
                "$1\r\naa 127.0.0.1:7000@1 {old} - 0 0 1 connected 0-5460\n\
                 bb 127.0.0.1:7001@2 myself,master - 0 0 2 connected 5461-16383\n\
                 cc 127.0.0.1:7002@3 {of_new}\n"
            )
        };
        let follows = "slave aa 0 0 1 connected";
        assert_eq!(first_primary(&nodes("master", follows)), Some(7000));
        assert_eq!(first_primary(&nodes("master,fail?", follows)), None);
        let lost = nodes("master,fail", "master - 0 0 4 connected 0-5460").replacen(
            " connected 0-5460",
            " connected",
            1,
        );
        assert_eq!(first_primary(&lost), Some(7002));
    }

    #[test]
    fn an_answer_of_redis_is_whole_with_its_last_byte() {
        for (said, welcome, whole) in [
            ("", "", false),
            ("+PONG", "", false),
            ("+PONG\r\n", "", true),
            ("$5\r\nab\r\n", "", false),
            ("$5\r\nab\r\nc\r\n", "", true),
            ("+OK\r\n", WELCOME, false),
            ("+OK\r\n$1\r\n", WELCOME, false),
            ("+OK\r\n$1\r\na\r\n", WELCOME, true),
            ("+OK\r\n+OK\r\n", WELCOME, true),
            ("-WRONGPASS no\r\n", WELCOME, true),
            ("-WRONG", WELCOME, false),
        ] {
            assert_eq!(is_whole(said, welcome), whole, "{said:?} after {welcome:?}");
        }
    }
}
