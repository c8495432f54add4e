//! Subscriptions: from their positions, contiguous; moved, resumed, skipped, told of another epoch.

use sluice_judge::record::{ClientEvent, PageMessage};

use super::{ROOMS, Simulation};

impl Simulation {
    pub fn subscribe(&mut self, client: u32, room: &str, after: Option<u64>) {
        self.subscribe_in(client, room, after, None);
    }

    pub fn subscribe_in(&mut self, client: u32, room: &str, after: Option<u64>, epoch: Option<String>) {
        let conn = self.conn(client).conn;
        let said = epoch.clone();
        self.write(client, ClientEvent::Sub { conn, room: room.into(), after, epoch: said });
        let head = self.rooms[room].len() as u64;
        let is_known = after.is_none_or(|after| after <= head);
        let recovered = is_known && epoch.is_none_or(|epoch| epoch == self.epoch);
        let after = after.filter(|_| recovered).unwrap_or(head);
        self.told(client, conn, room, after, recovered, true);
    }

    fn told(&mut self, client: u32, conn: u32, room: &str, after: u64, recovered: bool, asked: bool) {
        let (head, epoch) = (self.rooms[room].len() as u64, self.epoch.clone());
        let person = self.people.get_mut(&client).unwrap();
        person.cursors.insert(room.into(), (after, epoch.clone()));
        let place = person.conns.iter_mut().find(|it| it.conn == conn).unwrap();
        place.subs.insert(room.into(), after);
        self.write(
            client,
            ClientEvent::Subscribed { conn, room: room.into(), after, head, epoch, recovered, asked },
        );
    }

    pub fn tell_epoch(&mut self, client: u32) {
        for conn in self.people[&client].conns.clone() {
            for room in conn.subs.keys() {
                let head = self.rooms[room].len() as u64;
                self.told(client, conn.conn, room, head, false, false);
            }
        }
    }

    /// A few messages to one subscription.
    pub fn deliver(&mut self, client: u32) {
        let conns = self.people[&client].conns.clone();
        let is_library = self.people[&client].library;
        let conn = if is_library { conns.last().cloned() } else { self.rng.pick(&conns) };
        let Some(conn) = conn else { return };
        let rooms: Vec<String> = conn.subs.keys().cloned().collect();
        let Some(room) = self.rng.pick(&rooms) else { return };
        for _ in 0..1 + self.rng.below(5) {
            self.deliver_one(client, conn.conn, &room);
        }
    }

    fn deliver_one(&mut self, client: u32, conn: u32, room: &str) -> bool {
        let person = self.people.get_mut(&client).unwrap();
        let place = person.conns.iter_mut().find(|it| it.conn == conn).unwrap();
        let cursor = place.subs.get_mut(room).unwrap();
        let Some(row) = self.rooms[room].get(usize::try_from(*cursor).unwrap()) else { return false };
        *cursor += 1;
        let seen = person.cursors.get_mut(room).unwrap();
        seen.0 = seen.0.max(*cursor);
        let key = (!row.key.starts_with('~')).then(|| row.key.clone());
        let (from, seq, hash) = (row.sender.clone(), row.seq, row.hash);
        self.write(client, ClientEvent::Got { conn, room: room.into(), seq, from, key, hash });
        true
    }

    pub fn deliver_all(&mut self, client: u32) {
        let conn = self.conn(client).clone();
        for room in conn.subs.keys() {
            while self.deliver_one(client, conn.conn, room) {}
        }
    }

    /// A slow reader is told that it misses something.
    pub fn skip(&mut self, client: u32) {
        let conn = self.conn(client).conn;
        let room = self.rng.pick(&ROOMS).unwrap().to_owned();
        let head = self.rooms[&room].len() as u64;
        let cursor = self.conn(client).subs.get_mut(&room).unwrap();
        if *cursor >= head {
            return;
        }
        let from = std::mem::replace(cursor, head) + 1;
        let seen = self.people.get_mut(&client).unwrap().cursors.get_mut(&room).unwrap();
        seen.0 = seen.0.max(head);
        self.write(client, ClientEvent::Skipped { conn, room, from, to: head });
    }

    /// Leaves a room and comes back: from now, from the first, or from a position that does not exist.
    pub fn look_elsewhere(&mut self, client: u32) {
        let conn = self.conn(client).conn;
        let room = self.rng.pick(&ROOMS).unwrap();
        self.write(client, ClientEvent::Unsubscribed { conn, room: room.into() });
        let after = self.rng.pick(&[None, Some(0), Some(9_999)]).unwrap();
        self.subscribe(client, room, after);
    }

    pub fn page(&mut self, client: u32) {
        let conn = self.conn(client).conn;
        let room = self.rng.pick(&ROOMS).unwrap().to_owned();
        let before = 1 + self.rng.next() % (self.rooms[&room].len() as u64 + 1);
        let rows = self.rooms[&room].iter().filter(|row| row.seq < before);
        let mut messages: Vec<PageMessage> = rows
            .map(|row| PageMessage {
                seq: row.seq,
                from: row.sender.clone(),
                key: (!row.key.starts_with('~')).then(|| row.key.clone()),
                hash: row.hash,
            })
            .collect();
        let messages = messages.split_off(messages.len().saturating_sub(4));
        self.write(client, ClientEvent::History { conn, room, before: Some(before), messages });
    }
}
