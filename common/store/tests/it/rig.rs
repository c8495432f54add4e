//! What the contract suite needs of a store under test, and PostgreSQL's answer to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use sluice_store::Store;
use sluice_store::postgres::{PgConfig, PgStore};
use sqlx::Row;

use crate::server::PgServer;

/// A store that can be opened several times, broken, and looked into past its own code.
#[async_trait]
pub trait Rig: Send {
    /// Another handle on the same data, as another process would have.
    async fn open(&self) -> Arc<dyn Store>;
    /// Breaks some connections in the middle of whatever they do. Nothing, where there are none.
    async fn cut(&self);
    /// Kills the server at once and starts it again. Nothing, where there is none.
    async fn crash(&mut self);
    /// All that is stored.
    async fn table(&self) -> Table;
    /// Makes all messages of a room so much older.
    async fn age(&self, room: &str, seconds: i64);
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRow {
    pub room: String,
    pub seq: u64,
    pub sender: String,
    pub key: String,
    pub hash: Vec<u8>,
    pub at_ms: i64,
}

/// Everything a store holds, as told by the tables themselves.
#[derive(Debug, Default)]
pub struct Table {
    pub heads: BTreeMap<String, u64>,
    pub rows: Vec<TableRow>,
    /// `(room, first, last)` of all outbox rows.
    pub owed: Vec<(String, u64, u64)>,
    pub deadlocks: i64,
}

impl Table {
    /// The rules every table keeps while nothing was trimmed: rooms are 1…head without a hole, keys
    /// are there once, times do not run backwards, every seq is owed in exactly one outbox row.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut by_room: BTreeMap<&str, Vec<&TableRow>> = BTreeMap::new();
        let mut keys = std::collections::BTreeSet::new();
        for row in &self.rows {
            by_room.entry(&row.room).or_default().push(row);
            if !keys.insert((&row.room, &row.sender, &row.key)) {
                faults.push(format!("key twice: {row:?}"));
            }
        }
        let mut owed: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (room, first, last) in &self.owed {
            owed.entry(room).or_default().extend(*first..=*last);
        }
        for (room, &head) in &self.heads {
            let rows = by_room.remove(room.as_str()).unwrap_or_default();
            let seqs: Vec<u64> = rows.iter().map(|row| row.seq).collect();
            if seqs != (1..=head).collect::<Vec<_>>() {
                faults.push(format!("{room}: head {head}, but seqs {}", brief(&seqs)));
            }
            if !rows.is_sorted_by_key(|row| row.at_ms) {
                faults.push(format!("{room}: times run backwards"));
            }
            let mut owed = owed.remove(room.as_str()).unwrap_or_default();
            owed.sort_unstable();
            if owed != seqs {
                faults.push(format!("{room}: seqs {}, but owed {}", brief(&seqs), brief(&owed)));
            }
        }
        faults.extend(by_room.keys().map(|room| format!("messages without a room row: {room}")));
        if self.deadlocks > 0 {
            faults.push(format!("{} deadlocks", self.deadlocks));
        }
        faults
    }
}

/// The seqs up to the first break, and what follows it.
fn brief(seqs: &[u64]) -> String {
    let run = seqs.iter().zip(1..).take_while(|&(&seq, n)| seq == n).count();
    format!("1…{run} then {:?} ({} in all)", &seqs[run..seqs.len().min(run + 3)], seqs.len())
}

pub struct PgRig(pub PgServer);

impl PgRig {
    pub async fn start() -> Self {
        Self(PgServer::start().await)
    }

    pub async fn pg(&self) -> PgStore {
        PgStore::connect(PgConfig::new(self.0.url())).await.unwrap()
    }
}

#[async_trait]
impl Rig for PgRig {
    async fn open(&self) -> Arc<dyn Store> {
        let config = PgConfig { lane_connections: 6, read_connections: 2, ..PgConfig::new(self.0.url()) };
        Arc::new(PgStore::connect(config).await.unwrap())
    }

    async fn cut(&self) {
        self.0
            .run(
                "select pg_terminate_backend(pid) from (select pid from pg_stat_activity \
                 where application_name = 'sluice' order by state = 'active' desc, random() limit 3) x",
            )
            .await;
    }

    async fn crash(&mut self) {
        self.0.crash_and_restart().await;
    }

    async fn table(&self) -> Table {
        let heads = self.0.run("select room, head::text from rooms").await;
        let rows = "select room, seq::text, sender, key, encode(hash, 'hex') as hash, ms_v1(at)::text as at \
                    from messages m order by m.room, m.seq";
        let owed = "select unnest(rooms) as room, unnest(firsts)::text as first, unnest(lasts)::text as last \
                    from outbox";
        let dead = self.0.run("select sum(deadlocks)::text from pg_stat_database").await;
        let number = |text: &str| text.parse::<u64>().unwrap();
        Table {
            heads: heads.iter().map(|r| (r.get(0), number(r.get(1)))).collect(),
            rows: (self.0.run(rows).await.iter())
                .map(|r| TableRow {
                    room: r.get(0),
                    seq: number(r.get(1)),
                    sender: r.get(2),
                    key: r.get(3),
                    hash: unhex(r.get(4)),
                    at_ms: r.get::<&str, _>(5).parse().unwrap(),
                })
                .collect(),
            owed: (self.0.run(owed).await.iter())
                .map(|r| (r.get(0), number(r.get(1)), number(r.get(2))))
                .collect(),
            deadlocks: dead[0].get::<&str, _>(0).parse().unwrap(),
        }
    }

    async fn age(&self, room: &str, seconds: i64) {
        let sql = format!(
            "update messages set at = at - interval '{seconds} seconds' where room = '{room}'; \
             update outbox set at = at - interval '{seconds} seconds' where '{room}' = any (rooms)"
        );
        self.0.run(sql).await;
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}
