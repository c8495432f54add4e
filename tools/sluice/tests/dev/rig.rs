//! One `sluice dev`, or one `sluice serve`, for one test, and conditions that are waited for.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use sluice_client::raw::{Frame, Handshake, Socket};
use sluice_launcher::token::{Grants, mint};
use tokio::time::{Instant, sleep, timeout};

/// Bound of waits that should end at once on an idle machine.
pub const SOON: Duration = Duration::from_secs(20);

/// The binary, without what the environment of the test might say.
pub fn sluice() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    for name in [
        "SLUICE_TOKEN_SECRET",
        "SLUICE_TOKEN_SECRET_FILE",
        "SLUICE_TOKEN",
        "SLUICE_URL",
        "SLUICE_POSTGRES__URL",
        "SLUICE_CONFIG",
        "RUST_LOG",
    ] {
        command.env_remove(name);
    }
    command
}

pub fn run(arguments: &[&str]) -> Output {
    sluice().args(arguments).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// A port that nobody listens on now, far from those that `sluice dev` tries by itself.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What tokens of a `sluice serve` are signed with.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A `sluice serve` with its messages in a folder, on free ports of this machine, without an API.
pub fn serve(dir: &Path) -> Command {
    let mut command = sluice();
    command
        .arg("serve")
        .arg("--set")
        .arg(format!("dir={}", dir.display()))
        .env("SLUICE_TOKEN_SECRET", SECRET);
    for setting in
        ["listen=127.0.0.1:0,127.0.0.1:0", "admin.listen=127.0.0.1:0", "api.listen=", "log.level=warn"]
    {
        command.args(["--set", setting]);
    }
    command
}

/// A token for everything.
pub fn token(user: &str) -> String {
    let all = || vec!["*".to_owned(), "@*".to_owned()];
    mint(SECRET, user, Grants { sub: all(), publish: all() }, Duration::from_secs(86_400)).unwrap()
}

/// A running `sluice dev` or `sluice serve`; killed when dropped.
pub struct Dev {
    child: Child,
    pub first: Value,
}

impl Dev {
    /// Starts it with --json in a folder and waits for its line.
    pub fn start(dir: &Path, arguments: &[&str]) -> Self {
        let mut command = sluice();
        command.args(["dev", "--json", "--dir"]).arg(dir).args(arguments);
        Self::spawn(command)
    }

    /// The same with tokens.
    pub fn serve(dir: &Path) -> Self {
        Self::spawn(serve(dir))
    }

    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let first = serde_json::from_str(&line).unwrap_or_else(|error| {
            child.kill().unwrap();
            panic!("{error}: {line:?}, {:?}", child.wait())
        });
        Self { child, first }
    }

    pub fn ws(&self, gateway: usize) -> &str {
        self.first["gateways"][gateway]["ws"].as_str().unwrap()
    }

    pub fn page(&self) -> &str {
        self.first["page"].as_str().unwrap()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Its exit status and how long it took to get there.
    pub fn wait(&mut self) -> (ExitStatus, Duration) {
        let begun = std::time::Instant::now();
        (self.child.wait().unwrap(), begun.elapsed())
    }

    pub fn kill(&mut self) {
        self.signal("-KILL");
        self.wait();
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.child.kill().ok(); // it may have ended
        self.child.wait().ok();
    }
}

/// A bare connection after `welcome`, and the token that came with it. Without a token it is a new anonymous user.
pub async fn connect(url: &str, token: Option<&str>) -> (Socket, String) {
    let handshake = Handshake::new(url);
    let handshake = match token {
        Some(token) => handshake.token(token),
        None => handshake,
    };
    let mut socket = Socket::connect(&handshake).await.unwrap();
    let welcome = frame(&mut socket).await;
    let token = welcome["welcome"]["token"].as_str().or(token).unwrap_or_else(|| panic!("{welcome}"));
    (socket, token.to_owned())
}

/// A bare connection, before anything was read.
pub async fn connect_bare(url: &str) -> Socket {
    Socket::connect(&Handshake::new(url)).await.unwrap()
}

/// The next JSON frame, in time.
pub async fn frame(socket: &mut Socket) -> Value {
    match timeout(SOON, socket.json()).await.expect("a frame in time") {
        Ok(value) => value,
        Err(frame) => panic!("expected JSON, got {frame:?}"),
    }
}

/// All frames, the code of the close frame, and then the end of the connection, as a client sees them that answers.
pub async fn last_words(mut socket: Socket) -> (Vec<Value>, u16) {
    let (mut frames, mut closed) = (Vec::new(), None);
    loop {
        match timeout(SOON, socket.next()).await.expect("the end in time") {
            Frame::Text(text) => frames.push(serde_json::from_str(&text).unwrap()),
            Frame::Close { code, .. } => closed = Some(code),
            Frame::End(why) => return (frames, closed.unwrap_or_else(|| panic!("no close frame: {why}"))),
            other => panic!("unexpected: {other:?}"),
        }
    }
}

/// All messages of a room that are stored.
pub async fn stored(url: &str, room: &str) -> Vec<Value> {
    stored_for(url, room, None).await
}

/// The same, for whoever has this token.
pub async fn stored_for(url: &str, room: &str, token: Option<&str>) -> Vec<Value> {
    let (mut socket, _) = connect(url, token).await;
    socket.send(json!({ "sub": room, "after": 0 }).to_string()).await.unwrap();
    let ok = frame(&mut socket).await;
    assert_eq!((&ok["ok"], &ok["recovered"]), (&json!("sub"), &json!(true)), "{ok}");
    let mut all = Vec::new();
    for _ in 0..ok["head"].as_u64().unwrap() {
        all.push(frame(&mut socket).await);
    }
    all
}

/// Waits until `condition` holds, looking every 20 ms.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < 2 * SOON, "not within {:?}: {what}", 2 * SOON);
        sleep(Duration::from_millis(20)).await;
    }
}
