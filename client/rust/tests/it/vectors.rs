//! The client is held to `client/vectors`, over real connections to gateways that follow the script.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sluice_client::{Client, Due, Error, Event, HistoryRange, Options, Position, Scheduled, TokenError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

const SOON: Duration = Duration::from_secs(30);
const EPOCH: &str = "000000000000001f";
/// Told in an order of their own.
const OF_CALLS: [&str; 5] = ["stored", "scheduled", "cancelled", "history", "refused"];
/// What a vector need not speak of.
const OPTIONAL: [&str; 4] = ["connected", "drain", "bye", "ended"];

#[tokio::test]
async fn the_vectors_of_all_clients() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut running = JoinSet::new();
    for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "json")) {
        let mut read: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let Value::Array(vectors) = read["vectors"].take() else { panic!("vectors is a list") };
        let is_for_us = |vector: &Value| vector["needs"].is_null() || vector["needs"] == "renewal";
        for vector in vectors.into_iter().filter(is_for_us) {
            running.spawn(run(vector));
        }
    }
    assert!(running.len() > 60, "{} vectors", running.len());
    let failed: Vec<String> = running.join_all().await.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// What went wrong in a vector.
async fn run(vector: Value) -> Option<String> {
    let mut stage = Stage::new(&vector).await;
    for (n, step) in vector["steps"].as_array().unwrap().iter().enumerate() {
        let outcome = timeout(SOON, stage.step(step)).await;
        if let Err(why) = outcome.unwrap_or(Err("it did not happen".into())) {
            return Some(format!("{} step {} {step}: {why}", vector["name"], n + 1));
        }
    }
    let more: Vec<&Value> = stage.events.iter().filter(|told| !is_one_of(told, &OPTIONAL)).collect();
    (!more.is_empty()).then(|| format!("{}: also told {more:?}", vector["name"]))
}

fn is_one_of(told: &Value, types: &[&str]) -> bool {
    types.contains(&told["type"].as_str().unwrap())
}

struct Stage {
    gateways: Vec<TcpListener>,
    conns: HashMap<u64, WebSocketStream<TcpStream>>,
    wanted: mpsc::Sender<Value>,
    told: mpsc::Receiver<Value>,
    calls: VecDeque<Value>,
    events: VecDeque<Value>,
    ids: HashMap<String, Value>,
    /// So many questions for a token fail.
    failing: Arc<AtomicU32>,
    /// When a pause began, and whether a `drain` had begun it.
    since: (Instant, bool),
    least: Duration,
    /// When the server said what a token is to be replaced for, and how long until it is tried again, together.
    again: (Instant, Duration),
    _program: JoinSet<()>,
}

impl Stage {
    async fn new(vector: &Value) -> Self {
        let mut gateways = Vec::new();
        for _ in 0..vector["gateways"].as_u64().unwrap_or(1) {
            gateways.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let mut urls = gateways.iter().map(|gateway| format!("ws://{}/ws", gateway.local_addr().unwrap()));
        let mut options = urls.by_ref().take(1).fold(Options::new(""), |_, url| Options::new(url));
        options = urls.fold(options, Options::or).detailed();
        let failing = Arc::<AtomicU32>::default();
        if vector["needs"] == "renewal" {
            options = numbered(options, Arc::clone(&failing));
        } else if vector.get("token").is_none() {
            options = options.token("t");
        }
        let (wanted, wants) = mpsc::channel(64);
        let (tells, told) = mpsc::channel(64);
        let mut program = JoinSet::new();
        program.spawn(live(options, wants, tells));
        let since = (Instant::now(), false);
        let (conns, ids, least) = (HashMap::new(), HashMap::new(), Duration::ZERO);
        let (calls, events, again) = (VecDeque::new(), VecDeque::new(), (Instant::now(), Duration::ZERO));
        Self {
            gateways,
            conns,
            wanted,
            told,
            calls,
            events,
            ids,
            failing,
            since,
            least,
            again,
            _program: program,
        }
    }

    async fn step(&mut self, step: &Value) -> Result<(), String> {
        let has = |name: &str| step[name].as_u64();
        if let Some(n) = has("dial") {
            let stream = self.accept(step).await?;
            self.conns.insert(n, tokio_tungstenite::accept_async(stream).await.unwrap());
        } else if has("refuse").is_some() {
            let mut stream = self.accept(step).await?;
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            let after = step["retry_after_s"].as_u64().map(|after| format!("Retry-After: {after}\r\n"));
            let (status, after) = (&step["status"], after.unwrap_or_default());
            self.since = (Instant::now(), self.since.1);
            let answer = format!("HTTP/1.1 {status} No\r\n{after}Content-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        } else if let Some(n) = has("welcome") {
            let mut said = json!({"session": "s", "instance": "g", "user": "ann", "epoch": EPOCH, "ping_s": 25, "limits": {}});
            for key in ["ping_s", "token"] {
                if let Some(value) = step.get(key) {
                    said[key] = value.clone();
                }
            }
            self.say(n, &json!({"welcome": said})).await;
        } else if let Some(n) = has("say") {
            let frame = fill(&step["frame"], &self.ids);
            if frame.get("drain").is_some() {
                self.since = (Instant::now(), true);
            } else if frame.get("expiring").is_some() || frame.get("error").is_some() {
                self.again = (Instant::now(), Duration::ZERO);
            }
            self.say(n, &frame).await;
        } else if let Some(n) = has("hear") {
            return self.hear(n, &step["frame"]).await;
        } else if let Some(n) = has("close") {
            self.close(n, step["code"].as_u64()).await;
        } else if let Some(n) = has("closed") {
            return self.closed(n, step["code"].as_u64()).await;
        } else if step.get("do").is_some() {
            self.wanted.send(step.clone()).await.unwrap();
        } else if let Some(wanted) = step.get("told") {
            return self.is_told(wanted).await;
        } else if let Some(least) = step["pause"][0].as_u64() {
            self.least = Duration::from_millis(least);
        } else if let Some(least) = step["again"][0].as_u64() {
            // One after the other, before anything is heard.
            self.again.1 += Duration::from_millis(least);
        } else if let Some(count) = has("no_token") {
            self.failing.store(u32::try_from(count).unwrap(), Ordering::Relaxed);
        } else if has("silence").is_none() && has("stands").is_none() {
            return Err("there is no such step".into());
        }
        Ok(())
    }

    /// Only the least pause is looked at: a machine may be busy.
    async fn accept(&mut self, step: &Value) -> Result<TcpStream, String> {
        let at = usize::try_from(step["at"].as_u64().unwrap_or(0)).unwrap();
        let (stream, _) = self.gateways[at].accept().await.unwrap();
        let (since, least) = (self.since.0, std::mem::take(&mut self.least));
        self.since.1 = false;
        paused(since, least)?;
        Ok(stream)
    }

    async fn say(&mut self, conn: u64, frame: &Value) {
        let socket = self.conns.get_mut(&conn).unwrap();
        socket.send(Message::text(frame.to_string())).await.ok(); // a client may have had enough of it
    }

    async fn hear(&mut self, conn: u64, wanted: &Value) -> Result<(), String> {
        let socket = self.conns.get_mut(&conn).unwrap();
        let heard = loop {
            if let Some(Ok(Message::Text(text))) = socket.next().await {
                let frame: Value = serde_json::from_str(&text).unwrap();
                // whether anybody is there
                if frame["id"] != 0 || wanted["id"] == 0 {
                    break frame;
                }
            }
        };
        paused(self.again.0, std::mem::take(&mut self.again.1))?;
        for (key, value) in wanted.as_object().unwrap() {
            if let Some(name) = value.as_str().filter(|name| name.starts_with('$')) {
                self.ids.insert(name.to_owned(), heard[key].clone());
            }
        }
        let is_it = heard == fill(wanted, &self.ids);
        if is_it { Ok(()) } else { Err(format!("heard {heard}")) }
    }

    async fn close(&mut self, conn: u64, code: Option<u64>) {
        if !self.since.1 {
            self.since.0 = Instant::now();
        }
        let Some(mut socket) = self.conns.remove(&conn) else { return };
        let Some(code) = code else { return };
        let code = u16::try_from(code).unwrap().into();
        socket.close(Some(CloseFrame { code, reason: "because".into() })).await.unwrap();
        while socket.next().await.is_some_and(|frame| frame.is_ok()) {}
    }

    async fn closed(&mut self, conn: u64, wanted: Option<u64>) -> Result<(), String> {
        let mut socket = self.conns.remove(&conn).unwrap();
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map(|frame| u64::from(u16::from(frame.code)));
                    return if wanted.is_none() || code == wanted {
                        Ok(())
                    } else {
                        Err(format!("{code:?}"))
                    };
                }
                Some(Ok(Message::Text(text))) => return Err(format!("heard {text}")),
                Some(Ok(_)) => {}
                // dropped without a word
                Some(Err(_)) | None => return wanted.map_or(Ok(()), |_| Err("no close frame".into())),
            }
        }
    }

    async fn is_told(&mut self, wanted: &Value) -> Result<(), String> {
        loop {
            let of_calls = is_one_of(wanted, &OF_CALLS);
            let queue = if of_calls { &mut self.calls } else { &mut self.events };
            match queue.pop_front() {
                Some(told) if told["type"] != wanted["type"] && is_one_of(&told, &OPTIONAL) => {}
                Some(told) => {
                    let wanted = wanted.as_object().unwrap();
                    let is_it = wanted.iter().all(|(key, value)| told[key] == *value);
                    return if is_it { Ok(()) } else { Err(format!("told {told}")) };
                }
                None => {
                    let told = self.told.recv().await.unwrap();
                    let of_calls = is_one_of(&told, &OF_CALLS);
                    let queue = if of_calls { &mut self.calls } else { &mut self.events };
                    queue.push_back(told);
                }
            }
        }
    }
}

fn paused(since: Instant, least: Duration) -> Result<(), String> {
    let after = since.elapsed();
    // timers of the runtime have milliseconds
    let soon = after + Duration::from_millis(2) < least;
    if soon { Err(format!("after {after:?}, not {least:?}")) } else { Ok(()) }
}

fn fill(frame: &Value, ids: &HashMap<String, Value>) -> Value {
    let filled = frame.as_object().unwrap().iter().map(|(key, value)| {
        let id = value.as_str().and_then(|name| ids.get(name));
        (key.clone(), id.unwrap_or(value).clone())
    });
    Value::Object(filled.collect())
}

/// A function whose tokens are numbered, of which the next ones fail.
fn numbered(options: Options, failing: Arc<AtomicU32>) -> Options {
    let given = Arc::<AtomicU32>::default();
    options.token_from(move || {
        let fails =
            failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        let number = if fails { 0 } else { given.fetch_add(1, Ordering::Relaxed) + 1 };
        async move {
            match number {
                0 => Err(TokenError::Later("out of order".into())),
                1 => Ok("t".to_owned()),
                number => Ok(format!("t{number}")),
            }
        }
    })
}

/// The program: does what the script wants, and tells what it is told.
async fn live(options: Options, mut wants: mpsc::Receiver<Value>, tells: mpsc::Sender<Value>) {
    let mut calls = JoinSet::new();
    if let Ok((client, mut events)) = Client::connect(options).await {
        loop {
            tokio::select! {
                biased;
                event = events.next() => match event {
                    Some(event) => if let Some(told) = translate(event) {
                        tells.send(told).await.unwrap();
                    },
                    None => break,
                },
                Some(step) = wants.recv() => want(&client, &step, &tells, &mut calls).await,
                Some(_) = calls.join_next() => {}
            }
        }
        calls.join_all().await;
    }
    tells.send(json!({"type": "ended"})).await.ok(); // the script may be over
}

async fn want(client: &Client, step: &Value, tells: &mpsc::Sender<Value>, calls: &mut JoinSet<()>) {
    let (client, tells) = (client.clone(), tells.clone());
    let text = |name: &str| step[name].as_str().unwrap_or_default().to_owned();
    let (room, key, data) = (text("room"), text("key"), step["data"].clone());
    let after = step["after"].as_u64();
    let answer = move |key: String, outcome: Result<Value, Error>| async move {
        let code = |error: &Error| if let Error::Answer(error) = error { error.code.as_str() } else { "" };
        let told =
            outcome.unwrap_or_else(|error| json!({"type": "refused", "key": key, "code": code(&error)}));
        tells.send(told).await.ok(); // the script may be over
    };
    match step["do"].as_str().unwrap() {
        "subscribe" => {
            let at = match (after, step["epoch"].as_str()) {
                (Some(after), Some(epoch)) => Position::In { after, epoch: epoch.into() },
                (Some(after), None) => Position::After(after),
                (None, _) => Position::Now,
            };
            let watches = step["presence"] == true;
            calls.spawn(async move {
                let subscribed =
                    if watches { client.watch(&room, at).await } else { client.subscribe(&room, at).await };
                if let Err(Error::Answer(error)) = subscribed {
                    answer(
                        key,
                        Ok(json!({"type": "unsubscribed", "room": room, "code": error.code.as_str()})),
                    )
                    .await;
                }
            });
        }
        "unsubscribe" => {
            drop(calls.spawn(async move { client.unsubscribe(&room).await.unwrap_or_default() }))
        }
        "publish" => {
            let receipt = client.submit(&room, &key, &data).await.unwrap();
            calls.spawn(async move {
                let told = |stored: sluice_client::Stored| json!({"type": "stored", "key": stored.key, "seq": stored.seq});
                answer(key, receipt.outcome().await.map(told)).await;
            });
        }
        "schedule" => drop(calls.spawn(async move {
            let due = Due::In(Duration::from_millis(5));
            let told = client.schedule(&room, &key, &data, due).await.map(|scheduled| match scheduled {
                Scheduled::Waits { due_ms, key } => json!({"type": "scheduled", "key": key, "due": due_ms}),
                Scheduled::Published(stored) => {
                    json!({"type": "stored", "key": stored.key, "seq": stored.seq})
                }
            });
            answer(key, told).await;
        })),
        "cancel" => drop(calls.spawn(async move {
            let cancelled = client.cancel(&room, &key).await;
            let told =
                cancelled.map(|cancelled| json!({"type": "cancelled", "key": key, "cancelled": cancelled}));
            answer(key, told).await;
        })),
        "history" => {
            let before = step["before"].as_u64().map(HistoryRange::Before);
            let range = before.or(after.map(HistoryRange::After)).unwrap_or(HistoryRange::Newest);
            let limit = step["limit"].as_u64().map(|limit| u32::try_from(limit).unwrap());
            calls.spawn(async move {
                let told = client.history(&room, range, limit).await.map(|page| {
                    let seqs: Vec<u64> = page.messages.iter().map(|message| message.seq).collect();
                    let more = page.more.map(|more| match more {
                        HistoryRange::Before(seq) => json!({"before": seq}),
                        HistoryRange::After(seq) => json!({"after": seq}),
                        HistoryRange::Newest => json!({}),
                    });
                    json!({"type": "history", "seqs": seqs, "more": more})
                });
                answer(key, told).await;
            });
        }
        "close" => drop(calls.spawn(client.close())),
        other => panic!("no program wants {other}"),
    }
}

fn translate(event: Event) -> Option<Value> {
    Some(match event {
        Event::Connected(_) => json!({"type": "connected"}),
        Event::Message(message) => {
            let data: Value = serde_json::from_str(message.data.get()).unwrap();
            json!({"type": "message", "room": message.room, "seq": message.seq, "from": message.from, "data": data})
        }
        Event::Skipped { room, from, to } => json!({"type": "skipped", "room": room, "from": from, "to": to}),
        Event::UserJoined { room, user, at_ms, info } => {
            let info: Option<Value> = info.map(|info| serde_json::from_str(info.get()).unwrap());
            json!({"type": "joined", "room": room, "user": user, "at": at_ms, "info": info})
        }
        Event::UserLeft { room, user, at_ms } => {
            json!({"type": "left", "room": room, "user": user, "at": at_ms})
        }
        Event::Stale { room } => json!({"type": "stale", "room": room}),
        Event::Subscribed(at) => subscribed("subscribed", &at),
        Event::Resumed(at) => subscribed("resumed", &at),
        Event::Unsubscribed { room, error } => {
            json!({"type": "unsubscribed", "room": room, "code": error.code.as_str()})
        }
        // One that came before is dropped, though this client says so.
        Event::OutOfOrder { expected, message } if message.seq < expected => return None,
        Event::OutOfOrder { expected, message } => {
            json!({"type": "gap", "room": message.room, "expected": expected, "seq": message.seq})
        }
        Event::Drain(_) => json!({"type": "drain"}),
        Event::Bye(bye) => json!({"type": "bye", "code": bye.code}),
        Event::Closed { reconnects, .. } => json!({"type": "closed", "reconnects": reconnects}),
        Event::Error(error) => json!({"type": "error", "code": error.code.as_str()}),
        Event::Reconnecting { .. } | Event::Dialled { .. } | Event::Asked { .. } | Event::Left { .. } | _ => {
            return None;
        }
    })
}

fn subscribed(which: &str, at: &sluice_client::Subscribed) -> Value {
    json!({"type": which, "room": at.room, "after": at.after, "head": at.head, "epoch": at.epoch, "recovered": at.recovered})
}
