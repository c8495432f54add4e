//! The first minute, as README.md tells it: the transcript is read from there and executed.

use std::path::Path;

use serde_json::Value;
use sluice_client::raw::Socket;

use crate::rig::{Dev, connect_bare, frame, run, text};

const ANY: &str = "…";
const EITHER: &str = " in any order with";
/// What README.md shows, and the test replaces by where its own process listens.
const USUAL: &str = "ws://127.0.0.1:8080/ws";

fn transcript() -> Vec<String> {
    let readme =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    let (_, block) = readme.split_once("```transcript\n").expect("README.md has a transcript");
    let (block, _) = block.split_once("```").unwrap();
    block.lines().map(str::to_owned).collect()
}

fn matches(expected: &Value, got: &Value) -> bool {
    match (expected, got) {
        (Value::String(any), _) if any == ANY => true,
        (Value::Object(expected), Value::Object(got)) => {
            expected.keys().eq(got.keys())
                && expected.iter().all(|(key, value)| got.get(key).is_some_and(|got| matches(value, got)))
        }
        (expected, got) => expected == got,
    }
}

/// Text with `…` for anything.
fn resembles(expected: &str, got: &str) -> bool {
    let mut rest = got;
    expected.split('…').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// Who executes.
struct Reader {
    dev: Dev,
    folder: String,
    socket: Option<Socket>,
    /// Frames that may come in any order.
    pending: Vec<Value>,
    /// Lines that the last command printed and nobody has looked at.
    printed: Vec<String>,
}

impl Reader {
    async fn line(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("$", command)) => self.command(command.split('#').next().unwrap().trim()).await,
            Some((">", text)) => self.socket.as_mut().unwrap().send(text).await.unwrap(),
            Some(("<", expected)) => self.expect(expected).await,
            _ => {
                assert!(!self.printed.is_empty(), "nothing was printed for {line:?}");
                let printed = self.printed.remove(0);
                assert!(resembles(line, &printed), "{line:?} was {printed:?}");
            }
        }
    }

    async fn command(&mut self, command: &str) {
        let words: Vec<String> = words(command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["make", "run"] => {}
            ["websocat", url] => {
                assert_eq!(*url, USUAL);
                self.socket = Some(connect_bare(self.dev.ws(0)).await);
            }
            [sluice, rest @ ..] if sluice.ends_with("/sluice") => {
                let mut rest = rest.to_vec();
                let url = self.dev.ws(0).to_owned();
                if rest[0] == "dev" {
                    rest.extend(["--dir", &self.folder]);
                } else {
                    rest.extend(["--url", &url]);
                }
                let output = tokio::task::block_in_place(|| run(&rest));
                assert!(output.status.success(), "{command}: {}", text(&output.stderr));
                self.printed = text(&output.stdout).lines().map(str::to_owned).collect();
            }
            other => panic!("cannot execute {other:?}"),
        }
    }

    async fn expect(&mut self, expected: &str) {
        let one = expected.trim_end_matches(EITHER);
        self.pending.push(serde_json::from_str(one).unwrap_or_else(|error| panic!("{error}: {one}")));
        if expected.ends_with(EITHER) {
            return;
        }
        for _ in 0..self.pending.len() {
            let got = frame(self.socket.as_mut().unwrap()).await;
            let found = self.pending.iter().position(|expected| matches(expected, &got));
            let found = found.unwrap_or_else(|| panic!("got {got}\nexpected one of {:?}", self.pending));
            self.pending.remove(found);
        }
    }
}

/// As a shell would part them, with single quotes.
fn words(command: &str) -> Vec<String> {
    let parts = command.split('\'').enumerate();
    parts
        .flat_map(|(n, part)| match n % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_minute_of_readme_is_true() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &[]);
    let folder = dir.path().to_str().unwrap().to_owned();
    let mut reader = Reader { dev, folder, socket: None, pending: Vec::new(), printed: Vec::new() };
    let lines = transcript();
    assert!(lines.iter().any(|line| line.contains("restart")), "{lines:?}");
    for line in lines.iter().filter(|line| !line.is_empty()) {
        reader.line(line).await;
    }
    assert!(reader.printed.is_empty(), "README.md does not show {:?}", reader.printed);
    println!("{} lines are true", lines.len());
}
