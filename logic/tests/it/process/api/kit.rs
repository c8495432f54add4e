//! A logic with an API, and somebody who calls it.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use nix::sys::signal::Signal;
use serde_json::Value;
use sluice_access::ApiKeyEntry;
use sluice_launcher::Cluster;
use tempfile::TempDir;
use tokio::net::TcpSocket;

use super::super::{Ended, Logic, command, urls};

/// Good for everything.
pub const KEY: &str = "sluice_test";

/// An entry that may do everything.
pub fn all(name: &str, key: &str) -> ApiKeyEntry {
    let names = || vec!["*".to_owned(), "@*".to_owned()];
    ApiKeyEntry { sub: names(), publish: names(), disconnect: names(), ..ApiKeyEntry::of(name, key) }
}

pub struct Served {
    pub logic: Logic,
    pub api: Caller,
    folder: TempDir,
}

impl Served {
    /// With these keys beside [`KEY`].
    pub async fn start(cluster: &Cluster, keys: &[ApiKeyEntry]) -> Self {
        Self::start_with(cluster, keys, &[]).await
    }

    /// With more settings.
    pub async fn start_with(cluster: &Cluster, keys: &[ApiKeyEntry], settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys: Vec<ApiKeyEntry> = keys.iter().cloned().chain([all("test", KEY)]).collect();
        write(&folder.path().join("keys.toml"), &keys);
        let mut command = command();
        command
            .envs(urls(cluster))
            .envs(settings.iter().copied())
            .env("SLUICE_API__LISTEN", "127.0.0.1:0")
            .env("SLUICE_API__KEYS_FILE", folder.path().join("keys.toml"));
        let logic = Logic::spawn(command).await;
        let address = logic.line["http"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
        logic.ready().await;
        Self { logic, api: Caller { address, key: KEY.into() }, folder }
    }

    pub fn keys_file(&self) -> PathBuf {
        self.folder.path().join("keys.toml")
    }

    pub fn write_keys(&self, keys: &[ApiKeyEntry]) {
        write(&self.keys_file(), keys);
    }

    /// Stops it and expects that to go well.
    pub async fn end(self) -> Ended {
        let ended = self.logic.signal(Signal::SIGTERM).await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        ended
    }
}

/// Whole or not at all, as `sluice api-key` does.
fn write(file: &std::path::Path, keys: &[ApiKeyEntry]) {
    let text: String = keys.iter().map(|entry| entry.to_toml().unwrap()).collect();
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// Calls with one key.
#[derive(Clone)]
pub struct Caller {
    pub address: SocketAddr,
    pub key: String,
}

pub struct Reply {
    pub status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Caller {
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.into(), ..self.clone() }
    }

    /// A connection of its own; one that reads little at once.
    pub async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        let tcp = socket.connect(self.address).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(async move { connection.await.ok() });
        sender
    }

    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(method).uri(path).header("host", "api");
        if !self.key.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.key));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body.into())).unwrap()
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let request = self.request(method, path, headers, body);
        let response = self.connect().await.send_request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn get(&self, call: &str) -> Reply {
        self.send("GET", &format!("/v1/{call}"), &[], "").await
    }

    pub async fn post(&self, call: &str, body: &Value) -> Reply {
        let json = [("content-type", "application/json")];
        self.send("POST", &format!("/v1/{call}"), &json, body.to_string()).await
    }
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// What a good answer says.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_str(self.text()).unwrap()
    }

    /// What a refusal says; every one has these members.
    pub fn problem(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        let problem: Value = serde_json::from_str(self.text()).unwrap();
        assert_eq!(problem["status"], self.status);
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"));
        for member in ["type", "title", "detail", "code"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {problem}");
        }
        assert_eq!(problem["retry"].as_bool(), Some(self.header("retry-after").is_some()), "{problem}");
        problem
    }

    /// The lines of an export.
    pub fn lines(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/x-ndjson"));
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Positions of a page, in its order.
pub fn seqs(page: &Value) -> Vec<u64> {
    page["messages"].as_array().unwrap().iter().map(|message| message["seq"].as_u64().unwrap()).collect()
}
