//! One running process as others see it: what it is, where it listens, how to signal it.

use std::ops::Deref;
use std::sync::Arc;

use serde::Serialize;

use crate::process::Process;
use crate::service::Service;

/// Where a process listens. Only what it has is present, also in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// Gateway: where clients connect, `ws://…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ws: Option<String>,
    /// Services: admin HTTP, `http://…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// Logic: its gRPC address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// Logic: its HTTP API, `http://…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Stores: the URL services are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Services: the first instance id (a lost lease gives a new one). Not part of the JSON.
    #[serde(skip)]
    pub instance: Option<String>,
}

/// The line a service prints when its listeners are bound.
#[derive(serde::Deserialize)]
struct Introduction {
    instance: Option<String>,
    ws: Option<String>,
    grpc: Option<String>,
    http: Option<String>,
    admin: String,
}

impl Addresses {
    /// By the line with which a service introduces itself.
    pub(crate) fn of_line(line: &[u8]) -> Result<Self, String> {
        let said: Introduction = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        Ok(Self {
            // a gateway's gRPC port is for its own kind, not part of the public list
            api: if said.ws.is_some() { None } else { said.grpc },
            ws: said.ws,
            http: said.http,
            admin: Some(said.admin),
            url: None,
            instance: said.instance,
        })
    }
}

/// One process of the cluster: a snapshot that stays valid when the process is replaced.
///
/// Signals and waits are those of [`Process`], to which it dereferences.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub service: Service,
    /// Which one of its service; stays the same for a replacement.
    pub index: usize,
    /// Where it listens.
    pub addresses: Addresses,
    pub(crate) process: Arc<Process>,
}

impl Node {
    /// Where clients connect, `ws://…`; empty for all but gateways.
    #[must_use]
    pub fn ws(&self) -> &str {
        self.addresses.ws.as_deref().unwrap_or_default()
    }

    /// Admin HTTP, `http://…`; empty for stores.
    #[must_use]
    pub fn admin(&self) -> &str {
        self.addresses.admin.as_deref().unwrap_or_default()
    }

    /// HTTP API of a logic, `http://…`; empty for all others.
    #[must_use]
    pub fn http(&self) -> &str {
        self.addresses.http.as_deref().unwrap_or_default()
    }

    /// URL of a store; empty for services.
    #[must_use]
    pub fn url(&self) -> &str {
        self.addresses.url.as_deref().unwrap_or_default()
    }
}

impl Deref for Node {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// As in line 1 of `sluice cluster --json`: the addresses and the pid.
impl Serialize for Node {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shape<'a> {
            #[serde(flatten)]
            addresses: &'a Addresses,
            pid: u32,
        }
        Shape { addresses: &self.addresses, pid: self.pid() }.serialize(serializer)
    }
}
