//! What each frame of the server means to a plain client. Everything is written down, whether it makes sense or not:
//! the judge decides that.

use serde_json::value::RawValue;
use sluice_checker::record::{Outcome, What};

use super::super::diary::{Confirmed, Diary};
use super::Plain;
use super::heard::{Heard, Trouble, Whose};
use super::ledger::Effect;
use super::visit::{Request, Visit};
use crate::records::Delivery;

impl Plain {
    pub(super) fn on_heard(&mut self, heard: Heard<'_>, visit: &mut Visit) {
        let (diary, conn) = (&self.diary, visit.conn);
        if let Some(room) = &heard.msg {
            let from = heard.sender();
            let (seq, key) = (heard.seq.unwrap_or_default(), heard.key.as_deref());
            diary.got(Delivery { conn, room, seq, from: &from, key, hash: 0 }, heard.bytes());
        } else if let Some(room) = &heard.skipped {
            let from = heard.from.map(RawValue::get).and_then(|from| from.parse().ok());
            diary.skipped(conn, room, from.unwrap_or_default(), heard.to.unwrap_or_default());
        } else if heard.drain.is_some() || heard.bye.is_some() {
            farewell(diary, conn, &heard);
            if let Some(drain) = heard.drain {
                visit.told(true, Some(drain.reconnect_ms));
            }
            if let Some(bye) = heard.bye {
                visit.told(bye.reconnect, bye.reconnect_ms);
            }
        } else {
            match heard.whose() {
                Whose::Publish(n) => self.on_outcome(n, &heard, visit),
                Whose::Request(id) => self.on_answer(id, heard, visit),
                Whose::Nobody => self.on_unasked(&heard, conn),
            }
        }
    }

    fn on_outcome(&mut self, n: u64, heard: &Heard<'_>, visit: &mut Visit) {
        let Some(outcome) = heard.outcome() else { return self.odd(visit.conn, "an answer that is none") };
        let effect = self.ledger.answered(n, &outcome);
        if matches!(outcome, Outcome::Again(_)) {
            visit.fenced();
        }
        let (settles, given_up) = match effect {
            Effect::Settles(first_us) => (Some(first_us), None),
            Effect::GivenUp(first_us) => (None, Some(first_us)),
            Effect::Again | Effect::Nothing => (None, None),
        };
        self.diary.answered(visit.conn, n, outcome, settles);
        if let Some(first_us) = given_up {
            self.give_up(vec![(visit.conn, n, Some(first_us))]);
        }
    }

    fn on_answer(&mut self, id: u64, heard: Heard<'_>, visit: &mut Visit) {
        let conn = visit.conn;
        let Some(request) = visit.asked.remove(&id) else {
            return self.odd(conn, "an answer to a request that was answered");
        };
        if let Some(error) = heard.error {
            if let (Request::Sub(room), true) = (request, error.retry) {
                visit.again_later(room);
            }
            return trouble(&self.diary, conn, &error);
        }
        match (request, heard.ok.as_deref()) {
            (Request::Sub(_), Some("sub")) => self.on_subscribed(&heard, conn, true),
            (Request::Unsub(room), Some("unsub")) => {
                self.diary.unsubscribed(conn, &room);
                let back = self.habits.back_at(&mut self.rng);
                visit.later.push((back, Request::Sub(room)));
            }
            (Request::History(room, before), Some("history")) => {
                let messages = heard.messages.unwrap_or_default().iter().filter_map(Heard::seen).collect();
                self.diary.note(&What::History { conn, room, before, messages });
            }
            (Request::Sub(_) | Request::Unsub(_) | Request::History(..), _) => {
                self.odd(conn, "the answer to another verb");
            }
        }
    }

    fn on_subscribed(&self, heard: &Heard<'_>, conn: u32, asked: bool) {
        let (Some(room), Some(after), Some(head), Some(epoch), Some(recovered)) =
            (&heard.room, heard.after, heard.head, &heard.epoch, heard.recovered)
        else {
            return self.odd(conn, "a subscription without its position");
        };
        self.diary.subscribed(conn, Confirmed { room, after, head, epoch, recovered, asked });
    }

    fn on_unasked(&self, heard: &Heard<'_>, conn: u32) {
        match (&heard.error, heard.ok.as_deref()) {
            (Some(error), _) => trouble(&self.diary, conn, error),
            (None, Some("sub")) => self.on_subscribed(heard, conn, false),
            (None, _) => self.odd(conn, "a frame that nobody knows"),
        }
    }

    fn odd(&self, conn: u32, message: &str) {
        let (code, message) = ("odd".to_owned(), message.to_owned());
        self.diary.note(&What::Error { conn, code, message });
    }
}

/// `drain` and `bye`.
pub(super) fn farewell(diary: &Diary, conn: u32, heard: &Heard<'_>) {
    if let Some(drain) = &heard.drain {
        let (within_ms, reconnect_ms) = (drain.within_ms, drain.reconnect_ms);
        diary.note(&What::Drain { conn, within_ms, reconnect_ms });
    }
    if let Some(bye) = &heard.bye {
        let (code, reconnect, reconnect_ms) = (bye.code, bye.reconnect, bye.reconnect_ms);
        diary.note(&What::Bye { conn, code, reconnect, reconnect_ms });
    }
}

fn trouble(diary: &Diary, conn: u32, error: &Trouble) {
    let (code, message) = (error.code.clone(), error.message.clone());
    diary.note(&What::Error { conn, code, message });
}
