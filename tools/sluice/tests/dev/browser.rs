//! A headless Chromium, driven over its DevTools protocol by the bare WebSocket client.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use sluice_client::raw::{Handshake, Socket};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::rig::{SOON, until};

/// A page that was opened.
pub struct Tab(String);

pub struct Browser {
    child: Child,
    socket: Socket,
    session: Option<String>,
    asked: u64,
    _profile: TempDir,
}

impl Browser {
    /// Starts it; `None` where there is no Chromium.
    pub async fn start() -> Option<Self> {
        let profile = tempfile::tempdir().unwrap();
        let mut child = ["chromium", "google-chrome"].iter().find_map(|name| launch(name, &profile).ok())?;
        let log = BufReader::new(child.stderr.take().unwrap());
        let address = log
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("DevTools listening on ").map(str::to_owned));
        let address = address.expect("Chromium starts and says where it listens");
        let socket = Socket::connect(&Handshake::new(address)).await.unwrap();
        Some(Self { child, socket, session: None, asked: 0, _profile: profile })
    }

    /// Opens a page in a tab of its own; what follows is about it.
    pub async fn open(&mut self, url: &str) -> Tab {
        self.session = None; // it is asked for by no tab
        let target = self.ask("Target.createTarget", json!({ "url": url })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.ask("Target.attachToTarget", attach).await;
        let tab = Tab(attached["sessionId"].as_str().unwrap().to_owned());
        self.look_at(&tab);
        tab
    }

    /// What follows is about this tab.
    pub fn look_at(&mut self, tab: &Tab) {
        self.session = Some(tab.0.clone());
    }

    pub async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut question = json!({ "id": self.asked, "method": method, "params": params });
        if let Some(session) = &self.session {
            question["sessionId"] = json!(session);
        }
        self.socket.send(question.to_string()).await.unwrap();
        loop {
            let mut answer = timeout(SOON, self.socket.json()).await.expect("an answer in time").unwrap();
            if answer["id"] == self.asked {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }

    /// The value of an expression in the page.
    pub async fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.ask("Runtime.evaluate", params).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true in the page, which may still be loading.
    pub async fn until(&mut self, expression: &str) {
        let is = format!("(() => {{ try {{ return Boolean({expression}) }} catch {{ return false }} }})()");
        until(expression, async || self.value(&is).await == true).await;
    }
}

fn launch(name: &str, profile: &TempDir) -> std::io::Result<Child> {
    Command::new(name)
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            // a page that nobody looks at has its timers all the same
            "--disable-background-timer-throttling",
            "--disable-renderer-backgrounding",
        ])
        .args(["--remote-debugging-port=0", "--window-size=1100,900", "about:blank"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

/// Where to leave pictures for docs/, to be looked at by people: nowhere unless the environment names a folder.
const PICTURES: &str = "SLUICE_TEST_PICTURES";

impl Browser {
    /// The page as it looks now, `name` of that folder.
    pub async fn picture(&mut self, name: &str, width: u32, height: u32) {
        let Some(folder) = std::env::var_os(PICTURES) else { return };
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.ask("Emulation.setDeviceMetricsOverride", size).await;
        let shot = self.ask("Page.captureScreenshot", json!({ "format": "png" })).await;
        let file = std::fs::File::create(std::path::Path::new(&folder).join(name)).unwrap();
        let mut decode = Command::new("base64");
        let mut child = decode.arg("-d").stdin(Stdio::piped()).stdout(file).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(shot["data"].as_str().unwrap().as_bytes()).unwrap();
        drop(input);
        assert!(child.wait().unwrap().success());
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.child.kill().ok(); // it may have ended
        self.child.wait().ok();
    }
}
