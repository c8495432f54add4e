//! Publishes: sent in order, stored in order and once, sent again in order when their answers are lost.

use sluice_judge::record::{ClientEvent, PublishOutcome, StoreRow, hash_of};

use super::{Publish, ROOMS, Simulation};

impl Simulation {
    pub fn publish_new(&mut self, client: u32) {
        let room = self.rng.pick(&ROOMS).unwrap().to_owned();
        let is_library = self.people[&client].library;
        let has_key = is_library || !self.rng.one_in(4);
        let person = self.people.get_mut(&client).unwrap();
        person.last_n += 1;
        let n = person.last_n;
        let hash = hash_of(format!("{client}/{n}").as_bytes());
        let key = has_key.then(|| format!("key-{client}-{n}"));
        self.publish(client, Publish { n, room, key, hash });
    }

    pub fn publish(&mut self, client: u32, publish: Publish) {
        self.people.get_mut(&client).unwrap().unanswered.push(publish.clone());
        self.put(client, publish, false);
    }

    /// On the wire; a library says so only the first time.
    fn put(&mut self, client: u32, publish: Publish, again: bool) {
        let is_library = self.people[&client].library;
        let conn = if is_library { 0 } else { self.conn(client).conn };
        self.conn(client).pipe.push(publish.clone());
        if !(is_library && again) {
            let Publish { n, room, key, hash } = publish;
            self.write(client, ClientEvent::Send { conn, n, room, key, hash, bytes: 10 });
        }
    }

    pub fn send_unanswered(&mut self, client: u32) {
        for publish in self.people[&client].unanswered.clone() {
            self.put(client, publish, true);
        }
    }

    /// A keyless publish is not sent again: nobody will know.
    pub fn give_up_keyless(&mut self, client: u32) {
        let (keyless, keyed) =
            self.people[&client].unanswered.iter().cloned().partition(|it| it.key.is_none());
        let _: &Vec<Publish> = &keyed;
        self.people.get_mut(&client).unwrap().unanswered = keyed;
        for publish in keyless {
            let publish: Publish = publish;
            self.answer(client, publish.n, PublishOutcome::GaveUp);
        }
    }

    /// The gateway takes the next publish of a connection, and the client hears of it.
    pub fn handle(&mut self, client: u32) {
        if self.conn(client).pipe.is_empty() {
            return;
        }
        let publish = self.conn(client).pipe.remove(0);
        let outcome = self.commit(client, &publish);
        self.hear(client, &publish, outcome);
    }

    fn hear(&mut self, client: u32, publish: &Publish, outcome: PublishOutcome) {
        let person = self.people.get_mut(&client).unwrap();
        let was_unanswered = person.unanswered.contains(publish);
        person.unanswered.retain(|it| it.n != publish.n);
        if matches!(outcome, PublishOutcome::Ok(_))
            && publish.key.is_some()
            && !person.answered.contains(publish)
        {
            person.answered.push(publish.clone());
        }
        if was_unanswered || !person.library {
            self.answer(client, publish.n, outcome);
        }
    }

    pub fn answer(&mut self, client: u32, n: u64, outcome: PublishOutcome) {
        let conn = if self.people[&client].library { 0 } else { self.conn_of_answer(client) };
        self.write(client, ClientEvent::Answer { conn, n, outcome });
    }

    fn conn_of_answer(&self, client: u32) -> u32 {
        self.people[&client].conns.last().map_or(0, |conn| conn.conn)
    }

    fn commit(&mut self, client: u32, publish: &Publish) -> PublishOutcome {
        if publish.hash.is_multiple_of(17) {
            return PublishOutcome::Refused("too_large".into());
        }
        let sender = self.people[&client].user.clone();
        let rows = self.rooms.get_mut(&publish.room).unwrap();
        if let Some(key) = &publish.key
            && let Some(row) = rows.iter().find(|row| (&row.sender, &row.key) == (&sender, key))
        {
            let is_same = row.hash == publish.hash;
            return if is_same {
                PublishOutcome::Ok(row.seq)
            } else {
                PublishOutcome::Refused("conflict".into())
            };
        }
        self.minted += 1;
        let key = publish.key.clone().unwrap_or(format!("~session/{}", self.minted));
        let (room, seq, hash) = (publish.room.clone(), rows.len() as u64 + 1, publish.hash);
        rows.push(StoreRow { room, seq, sender, key, hash, at_ms: 0 });
        PublishOutcome::Ok(seq)
    }

    /// What gateways still hold of connections that are gone: stored in order, nobody hears of it.
    pub fn ghosts(&mut self, client: u32) {
        for pipe in std::mem::take(&mut self.people.get_mut(&client).unwrap().ghosts) {
            for publish in pipe {
                self.commit(client, &publish);
            }
        }
    }

    /// A client that sends what was answered once more gets the same answer.
    pub fn send_again(&mut self, client: u32) {
        if self.people[&client].library {
            return;
        }
        let answered = self.people[&client].answered.clone();
        if let Some(publish) = self.rng.pick(&answered)
            && self.is_stored(client, &publish)
        {
            self.put(client, publish, true);
        }
    }

    fn is_stored(&self, client: u32, publish: &Publish) -> bool {
        let person = &self.people[&client];
        self.rooms[&publish.room].iter().any(|row| row.sender == person.user && row.hash == publish.hash)
    }

    /// The same key with other data.
    pub fn conflict(&mut self, client: u32) {
        let answered = self.people[&client].answered.clone();
        let Some(mut publish) = self.rng.pick(&answered).filter(|it| self.is_stored(client, it)) else {
            return;
        };
        let person = self.people.get_mut(&client).unwrap();
        person.last_n += 1;
        publish.n = person.last_n;
        publish.hash = hash_of(format!("{client}/{}/other", publish.n).as_bytes());
        self.publish(client, publish);
    }

    /// The first `retry:true`, stored or not; then nothing later of the connection is, and it ends.
    pub fn fence(&mut self, client: u32) {
        if self.conn(client).pipe.is_empty() || self.people[&client].library {
            return;
        }
        let first = self.conn(client).pipe.remove(0);
        if self.rng.one_in(2) {
            self.commit(client, &first);
        }
        let is_keyed = first.key.is_some();
        self.answer(client, first.n, PublishOutcome::Again("unavailable".into()));
        for publish in std::mem::take(&mut self.conn(client).pipe) {
            self.answer(client, publish.n, PublishOutcome::Again("not_sent".into()));
        }
        if !is_keyed {
            self.answer(client, first.n, PublishOutcome::GaveUp);
            self.people.get_mut(&client).unwrap().unanswered.retain(|it| it.n != first.n);
        }
        let conn = self.conn(client).conn;
        self.write(client, ClientEvent::Bye { conn, code: 4001, reconnect: true, reconnect_ms: Some(5) });
        self.cut(client, Some(4001));
        self.open(client);
        self.resume(client);
    }
}
