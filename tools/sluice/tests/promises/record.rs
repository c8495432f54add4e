//! What clients did and saw, and the judgement: every `ok` is in the table once, at its seq; every observer
//! saw a contiguous run; each sender's order is kept.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_client::{Client, Error, Event, Events, Options, Position};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, timeout};

use crate::kit::{Ground, until};

/// What one observer of one room saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Position its subscription began at.
    pub after: u64,
    /// `(seq, from, data)` in the order they came.
    pub messages: Vec<(u64, String, String)>,
    /// When each came.
    pub times: Vec<Instant>,
    /// Ranges it was told are gone.
    pub skipped: Vec<(u64, u64)>,
    /// `recovered:false` it was told, with the position in force.
    pub unrecovered: Vec<u64>,
    /// How often it resumed where it was.
    pub resumed: usize,
    /// Why its connections ended: drain, bye, close.
    pub farewells: Vec<String>,
}

/// An observer: a client that subscribes once and resumes by itself.
pub struct Observer {
    pub client: Client,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Observer {
    pub async fn start(options: Options, room: &str, from: Position) -> Self {
        let (client, mut events) = Client::connect(options).await.unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let at = client.subscribe(room, from).await.unwrap();
        seen.lock().unwrap().after = at.after;
        let sink = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                sink.lock().unwrap().take(event);
            }
        });
        Self { client, seen, task }
    }

    pub fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap())
    }

    pub fn last(&self) -> u64 {
        self.look(|seen| seen.messages.last().map_or(seen.after, |(seq, ..)| *seq))
    }

    /// Waits until it has seen `seq`.
    pub async fn reaches(&self, seq: u64, within: Duration) -> Duration {
        let what = format!("an observer at {} sees {seq}", self.last());
        until(&what, within, async || self.last() >= seq).await
    }
}

impl Seen {
    fn take(&mut self, event: Event) {
        match event {
            Event::Message(message) | Event::OutOfOrder { message, .. } => {
                self.messages.push((message.seq, message.from, message.data.get().to_owned()));
                self.times.push(Instant::now());
            }
            Event::Skipped { from, to, .. } => self.skipped.push((from, to)),
            Event::Resumed(at) if !at.recovered => self.unrecovered.push(at.after),
            Event::Resumed(_) => self.resumed += 1,
            Event::Drain(drain) => self.farewells.push(format!("drain {}", drain.reason)),
            Event::Bye(bye) => self.farewells.push(format!("bye {}", bye.code)),
            Event::Closed { code, reason, .. } => {
                self.farewells.push(format!("close {} {reason}", code.unwrap_or_default()));
            }
            _ => {}
        }
    }

    /// Contiguous from where it began, but for what it was told.
    fn judge(&self, name: &str) {
        assert!(self.unrecovered.is_empty(), "{name} was told recovered:false at {:?}", self.unrecovered);
        let mut next = self.after + 1;
        for (seq, ..) in &self.messages {
            while let Some((_, to)) = self.skipped.iter().find(|(from, _)| *from == next) {
                next = to + 1;
            }
            assert_eq!(*seq, next, "{name}: {seq} came where {next} was due");
            next += 1;
        }
    }

    /// The longest time without a message.
    pub fn silence(&self) -> Duration {
        self.times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

/// What one sender published to one room: its outcomes, in the order of sending.
#[derive(Debug)]
pub struct Sent {
    pub user: String,
    pub outcomes: Vec<(String, Result<sluice_client::Stored, Error>)>,
}

impl Sent {
    pub fn ok(&self) -> usize {
        self.outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).count()
    }

    /// Fails unless every publish was answered `ok`.
    pub fn all_ok(&self) {
        for (key, outcome) in &self.outcomes {
            assert!(outcome.is_ok(), "{} {key}: {outcome:?}", self.user);
        }
    }
}

/// Publishes `count` messages, pipelined; `rate` per second, 0 = as fast as the outbox allows.
pub async fn publish(client: Client, user: String, room: String, count: usize, rate: u32) -> Sent {
    let mut clock = (rate > 0).then(|| interval(Duration::from_secs(1) / rate));
    let mut receipts = Vec::with_capacity(count);
    for n in 0..count {
        if let Some(clock) = &mut clock {
            clock.tick().await;
        }
        let key = format!("{user}-{n:06}");
        let receipt = client.submit(&room, &key, &(&user, n)).await.unwrap();
        receipts.push((key, receipt));
    }
    let mut outcomes = Vec::with_capacity(count);
    for (key, receipt) in receipts {
        let outcome = timeout(Duration::from_secs(60), receipt.outcome()).await.expect("an outcome in time");
        outcomes.push((key, outcome));
    }
    Sent { user, outcomes }
}

/// A sender that runs beside the test. Its own events are read and dropped.
pub async fn sender(options: Options, user: &str, room: &str, count: usize, rate: u32) -> JoinHandle<Sent> {
    let (client, events) = Client::connect(options.outbox_max(512)).await.unwrap();
    let (user, room) = (user.to_owned(), room.to_owned());
    tokio::spawn(async move {
        let reader = tokio::spawn(forget(events));
        let sent = publish(client, user, room, count, rate).await;
        reader.abort();
        sent
    })
}

async fn forget(mut events: Events) {
    while events.next().await.is_some() {}
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub seq: u64,
    pub sender: String,
    pub key: String,
    pub data: String,
}

/// What to ask for them, in this order; the only parameter is the room.
pub const ROWS: &str = "select seq, sender, key, data from messages where room = $1 order by seq";

impl Stored {
    pub fn from_row((seq, sender, key, data): (i64, String, String, Vec<u8>)) -> Self {
        Self { seq: seq.try_into().unwrap(), sender, key, data: String::from_utf8(data).unwrap() }
    }
}

/// Compares what everybody knows of one room.
pub async fn judge(ground: &impl Ground, room: &str, sent: &[Sent], observers: &[&Observer]) -> Vec<Stored> {
    let rows = ground.table(room).await;
    let seqs: Vec<u64> = rows.iter().map(|row| row.seq).collect();
    assert_eq!(seqs, (1..=rows.len() as u64).collect::<Vec<_>>(), "the table has no hole");
    let by_key: HashMap<(&str, &str), &Stored> =
        rows.iter().map(|row| ((row.sender.as_str(), row.key.as_str()), row)).collect();
    assert_eq!(by_key.len(), rows.len(), "no key is stored twice");
    for sent in sent {
        let mut last = 0;
        for (key, outcome) in &sent.outcomes {
            let row = by_key.get(&(sent.user.as_str(), key.as_str()));
            if let Ok(stored) = outcome {
                assert_eq!(row.map(|row| row.seq), Some(stored.seq), "{} {key} was answered ok", sent.user);
            }
            if let Some(row) = row {
                assert!(row.seq > last, "{} {key} at {} came after {last}", sent.user, row.seq);
                last = row.seq;
            }
        }
    }
    let truth: BTreeMap<u64, &Stored> = rows.iter().map(|row| (row.seq, row)).collect();
    for (n, observer) in observers.iter().enumerate() {
        observer.look(|seen| {
            seen.judge(&format!("observer {n}"));
            for (seq, from, data) in &seen.messages {
                let row =
                    truth.get(seq).unwrap_or_else(|| panic!("observer {n} saw {seq}, which is not stored"));
                assert_eq!((from, data), (&row.sender, &row.data), "observer {n} at {seq}");
            }
        });
    }
    rows
}
