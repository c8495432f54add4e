//! What `sluice cluster` says: JSON lines for programs, a table and lines to paste for people. A reader that has gone
//! away, or stopped reading, is no reason to stop or to wait.

use std::path::Path;

use serde_json::json;
use sluice_launcher::{Cluster, Credentials, Event, Service, Stopped, certs};
use sluice_service::lines::Lines;

use crate::paste;

pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    fn line(&self, text: &str) {
        Lines::stdout().say(text);
    }

    fn for_people(&self, text: &str) {
        if !self.json {
            self.line(text);
        }
    }

    pub(super) fn starting(&self, dir: &Path) {
        self.for_people(&format!("starting in {} …", dir.display()));
    }

    pub(super) fn running(&self, cluster: &Cluster) -> anyhow::Result<()> {
        if self.json {
            self.line(&first_line(cluster).to_string());
        } else {
            self.line(&table(cluster));
            self.line(&to_paste(cluster)?);
        }
        Ok(())
    }

    pub(super) fn event(&self, event: &Event) {
        if self.json {
            self.line(&serde_json::to_string(event).unwrap_or_default());
            return;
        }
        self.line(&match event {
            Event::Exit { service, pid, code: Some(code), .. } => {
                format!("{service} (pid {pid}) ended, exit code {code}")
            }
            Event::Exit { service, pid, signal, .. } => {
                format!("{service} (pid {pid}) was ended by signal {}", signal.unwrap_or_default())
            }
            Event::Start { name, pid, .. } => format!("{name} (pid {pid}) is ready"),
            Event::Failed { service, error } => format!("{service} could not be started: {error}"),
        });
    }

    pub(super) fn not_understood(&self, why: &str) {
        if self.json {
            self.line(&json!({"event": "error", "message": why}).to_string());
        } else {
            self.line(why);
        }
    }

    pub(super) fn stopping(&self) {
        self.for_people("stopping: gateways, tasks, logics, servers …");
    }

    pub(super) fn stopped(&self, stopped: &Stopped) {
        for name in &stopped.killed {
            Lines::stderr().say(&format!("sluice: {name} did not stop in time and was killed"));
        }
        self.for_people("stopped");
    }
}

/// What stands beside the servers, where they are groups.
const BESIDE: [Service; 2] = [Service::Sentinel, Service::Haproxy];
const GROUPS: [(&str, Service); 5] = [
    ("natses", Service::Nats),
    ("etcds", Service::Etcd),
    ("redises", Service::Redis),
    ("postgreses", Service::Postgres),
    ("sentinels", Service::Sentinel),
];

fn first_line(cluster: &Cluster) -> serde_json::Value {
    // Programs read these names: `docs/operations.md` shows them, so they only grow.
    let store = |service| cluster.node(service, 0);
    let mut line = json!({
        "gateways": cluster.nodes(Service::Gateway),
        "logics": cluster.nodes(Service::Logic),
        "tasks": cluster.nodes(Service::Task),
        "nats": store(Service::Nats),
        "etcd": store(Service::Etcd),
        "redis": store(Service::Redis),
        "postgres": store(Service::Postgres),
        "token_secret": cluster.token_secret(),
        "api_key": cluster.api_key(),
        "certs": cluster.certs(),
    });
    // Of a group the first is above already, where whoever knows of one server looks.
    for (name, service) in GROUPS {
        let members = cluster.nodes(service);
        if members.len() > 1 {
            line[name] = json!(members);
        }
    }
    if cluster.nodes(Service::Redis).len() > 1 {
        line["redis_url"] = json!(cluster.url(Service::Redis));
    }
    if let Some(leads) = store(Service::Haproxy) {
        line["postgres_url"] = json!(leads.url());
        line["haproxy"] = json!(leads);
    }
    // The password by its file: what is printed may be kept by whoever reads it.
    for service in Service::STORES.into_iter().chain([Service::Sentinel]) {
        if let Some(Credentials { user, password_file, tls, .. }) = cluster.credentials(service) {
            let certs::Files { ca, cert, key } = tls;
            line["credentials"][service.as_str()] = json!({
                "user": user, "password_file": password_file, "ca_file": ca, "cert_file": cert, "key_file": key,
            });
        }
    }
    line
}

fn table(cluster: &Cluster) -> String {
    let mut rows = String::from("\n  process       pid      address\n");
    for service in Service::SERVICES.into_iter().chain(Service::STORES).chain(BESIDE) {
        for node in cluster.nodes(service) {
            let addresses = &node.addresses;
            let admin = addresses.admin.as_ref().map(|admin| format!("admin {admin}"));
            let shown = [
                addresses.ws.clone(),
                addresses.api.clone(),
                addresses.http.clone(),
                addresses.url.clone(),
                admin,
            ];
            let shown: Vec<String> = shown.into_iter().flatten().collect();
            rows.push_str(&format!("  {:<12}  {:<7}  {}\n", node.name(), node.pid(), shown.join("  ")));
        }
    }
    rows.push_str(&format!("\n  logs are in {}; Ctrl-C stops everything\n", cluster.dir().display()));
    rows
}

fn to_paste(cluster: &Cluster) -> anyhow::Result<String> {
    let gateways = cluster.nodes(Service::Gateway);
    let Some(gateway) = gateways.first() else { return Ok(String::new()) };
    let sluice = paste::program();
    let (url, token) = (gateway.ws(), cluster.token("you", &["*"], &["*"])?);
    Ok(format!(
        "  Try it:\n\n    websocat -H='Authorization: Bearer {token}' {url}\n\n  and there type\n\n    \
         {{\"sub\":\"news\"}}\n    {{\"pub\":\"news\",\"data\":{{\"t\":\"hi\"}}}}\n\n  or in two terminals\n\n    \
         export SLUICE_URL={url} SLUICE_TOKEN={token}\n    {sluice} sub news\n    {sluice} pub news '{{\"t\":\"hi\"}}'\n"
    ))
}
