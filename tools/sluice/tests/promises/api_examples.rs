//! The examples of docs/api.md, as they stand there, against `sluice dev`: the document is what is executed.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::kit::SOON;

/// A process with an API, killed when dropped.
struct Served {
    _child: Child,
    folder: TempDir,
    http: String,
    key: String,
}

impl Served {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.args(["dev", "--json", "--port", "0", "--gateways", "1", "--dir"]).arg(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        timeout(SOON, output.read_line(&mut line)).await.expect("it starts in time").unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{said}")).to_owned();
        Self { _child: child, http: text(&said["logics"][0]["http"]), key: text(&said["api_key"]), folder }
    }

    /// Runs a program with the API in its environment; what it wrote.
    async fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null()).kill_on_drop(true);
        command.env("SLUICE_API_URL", &self.http).env("SLUICE_API_KEY", &self.key);
        command.env("SLUICE", env!("CARGO_BIN_EXE_sluice"));
        let output = timeout(SOON, command.output()).await.expect("it ends in time");
        let output = output.unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, complaint) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{program} {arguments:?}: {said}{complaint}");
        said
    }

    async fn shell(&self, script: &str) -> String {
        let script = format!("set -euo pipefail\nsluice() {{ \"$SLUICE\" \"$@\"; }}\n{script}");
        self.run("bash", &["-c", &script]).await
    }
}

/// The blocks of a language, in their order.
fn blocks(language: &str) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
    let text = std::fs::read_to_string(file).unwrap();
    let opened = format!("```{language}\n");
    text.split(&opened).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_api_work_as_they_stand() {
    let served = Served::start().await;
    let shell = blocks("sh");
    let [key, curl, verbs] = &shell[..] else { panic!("{shell:?}") };
    let key = served.shell(key).await;
    assert!(key.starts_with("sluice_") && key.lines().count() == 1, "{key}");

    let said = served.shell(curl).await;
    assert!(!said.contains("\"code\":"), "{said}");
    for part in [
        r#"{"room":"news","seq":1,"#,
        r#""seq":2,"#,
        r#""key":"order-18""#,
        r#"{"room":"sport","seq":1,"#,
        r#""from":"billing","key":"order-17""#,
        r#""subscribers":0"#,
        r#""cancelled":true"#,
        r#""reason":"complete""#,
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }

    let [python] = &blocks("python")[..] else { panic!("one example in Python") };
    let said = served.run("python3", &["-c", python]).await;
    assert!(said.contains("'room': 'news'") && said.contains("'duplicate': False"), "{said}");

    let [javascript] = &blocks("js")[..] else { panic!("one example in JavaScript") };
    let said = served.run("node", &["--input-type=module", "-e", javascript]).await;
    assert!(said.starts_with("1 {\"t\":\"hi\"}\n") && said.contains("{\"t\":\"from Python\"}"), "{said}");

    let said = served.shell(verbs).await;
    // Sent with the key of the first example, and with other words: who sends is another one.
    assert!(said.contains(r#""seq":5"#) && said.contains(r#""reason":"complete""#), "{said}");
    // She is not there; the gateway was asked.
    assert!(said.contains(r#""connections":0,"gateways":[{"instance":"#), "{said}");
}
