//! What each frame of the server means to a plain client. Everything is written down, whether it makes sense or not:
//! the judge decides that.

use sluice_judge::record::{ClientEvent, PublishOutcome};
use sluice_load::server_frame::ServerFrame;

use super::PlainClient;
use super::connection::{PlainConnection, Request};
use super::frame::{Meaning, Whose};
use super::resend::Effect;

impl PlainClient {
    pub(super) fn on_frame(&mut self, frame: ServerFrame<'_>, connection: &mut PlainConnection) {
        let conn = connection.conn;
        if self.recorder.heard(conn, &frame) {
            if let Some(drain) = frame.drain {
                connection.told(true, Some(drain.reconnect_ms));
            }
            if let Some(bye) = frame.bye {
                connection.told(bye.reconnect, bye.reconnect_ms);
            }
        } else {
            match frame.whose() {
                Whose::Publish(n) => self.on_outcome(n, &frame, connection),
                Whose::Request(id) => self.on_answer(id, frame, connection),
                Whose::Nobody => self.on_unasked(&frame, conn),
            }
        }
    }

    fn on_outcome(&mut self, n: u64, frame: &ServerFrame<'_>, connection: &mut PlainConnection) {
        let Some(outcome) = frame.outcome() else {
            return self.odd(connection.conn, "an answer that is none");
        };
        // The rule decides first: an answer that it does not know is written down, and settles nothing.
        let effect = self.resends.answered(n, &outcome);
        // The server closes this connection soon; what is unanswered goes over the next.
        if matches!(outcome, PublishOutcome::Again(_)) {
            connection.fenced();
        }
        let (settles, given_up) = match effect {
            Effect::Settles(first_us) => (Some(first_us), None),
            Effect::GivenUp(first_us) => (None, Some(first_us)),
            Effect::Again | Effect::Nothing => (None, None),
        };
        self.recorder.answered(connection.conn, n, outcome, settles);
        if let Some(first_us) = given_up {
            self.give_up(vec![(connection.conn, n, Some(first_us))]);
        }
    }

    fn on_answer(&mut self, id: u64, frame: ServerFrame<'_>, connection: &mut PlainConnection) {
        let conn = connection.conn;
        let Some(request) = connection.asked.remove(&id) else {
            return self.odd(conn, "an answer to a request that was answered");
        };
        if let Some(error) = frame.error {
            // Not at once: a logic that is overloaded would get it again and again.
            if let (Request::Sub(room), true) = (request, error.retry) {
                connection.again_later(room);
            }
            return self.recorder.refused(conn, &error);
        }
        match (request, frame.ok.as_deref()) {
            (Request::Sub(_), Some("sub")) => self.on_subscribed(&frame, conn, true),
            (Request::Unsub(room), Some("unsub")) => {
                self.recorder.unsubscribed(conn, &room);
                let back = self.behaviour.back_at(&mut self.rng);
                connection.later.push((back, Request::Sub(room)));
            }
            (Request::History(room, before), Some("history")) => {
                let messages = frame.messages.unwrap_or_default().iter().filter_map(Meaning::seen).collect();
                self.recorder.note(&ClientEvent::History { conn, room, before, messages });
            }
            (Request::Sub(_) | Request::Unsub(_) | Request::History(..), _) => {
                self.odd(conn, "the answer to another verb");
            }
        }
    }

    fn on_subscribed(&self, frame: &ServerFrame<'_>, conn: u32, asked: bool) {
        if !self.recorder.confirmed(conn, frame, asked) {
            self.odd(conn, "a subscription without its position");
        }
    }

    fn on_unasked(&self, frame: &ServerFrame<'_>, conn: u32) {
        match (&frame.error, frame.ok.as_deref()) {
            (Some(error), _) => self.recorder.refused(conn, error),
            (None, Some("sub")) => self.on_subscribed(frame, conn, false),
            (None, _) => self.odd(conn, "a frame that nobody knows"),
        }
    }

    fn odd(&self, conn: u32, message: &str) {
        let (code, message) = ("odd".to_owned(), message.to_owned());
        self.recorder.note(&ClientEvent::Error { conn, code, message });
    }
}
