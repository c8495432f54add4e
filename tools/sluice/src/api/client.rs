//! One call of the API: its answer is written as it comes.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use sluice_program::output;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A call.
pub(super) enum Call {
    /// One that looks, with parameters.
    Get(&'static str, Vec<(&'static str, String)>),
    /// One that sends a body.
    Post(&'static str, String),
}

/// Who is asked.
pub(super) struct Server {
    pub(super) url: String,
    pub(super) key: String,
    pub(super) within: Duration,
}

impl Server {
    /// Asks, and writes the answer to standard output.
    pub(super) async fn ask(&self, call: Call) -> anyhow::Result<ExitCode> {
        let Some(host) = self.url.trim_end_matches('/').strip_prefix("http://") else {
            bail!("{} is no address of the form http://host:port; with TLS use curl", self.url)
        };
        let late = || format!("{} does not answer within {} s", self.url, self.within.as_secs());
        let asking = self.begin(host, call);
        let mut response = timeout(self.within, asking).await.with_context(late)??;
        if !response.status().is_success() {
            let body =
                timeout(self.within, response.into_body().collect()).await.with_context(late)??.to_bytes();
            bail!("{}", refusal(&body));
        }
        let mut rest = Vec::new();
        // An export is written as it comes, line by line.
        while let Some(frame) = timeout(self.within, response.frame()).await.with_context(late)? {
            let frame = frame.context("the answer was cut")?;
            rest.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                output::line(String::from_utf8_lossy(&line).trim_end())?;
            }
        }
        if !rest.is_empty() {
            output::line(String::from_utf8_lossy(&rest))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn begin(&self, host: &str, call: Call) -> anyhow::Result<Response<Incoming>> {
        let connected = TcpStream::connect(host).await;
        let tcp = connected.with_context(|| format!("{} cannot be reached", self.url))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
        #[expect(clippy::disallowed_methods, reason = "it ends with the answer, and the program with that")]
        tokio::spawn(connection);
        let authorization = format!("Bearer {}", self.key);
        let request = Request::builder().header("host", host).header("authorization", authorization);
        let request = match call {
            Call::Get(name, parameters) => {
                request.method("GET").uri(format!("/v1/{name}{}", query(&parameters))).body(Full::default())
            }
            Call::Post(name, body) => request
                .method("POST")
                .uri(format!("/v1/{name}"))
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(body))),
        };
        Ok(sender.send_request(request.context("the key cannot stand in a header")?).await?)
    }
}

fn query(parameters: &[(&str, String)]) -> String {
    let pairs: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
        .collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// What a problem says, for people.
fn refusal(body: &[u8]) -> String {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
    let again =
        if problem.get("retry") == Some(&Value::Bool(true)) { "; sending it again can succeed" } else { "" };
    format!("{}: {}{again}", text("code"), text("detail"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rooms_are_whatever_they_are() {
        assert_eq!(query(&[]), "");
        assert_eq!(query(&[("room", "a&b=é".into()), ("limit", "1".into())]), "?room=a%26b%3D%C3%A9&limit=1");
        let problem = br#"{"code":"not_sent","detail":"nothing was done","retry":true}"#;
        assert_eq!(refusal(problem), "not_sent: nothing was done; sending it again can succeed");
        assert_eq!(refusal(b"<html>"), "?: ?");
    }
}
