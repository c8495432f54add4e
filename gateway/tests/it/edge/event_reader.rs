//! A client that reads server-sent events: it takes chunks apart, and lines, as browsers do, and puts up with nothing else.

use std::collections::VecDeque;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::rig::{Rig, SOON};

/// What was dispatched.
#[derive(Debug)]
pub struct Event {
    /// Empty: a message.
    pub name: String,
    pub data: Value,
    /// As told by then.
    pub retry_ms: Option<u64>,
    id: String,
}

/// A connection whose answer has begun.
pub struct Reader {
    socket: TcpStream,
    /// Status and headers.
    pub head: String,
    raw: Vec<u8>,
    body: Vec<u8>,
    /// The last chunk came.
    whole: bool,
    dispatched: VecDeque<Event>,
    /// Of the event under way.
    name: String,
    data: Vec<String>,
    /// The id of the event under way, and that of the last which was whole: one that is cut does not count.
    new_id: String,
    last_id: String,
    /// The last id by the event that was heard last, as it is sent back.
    pub id: String,
    retry_ms: Option<u64>,
    pub comments: usize,
}

pub fn address(rig: &Rig) -> String {
    rig.url.trim_start_matches("ws://").trim_end_matches("/ws").to_owned()
}

/// Sends a request without body.
pub async fn request(rig: &Rig, line: &str, lines: &[&str]) -> TcpStream {
    let address = address(rig);
    let mut socket = timeout(SOON, TcpStream::connect(&address)).await.unwrap().unwrap();
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let text = format!("{line} HTTP/1.1\r\nHost: {address}\r\n{lines}\r\n");
    socket.write_all(text.as_bytes()).await.unwrap();
    socket
}

/// The whole answer to a request.
pub async fn answer(rig: &Rig, line: &str, lines: &[&str]) -> String {
    let mut socket = request(rig, line, lines).await;
    let mut text = String::new();
    timeout(SOON, socket.read_to_string(&mut text)).await.expect("an end").expect("no reset");
    text
}

impl Reader {
    /// Asks, and reads the head of the answer.
    pub async fn ask(rig: &Rig, target: &str, lines: &[&str]) -> Self {
        let socket = request(rig, &format!("GET {target}"), lines).await;
        let mut reader = Self {
            socket,
            head: String::new(),
            raw: Vec::new(),
            body: Vec::new(),
            whole: false,
            dispatched: VecDeque::new(),
            name: String::new(),
            data: Vec::new(),
            new_id: String::new(),
            last_id: String::new(),
            id: String::new(),
            retry_ms: None,
            comments: 0,
        };
        loop {
            if let Some(end) = reader.raw.windows(4).position(|four| four == b"\r\n\r\n") {
                reader.head = String::from_utf8(reader.raw.drain(..end + 4).collect()).unwrap();
                return reader;
            }
            assert!(reader.more().await, "no end within the head");
        }
    }

    /// Opens a stream, which is welcomed.
    pub async fn open(rig: &Rig, target: &str, lines: &[&str]) -> Self {
        let mut reader = Self::ask(rig, target, lines).await;
        assert!(reader.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", reader.head);
        assert!(reader.head.contains("Content-Type: text/event-stream\r\n"), "{}", reader.head);
        let welcome = reader.hear().await;
        assert_eq!(welcome.name, "welcome");
        assert!(welcome.data["welcome"]["user"].is_string(), "{welcome:?}");
        assert!(welcome.retry_ms.is_some(), "a crowd is spread");
        reader
    }

    /// As [`Reader::open`], where this reader was.
    pub async fn resume(self, rig: &Rig, target: &str) -> Self {
        let last = format!("Last-Event-ID: {}", self.id);
        drop(self);
        Self::open(rig, target, &[&last]).await
    }

    /// The next event.
    pub async fn hear(&mut self) -> Event {
        loop {
            if let Some(event) = self.dispatched.pop_front() {
                self.id.clone_from(&event.id);
                return event;
            }
            assert!(self.more().await, "an end instead of an event");
            self.take();
        }
    }

    /// The next event has this name.
    pub async fn hears(&mut self, name: &str) -> Value {
        let event = self.hear().await;
        assert_eq!(event.name, name, "{event:?}");
        event.data
    }

    /// Positions of the next messages, all of which are of this room.
    pub async fn seqs(&mut self, room: &str, count: usize) -> Vec<u64> {
        let mut seqs = Vec::new();
        while seqs.len() < count {
            let message = self.hears("").await;
            assert_eq!(message["msg"], room);
            seqs.push(message["seq"].as_u64().unwrap());
        }
        seqs
    }

    /// Until a comment came.
    pub async fn until_comment(&mut self) {
        while self.comments == 0 {
            assert!(self.more().await, "an end instead of a comment");
            self.take();
        }
    }

    /// The body is whole, nothing follows, and TCP ends.
    pub async fn end(&mut self) {
        while self.more().await {
            self.take();
        }
        self.take();
        self.id.clone_from(&self.last_id);
        assert!(self.dispatched.is_empty(), "{:?}", self.dispatched);
        assert!(self.whole && self.raw.is_empty() && self.body.is_empty(), "a body that was cut");
    }

    /// What comes until TCP ends, whole or not.
    pub async fn rest(&mut self) -> Vec<Event> {
        let mut chunk = [0; 64 * 1024];
        while let Ok(count @ 1..) = timeout(SOON, self.socket.read(&mut chunk)).await.expect("an end") {
            self.raw.extend_from_slice(&chunk[..count]);
            self.take();
        }
        self.id.clone_from(&self.last_id);
        self.dispatched.drain(..).collect()
    }

    /// `false`: TCP has ended, in order.
    async fn more(&mut self) -> bool {
        timeout(SOON, self.socket.read_buf(&mut self.raw)).await.expect("in time").expect("no reset") > 0
    }

    fn take(&mut self) {
        self.take_chunks();
        while let Some(at) = self.body.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.body.drain(..=at).collect();
            self.line(std::str::from_utf8(&line[..at]).unwrap());
        }
    }

    fn take_chunks(&mut self) {
        while let Some(at) = self.raw.windows(2).position(|two| two == b"\r\n") {
            let size = std::str::from_utf8(&self.raw[..at]).unwrap();
            let len = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("no size: {size:?}"));
            if self.raw.len() < at + len + 4 {
                return;
            }
            assert!(!self.whole, "something after the last chunk");
            assert_eq!(&self.raw[at + 2 + len..at + len + 4], b"\r\n", "a chunk of another size");
            self.body.extend_from_slice(&self.raw[at + 2..at + 2 + len]);
            self.raw.drain(..at + len + 4);
            self.whole = len == 0;
        }
    }

    fn line(&mut self, line: &str) {
        assert!(!line.contains('\r'), "{line:?}");
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            self.last_id.clone_from(&self.new_id);
            // Without data nothing is dispatched; what was said of the id counts.
            if !data.is_empty() {
                let data = serde_json::from_str(&data.join("\n")).expect("JSON");
                let (retry_ms, id) = (self.retry_ms, self.last_id.clone());
                self.dispatched.push_back(Event { name, data, retry_ms, id });
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?}"));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "" => self.comments += 1,
            "id" => self.new_id = value,
            "event" => self.name = value,
            "data" => self.data.push(value),
            "retry" => self.retry_ms = Some(value.parse().unwrap()),
            other => panic!("a field {other:?}"),
        }
    }
}
