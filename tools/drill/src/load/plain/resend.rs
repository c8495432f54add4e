//! What a plain client has published and what became of it: the rule of resending, pure. On each new connection
//! everything unanswered goes first, in order, with the same keys and bytes; what has no key is never sent twice.

use std::collections::{BTreeMap, VecDeque};

use sluice_judge::record::PublishOutcome;

use super::super::message::OutgoingMessage;

/// Answered messages that are remembered, to be sent once more on purpose.
const SETTLED_MAX: usize = 8;

/// A message without a final answer.
#[derive(Debug)]
struct PendingPublish {
    message: OutgoingMessage,
    /// When it was first put on the wire.
    first_us: Option<u64>,
    /// Over which connection it went last.
    conn: u32,
}

/// What an answer means for the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It is final; first sent then.
    Settles(u64),
    /// To be sent again over the next connection; the server will close this one.
    Again,
    /// The same, but it has no key: given up; first sent then.
    GivenUp(u64),
    /// Nothing: it had its answer, or was given up.
    Nothing,
}

/// A message that was given up: its last connection, its number, when it was first sent (if it was).
pub(super) type GivenUp = (u32, u64, Option<u64>);

#[derive(Debug, Default)]
pub(super) struct ResendQueue {
    pending: BTreeMap<u64, PendingPublish>,
    /// All up to this one were put on the connection of now.
    sent_to: u64,
    /// Sent already on this connection, to be sent on it once more.
    echoes: VecDeque<u64>,
    /// This connection has answered `retry:true`.
    fenced: bool,
    /// Goes on sending all the same.
    eager: bool,
    settled: VecDeque<OutgoingMessage>,
}

impl ResendQueue {
    pub(super) fn new(eager: bool) -> Self {
        Self { eager, ..Self::default() }
    }

    /// One more to send.
    pub(super) fn take(&mut self, message: OutgoingMessage) {
        self.pending.insert(message.n, PendingPublish { message, first_us: None, conn: 0 });
    }

    /// Once more on this connection, if it has a key.
    pub(super) fn echo(&mut self, n: u64) {
        if self.pending.get(&n).is_some_and(|publish| publish.message.key.is_some()) {
            self.echoes.push_back(n);
        }
    }

    /// A new connection: everything is to be sent on it.
    pub(super) fn opened(&mut self) {
        self.sent_to = 0;
        self.fenced = false;
        self.echoes.clear();
    }

    /// The connection has ended: what was sent without key has an unknown outcome for ever.
    pub(super) fn closed(&mut self) -> Vec<GivenUp> {
        // Without a key a resend would be another message.
        self.give_up(|publish| publish.message.key.is_none() && publish.first_us.is_some())
    }

    /// What is to be put on the wire next: its number.
    pub(super) fn next(&self) -> Option<u64> {
        // After `retry:true` nothing later may be stored over this connection: sending it would only be
        // refused.
        if self.fenced && !self.eager {
            return None;
        }
        // What is new goes before echoes: an echo first would change the order that is judged.
        let unsent = self.pending.range(self.sent_to + 1..).next().map(|(n, _)| *n);
        unsent.or_else(|| self.echoes.front().copied())
    }

    /// The message, and whether it goes out for the first time.
    pub(super) fn message(&self, n: u64) -> Option<(&OutgoingMessage, bool)> {
        self.pending.get(&n).map(|publish| (&publish.message, publish.first_us.is_none()))
    }

    /// It was put on the wire.
    pub(super) fn sent(&mut self, n: u64, conn: u32, now_us: u64) {
        // It has gone out on this connection before, so this was the echo.
        if n <= self.sent_to {
            self.echoes.pop_front();
        }
        self.sent_to = self.sent_to.max(n);
        if let Some(publish) = self.pending.get_mut(&n) {
            publish.first_us.get_or_insert(now_us);
            publish.conn = conn;
        }
    }

    /// An answer to it came over the connection of now.
    pub(super) fn answered(&mut self, n: u64, outcome: &PublishOutcome) -> Effect {
        let again = matches!(outcome, PublishOutcome::Again(_));
        self.fenced |= again;
        let Some(publish) = self.pending.get(&n) else { return Effect::Nothing };
        let first_us = publish.first_us.unwrap_or_default();
        // It stays: the next connection sends it first, under the same key.
        if again && publish.message.key.is_some() {
            return Effect::Again;
        }
        self.echoes.retain(|echo| *echo != n);
        if let Some(publish) = self.pending.remove(&n)
            && publish.message.key.is_some()
        {
            // Some only: they are kept to be sent once more, not to be remembered.
            self.settled.truncate(SETTLED_MAX - 1);
            self.settled.push_front(publish.message);
        }
        if again { Effect::GivenUp(first_us) } else { Effect::Settles(first_us) }
    }

    /// Gives up what was first sent before then.
    pub(super) fn give_up_before(&mut self, us: u64) -> Vec<GivenUp> {
        self.give_up(|publish| publish.first_us.is_some_and(|first_us| first_us < us))
    }

    /// Gives up everything, also what was never sent.
    pub(super) fn give_up_all(&mut self) -> Vec<GivenUp> {
        self.give_up(|_| true)
    }

    fn give_up(&mut self, mut lost: impl FnMut(&PendingPublish) -> bool) -> Vec<GivenUp> {
        let gone = self.pending.extract_if(.., |_, publish| lost(publish));
        let gone: Vec<GivenUp> = gone.map(|(n, publish)| (publish.conn, n, publish.first_us)).collect();
        self.echoes.retain(|n| self.pending.contains_key(n));
        gone
    }

    /// One that may be sent over a second connection without breaking the sender's order: answered, or nothing before
    /// it is unanswered.
    pub(super) fn repeatable(&self, answered: bool) -> Option<&OutgoingMessage> {
        if answered {
            return self.settled.front();
        }
        let (_, oldest) = self.pending.first_key_value()?;
        Some(&oldest.message).filter(|message| message.key.is_some() && oldest.first_us.is_some())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(n: u64, keyed: bool) -> OutgoingMessage {
        OutgoingMessage { n, room: "r".into(), key: keyed.then(|| format!("k{n}")), data: n.to_string() }
    }

    /// Puts everything on the wire that is to be.
    fn send(resends: &mut ResendQueue, conn: u32) -> Vec<u64> {
        let mut sent = Vec::new();
        while let Some(n) = resends.next() {
            resends.sent(n, conn, 1_000 + n);
            sent.push(n);
        }
        sent
    }

    #[test]
    fn after_a_fence_everything_unanswered_goes_first_and_in_order() {
        for eager in [false, true] {
            let mut resends = ResendQueue::new(eager);
            resends.opened();
            (1..=4).for_each(|n| resends.take(message(n, n != 3)));
            assert_eq!(send(&mut resends, 1), [1, 2, 3, 4]);
            assert_eq!(resends.answered(2, &PublishOutcome::Again("unavailable".into())), Effect::Again);
            assert_eq!(
                resends.answered(1, &PublishOutcome::Ok(1)),
                Effect::Settles(1_001),
                "what was handed over is answered"
            );
            assert_eq!(
                resends.answered(3, &PublishOutcome::Again("not_sent".into())),
                Effect::GivenUp(1_003),
                "has no key"
            );
            resends.take(message(5, true));
            assert_eq!(send(&mut resends, 1), if eager { vec![5] } else { vec![] });
            assert!(resends.closed().is_empty());
            resends.take(message(6, true));
            resends.opened();
            assert_eq!(send(&mut resends, 2), [2, 4, 5, 6]);
            assert_eq!(
                resends.answered(4, &PublishOutcome::Refused("conflict".into())),
                Effect::Settles(1_004)
            );
            assert_eq!(resends.answered(4, &PublishOutcome::Ok(9)), Effect::Nothing);
        }
    }

    #[test]
    fn what_has_no_key_is_sent_once() {
        let mut resends = ResendQueue::new(true);
        resends.opened();
        resends.take(message(1, false));
        resends.take(message(2, true));
        assert_eq!(send(&mut resends, 1), [1, 2]);
        resends.echo(1);
        resends.take(message(3, false));
        assert_eq!(resends.closed(), [(1, 1, Some(1_001))], "what was not sent may still be");
        resends.opened();
        assert_eq!(send(&mut resends, 2), [2, 3]);
    }

    #[test]
    fn echoes_go_out_once_more_and_only_on_their_connection() {
        let mut resends = ResendQueue::new(false);
        resends.opened();
        (1..=3).for_each(|n| resends.take(message(n, true)));
        assert_eq!(send(&mut resends, 1), [1, 2, 3]);
        resends.echo(2);
        resends.take(message(4, true));
        assert_eq!(send(&mut resends, 1), [4, 2], "never before what is new");
        resends.echo(3);
        resends.echo(1);
        resends.answered(3, &PublishOutcome::Ok(3));
        assert_eq!(send(&mut resends, 1), [1]);
        resends.echo(1);
        resends.opened();
        assert_eq!(send(&mut resends, 2), [1, 2, 4]);
    }

    #[test]
    fn only_what_cannot_overtake_is_repeated_elsewhere() {
        let mut resends = ResendQueue::new(false);
        resends.opened();
        resends.take(message(1, true));
        assert_eq!(resends.repeatable(false), None, "never sent");
        resends.take(message(2, true));
        send(&mut resends, 1);
        assert_eq!(resends.repeatable(false), Some(&message(1, true)));
        assert_eq!(resends.repeatable(true), None);
        resends.answered(1, &PublishOutcome::Ok(1));
        assert_eq!(resends.repeatable(true), Some(&message(1, true)));
        assert_eq!(resends.repeatable(false), Some(&message(2, true)));
        assert_eq!(resends.give_up_before(1_003), [(1, 2, Some(1_002))]);
        assert_eq!(resends.repeatable(false), None);
    }

    proptest! {
        /// Whatever is answered when: a connection carries what is unanswered, oldest first, then what is new.
        #[test]
        fn every_connection_begins_with_what_is_unanswered(
            rounds in prop::collection::vec((0_usize..5, prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8), 0..4)), 1..9)
        ) {
            let mut resends = ResendQueue::new(false);
            let (mut unanswered, mut n): (Vec<u64>, u64) = (Vec::new(), 0);
            for (conn, (new, answers)) in (1..).zip(rounds) {
                resends.opened();
                for _ in 0..new {
                    n += 1;
                    resends.take(message(n, n % 4 != 0));
                    unanswered.push(n);
                }
                let sent = send(&mut resends, conn);
                prop_assert_eq!(&sent, &unanswered);
                for (which, kind) in answers.iter().filter(|_| !sent.is_empty()) {
                    let n = *which.get(&sent);
                    let outcome = match kind {
                        0 => PublishOutcome::Ok(n),
                        1 => PublishOutcome::Refused("too_large".into()),
                        _ => PublishOutcome::Again("not_sent".into()),
                    };
                    resends.answered(n, &outcome);
                    unanswered.retain(|other| *other != n || (*kind > 1 && n % 4 != 0));
                }
                resends.closed();
                unanswered.retain(|n| n % 4 != 0);
            }
        }
    }
}
