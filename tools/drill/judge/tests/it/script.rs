//! Small histories, written line by line: one room `r`, messages named by client and number.

use std::collections::BTreeMap;

use sluice_judge::record::{
    ClientEvent, FaultRecord, Leftovers, ProcessExit, PublishOutcome, RunRecord, StoreRow,
};

use crate::records::Records;

pub const ROOM: &str = "r";
const STEP_US: u64 = 1_000;

/// Which message: its client and number.
pub type Named = (u32, u64);

#[derive(Debug, Clone, Default)]
pub struct Script {
    pub now_us: u64,
    pub records: Records,
    pub epoch: &'static str,
}

pub fn hash(message: Named) -> u64 {
    u64::from(message.0) * 1_000 + message.1
}

pub fn key(message: Named) -> String {
    format!("key-{}-{}", message.0, message.1)
}

pub fn user(client: u32) -> String {
    format!("user-{client}")
}

impl Script {
    /// Client 1 publishes, clients 2 (plain) and 3 (library) read: four messages, all is well.
    pub fn usual() -> Self {
        let mut script = Self::people();
        for n in 1..=4 {
            script.send(1, 1, n);
            script.store((1, n));
            script.ok(1, 1, n, n);
            script.got(2, 1, n);
            script.got(3, 1, n);
        }
        script
    }

    /// The same before anything is sent.
    pub fn people() -> Self {
        let run = RunRecord { scenario: "calm".into(), clients: 3, ..RunRecord::default() };
        let records = Records { run, ..Records::default() };
        let mut script = Self { now_us: 0, records, epoch: "e1" };
        script.join(1, "sender", "plain");
        script.join(2, "observer", "plain");
        script.join(3, "observer", "library");
        for client in [2, 3] {
            script.sub(client, 1, Some(0), None);
            script.subscribed(client, 1, 0, true);
        }
        script
    }

    pub fn write(&mut self, client: u32, what: ClientEvent) -> &mut Self {
        self.now_us += STEP_US;
        self.records.clients.entry(client).or_default().push((self.now_us, what));
        self
    }

    pub fn wait_s(&mut self, seconds: u64) -> &mut Self {
        self.now_us += seconds * 1_000_000;
        self
    }

    pub fn join(&mut self, client: u32, role: &str, kind: &str) {
        self.write(client, ClientEvent::Client { user: user(client), role: role.into(), kind: kind.into() });
        self.open(client, 1, "gateway-a");
    }

    pub fn open(&mut self, client: u32, conn: u32, instance: &str) -> &mut Self {
        let (url, instance, epoch) = (format!("ws://{instance}/ws"), instance.into(), self.epoch.into());
        self.write(client, ClientEvent::Open { conn, url, instance, epoch })
    }

    pub fn closed(&mut self, client: u32, conn: u32, code: Option<u16>) -> &mut Self {
        self.write(client, ClientEvent::Closed { conn, code, reason: String::new() })
    }

    pub fn sub(&mut self, client: u32, conn: u32, after: Option<u64>, epoch: Option<&str>) -> &mut Self {
        self.write(client, ClientEvent::Sub { conn, room: ROOM.into(), after, epoch: epoch.map(Into::into) })
    }

    pub fn head(&self) -> u64 {
        self.records.rows.last().map_or(0, |row| row.seq)
    }

    pub fn subscribed(&mut self, client: u32, conn: u32, after: u64, recovered: bool) -> &mut Self {
        self.told(client, conn, after, recovered, true)
    }

    pub fn told(&mut self, client: u32, conn: u32, after: u64, recovered: bool, asked: bool) -> &mut Self {
        let (room, head, epoch) = (ROOM.into(), self.head(), self.epoch.into());
        self.write(client, ClientEvent::Subscribed { conn, room, after, head, epoch, recovered, asked })
    }

    pub fn send(&mut self, client: u32, conn: u32, n: u64) -> &mut Self {
        let message = (client, n);
        let (room, key, hash) = (ROOM.into(), Some(key(message)), hash(message));
        self.write(client, ClientEvent::Send { conn, n, room, key, hash, bytes: 9 })
    }

    /// Without key.
    pub fn send_bare(&mut self, client: u32, conn: u32, n: u64) -> &mut Self {
        self.write(
            client,
            ClientEvent::Send { conn, n, room: ROOM.into(), key: None, hash: hash((client, n)), bytes: 9 },
        )
    }

    pub fn store(&mut self, message: Named) -> &mut Self {
        self.store_as(message, &key(message))
    }

    pub fn store_as(&mut self, message: Named, key: &str) -> &mut Self {
        let (room, seq, sender) = (ROOM.into(), self.head() + 1, user(message.0));
        let at_ms = i64::try_from(self.now_us / 1_000).unwrap();
        self.records.rows.push(StoreRow { room, seq, sender, key: key.into(), hash: hash(message), at_ms });
        self
    }

    pub fn answer(&mut self, client: u32, conn: u32, n: u64, outcome: PublishOutcome) -> &mut Self {
        self.write(client, ClientEvent::Answer { conn, n, outcome })
    }

    pub fn ok(&mut self, client: u32, conn: u32, n: u64, seq: u64) -> &mut Self {
        self.answer(client, conn, n, PublishOutcome::Ok(seq))
    }

    pub fn refused(&mut self, client: u32, conn: u32, n: u64, code: &str) -> &mut Self {
        self.answer(client, conn, n, PublishOutcome::Refused(code.into()))
    }

    pub fn again(&mut self, client: u32, conn: u32, n: u64, code: &str) -> &mut Self {
        self.answer(client, conn, n, PublishOutcome::Again(code.into()))
    }

    /// The message of this row, whole.
    pub fn got(&mut self, client: u32, conn: u32, seq: u64) -> &mut Self {
        let row = self.records.rows.iter().find(|row| row.seq == seq).unwrap().clone();
        let key = (!row.key.starts_with('~')).then_some(row.key);
        self.write(
            client,
            ClientEvent::Got { conn, room: ROOM.into(), seq, from: row.sender, key, hash: row.hash },
        )
    }

    /// The readers get the rest.
    pub fn readers_get(&mut self, seqs: std::ops::RangeInclusive<u64>) -> &mut Self {
        for seq in seqs {
            self.got(2, 1, seq);
            self.got(3, 1, seq);
        }
        self
    }

    pub fn skipped(&mut self, client: u32, conn: u32, from: u64, to: u64) -> &mut Self {
        self.write(client, ClientEvent::Skipped { conn, room: ROOM.into(), from, to })
    }

    pub fn fault(&mut self, kind: &str, target: &str) -> &mut FaultRecord {
        self.records.run.scenario = "some".into();
        self.records.faults.push(FaultRecord {
            round: 1,
            kind: kind.into(),
            target: target.into(),
            began_us: self.now_us,
            healed_us: self.now_us,
            hit: true,
            exit: None,
            copied_us: None,
            note: String::new(),
        });
        self.records.faults.last_mut().unwrap()
    }

    /// An ordered stop with this exit.
    pub fn stop(&mut self, target: &str, code: Option<i32>, took_ms: u64) -> &mut FaultRecord {
        let fault = self.fault(&format!("term {}", target.split('-').next().unwrap()), target);
        fault.exit = Some(ProcessExit { code, took_ms, budget_ms: 8_000 });
        fault
    }

    /// A copy from then is put back, until now: only so many messages stay.
    pub fn restore(&mut self, copied_us: u64, keeps: usize) -> &mut Self {
        let began_us = self.now_us;
        self.now_us += STEP_US;
        let fault = self.fault("restore postgres", "postgres");
        (fault.copied_us, fault.began_us) = (Some(copied_us), began_us);
        self.records.rows.truncate(keeps);
        self.epoch = "e2";
        self
    }

    /// The run has settled; what is written after this is late.
    pub fn settle(&mut self) -> &mut Self {
        self.records.run.settled_us = self.now_us;
        self
    }

    /// Everybody who did not ends, long after the run has settled.
    pub fn done(&mut self) -> Records {
        if self.records.run.settled_us == 0 {
            self.settle();
        }
        self.now_us = self.now_us.max(self.records.run.settled_us + 11_000_000);
        let ids: Vec<u32> = self.records.clients.keys().copied().collect();
        for client in ids {
            if self.records.clients[&client].last().unwrap().1 != ClientEvent::End {
                self.write(client, ClientEvent::End);
            }
        }
        let heads = BTreeMap::from([(ROOM.to_owned(), self.head())]);
        self.records.leftovers = Leftovers { heads, ..self.records.leftovers.clone() };
        self.records.clone()
    }
}
