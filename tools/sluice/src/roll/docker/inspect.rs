//! What `docker inspect` says of a container, as far as a roll needs it. Reads text, asks nobody.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::condition::Condition;

/// A container.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct Seen {
    pub(in super::super) id: String,
    /// The program it runs.
    pub(in super::super) path: String,
    pub(in super::super) state: State,
    config: Config,
    network_settings: NetworkSettings,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct State {
    status: String,
    pub(in super::super) exit_code: i32,
    started_at: String,
    health: Option<Health>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    status: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    env: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    ports: Option<BTreeMap<String, Option<Vec<Published>>>>,
    networks: Option<BTreeMap<String, Network>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Published {
    host_ip: String,
    host_port: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Network {
    #[serde(rename = "IPAddress")]
    ip_address: String,
}

impl Seen {
    /// Its service in the compose file.
    pub(in super::super) fn service(&self) -> Option<&str> {
        self.config.labels.as_ref()?.get("com.docker.compose.service").map(String::as_str)
    }

    /// The project it belongs to.
    pub(in super::super) fn project(&self) -> Option<&str> {
        self.config.labels.as_ref()?.get("com.docker.compose.project").map(String::as_str)
    }

    /// A variable of its environment, those of its image included.
    pub(in super::super) fn env(&self, name: &str) -> Option<&str> {
        let env = self.config.env.as_ref()?;
        env.iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// Where its admin page is reached from here: its port, if it is published.
    pub(in super::super) fn admin_url(&self) -> Option<String> {
        let (_, port) = self.env("SLUICE_ADMIN__LISTEN")?.rsplit_once(':')?;
        let ports = self.network_settings.ports.as_ref()?;
        let published = ports.get(&format!("{port}/tcp"))?.as_ref()?.first()?;
        let host = match published.host_ip.as_str() {
            "" | "0.0.0.0" | "::" => "127.0.0.1",
            host => host,
        };
        Some(format!("http://{host}:{}", published.host_port))
    }

    /// Its address inside, which only the machine of the engine can reach.
    pub(in super::super) fn address(&self) -> Option<&str> {
        let networks = self.network_settings.networks.as_ref()?;
        networks.values().map(|network| network.ip_address.as_str()).find(|address| !address.is_empty())
    }

    /// Changes with every start and with every new container.
    pub(super) fn identity(&self) -> Option<String> {
        (self.state.status == "running").then(|| format!("{}@{}", self.id, self.state.started_at))
    }

    pub(super) fn condition(&self) -> Condition {
        match (self.state.status.as_str(), &self.state.health) {
            // Without a health check nothing can be waited for but the admin page.
            ("running", None) => Condition::Running { healthy: true },
            ("running", Some(health)) => Condition::Running { healthy: health.status == "healthy" },
            (status, _) => {
                Condition::Ended(format!("its container is {status}, exit code {}", self.state.exit_code))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: &str, health: &str) -> Seen {
        let text = format!(
            r#"{{"Id":"abc","Path":"/usr/local/bin/sluice-gateway","Name":"/x",
                "State":{{"Status":"{status}","ExitCode":3,"StartedAt":"2026-01-01T00:00:00Z"{health}}},
                "Config":{{"Env":["A=b=c","SLUICE_ADMIN__LISTEN=0.0.0.0:8081"],
                           "Labels":{{"com.docker.compose.service":"gateway-2"}}}},
                "NetworkSettings":{{"Ports":{{"7080/tcp":null,"8081/tcp":[{{"HostIp":"0.0.0.0","HostPort":"8082"}}]}},
                                    "Networks":{{"one":{{"IPAddress":"172.18.0.3"}}}}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_container_says_who_it_is_and_where() {
        let seen = seen("running", "");
        assert_eq!(seen.service(), Some("gateway-2"));
        assert_eq!((seen.env("A"), seen.env("B")), (Some("b=c"), None));
        assert_eq!(seen.admin_url().unwrap(), "http://127.0.0.1:8082");
        assert_eq!(seen.address(), Some("172.18.0.3"));
        assert_eq!(seen.identity().unwrap(), "abc@2026-01-01T00:00:00Z");
    }

    #[test]
    fn health_counts_only_where_there_is_one() {
        let running = |healthy| Condition::Running { healthy };
        assert_eq!(seen("running", "").condition(), running(true));
        assert_eq!(seen("running", r#","Health":{"Status":"starting"}"#).condition(), running(false));
        assert_eq!(seen("running", r#","Health":{"Status":"healthy"}"#).condition(), running(true));
        let ended = seen("exited", r#","Health":{"Status":"healthy"}"#);
        assert_eq!(ended.condition(), Condition::Ended("its container is exited, exit code 3".into()));
        assert_eq!(ended.identity(), None);
    }
}
