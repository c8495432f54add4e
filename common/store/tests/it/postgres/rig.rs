//! PostgreSQL under test: a server of its own.

use std::sync::Arc;

use async_trait::async_trait;
use sluice_store::Store;
use sluice_store::postgres::{PgConfig, PgStore};
use sqlx::{Executor, Row};

use super::server::PgServer;
use crate::rig::{Rig, Table, TableRow};

pub struct PgRig(pub PgServer);

impl PgRig {
    pub async fn pg(&self) -> PgStore {
        PgStore::connect(PgConfig::new(self.0.url())).await.unwrap()
    }

    /// Returns when one session waits for a lock.
    pub async fn somebody_waits(&self) {
        let mut conn = self.0.sql().await;
        let waiting = "select from pg_locks where not granted";
        while sqlx::query(waiting).fetch_all(&mut conn).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Rig for PgRig {
    async fn start() -> Self {
        Self(PgServer::start().await)
    }

    async fn open(&self) -> Arc<dyn Store> {
        let config = PgConfig { lane_connections: 6, read_connections: 2, ..PgConfig::new(self.0.url()) };
        Arc::new(PgStore::connect(config).await.unwrap())
    }

    async fn cut(&self) {
        self.run(
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

    async fn run(&self, sql: &str) {
        self.0.run(sql).await;
    }

    async fn age_those(&self, which: &str, seconds: i64) {
        self.0.run(format!("update messages set at = at - interval '{seconds} seconds' where {which}")).await;
    }

    async fn age(&self, room: &str, seconds: i64) {
        self.age_those(&format!("room = '{room}'"), seconds).await;
        let owed =
            format!("update outbox set at = at - interval '{seconds} seconds' where '{room}' = any (rooms)");
        self.0.run(owed).await;
    }

    async fn refuse_poison(&self) {
        self.run("alter table messages add constraint taste check (data <> 'poison')").await;
    }

    async fn hold(&self) -> Box<dyn Send> {
        let mut holder = self.0.sql().await;
        let sql = "begin; select from rooms for update; set idle_in_transaction_session_timeout = 0";
        holder.execute(sql).await.unwrap();
        Box::new(holder)
    }

    async fn open_transactions(&self) -> usize {
        self.0.run("select from pg_stat_activity where state like 'idle in transaction%'").await.len()
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}
