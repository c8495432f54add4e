//! What a plain client has published and what became of it: the rule of resending, pure. On each new connection
//! everything unanswered goes first, in order, with the same keys and bytes; what has no key is never sent twice.

use std::collections::{BTreeMap, VecDeque};

use sluice_checker::record::Outcome;

use super::super::letter::Letter;

/// Answered messages that are remembered, to be sent once more on purpose.
const SETTLED_MAX: usize = 8;

/// A message without a final answer.
#[derive(Debug)]
struct Post {
    letter: Letter,
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
pub(super) struct Ledger {
    posts: BTreeMap<u64, Post>,
    /// All up to this one were put on the connection of now.
    sent_to: u64,
    /// Sent already on this connection, to be sent on it once more.
    echoes: VecDeque<u64>,
    /// This connection has answered `retry:true`.
    fenced: bool,
    /// Goes on sending all the same.
    eager: bool,
    settled: VecDeque<Letter>,
}

impl Ledger {
    pub(super) fn new(eager: bool) -> Self {
        Self { eager, ..Self::default() }
    }

    /// One more to send.
    pub(super) fn take(&mut self, letter: Letter) {
        self.posts.insert(letter.n, Post { letter, first_us: None, conn: 0 });
    }

    /// Once more on this connection, if it has a key.
    pub(super) fn echo(&mut self, n: u64) {
        if self.posts.get(&n).is_some_and(|post| post.letter.key.is_some()) {
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
        self.give_up(|post| post.letter.key.is_none() && post.first_us.is_some())
    }

    /// What is to be put on the wire next: its number.
    pub(super) fn next(&self) -> Option<u64> {
        if self.fenced && !self.eager {
            return None;
        }
        let unsent = self.posts.range(self.sent_to + 1..).next().map(|(n, _)| *n);
        unsent.or_else(|| self.echoes.front().copied())
    }

    /// The message, and whether it goes out for the first time.
    pub(super) fn letter(&self, n: u64) -> Option<(&Letter, bool)> {
        self.posts.get(&n).map(|post| (&post.letter, post.first_us.is_none()))
    }

    /// It was put on the wire.
    pub(super) fn sent(&mut self, n: u64, conn: u32, now_us: u64) {
        if n <= self.sent_to {
            self.echoes.pop_front();
        }
        self.sent_to = self.sent_to.max(n);
        if let Some(post) = self.posts.get_mut(&n) {
            post.first_us.get_or_insert(now_us);
            post.conn = conn;
        }
    }

    /// An answer to it came over the connection of now.
    pub(super) fn answered(&mut self, n: u64, outcome: &Outcome) -> Effect {
        let again = matches!(outcome, Outcome::Again(_));
        self.fenced |= again;
        let Some(post) = self.posts.get(&n) else { return Effect::Nothing };
        let first_us = post.first_us.unwrap_or_default();
        if again && post.letter.key.is_some() {
            return Effect::Again;
        }
        self.echoes.retain(|echo| *echo != n);
        if let Some(post) = self.posts.remove(&n)
            && post.letter.key.is_some()
        {
            self.settled.truncate(SETTLED_MAX - 1);
            self.settled.push_front(post.letter);
        }
        if again { Effect::GivenUp(first_us) } else { Effect::Settles(first_us) }
    }

    /// Gives up what was first sent before then.
    pub(super) fn give_up_before(&mut self, us: u64) -> Vec<GivenUp> {
        self.give_up(|post| post.first_us.is_some_and(|first_us| first_us < us))
    }

    /// Gives up everything, also what was never sent.
    pub(super) fn give_up_all(&mut self) -> Vec<GivenUp> {
        self.give_up(|_| true)
    }

    fn give_up(&mut self, mut lost: impl FnMut(&Post) -> bool) -> Vec<GivenUp> {
        let gone = self.posts.extract_if(.., |_, post| lost(post));
        let gone: Vec<GivenUp> = gone.map(|(n, post)| (post.conn, n, post.first_us)).collect();
        self.echoes.retain(|n| self.posts.contains_key(n));
        gone
    }

    /// One that may be sent over a second connection without breaking the sender's order: answered, or nothing before
    /// it is unanswered.
    pub(super) fn repeatable(&self, answered: bool) -> Option<&Letter> {
        if answered {
            return self.settled.front();
        }
        let (_, oldest) = self.posts.first_key_value()?;
        Some(&oldest.letter).filter(|letter| letter.key.is_some() && oldest.first_us.is_some())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn letter(n: u64, keyed: bool) -> Letter {
        Letter { n, room: "r".into(), key: keyed.then(|| format!("k{n}")), data: n.to_string() }
    }

    /// Puts everything on the wire that is to be.
    fn send(ledger: &mut Ledger, conn: u32) -> Vec<u64> {
        let mut sent = Vec::new();
        while let Some(n) = ledger.next() {
            ledger.sent(n, conn, 1_000 + n);
            sent.push(n);
        }
        sent
    }

    #[test]
    fn after_a_fence_everything_unanswered_goes_first_and_in_order() {
        for eager in [false, true] {
            let mut ledger = Ledger::new(eager);
            ledger.opened();
            (1..=4).for_each(|n| ledger.take(letter(n, n != 3)));
            assert_eq!(send(&mut ledger, 1), [1, 2, 3, 4]);
            assert_eq!(ledger.answered(2, &Outcome::Again("unavailable".into())), Effect::Again);
            assert_eq!(
                ledger.answered(1, &Outcome::Ok(1)),
                Effect::Settles(1_001),
                "what was handed over is answered"
            );
            assert_eq!(
                ledger.answered(3, &Outcome::Again("not_sent".into())),
                Effect::GivenUp(1_003),
                "has no key"
            );
            ledger.take(letter(5, true));
            assert_eq!(send(&mut ledger, 1), if eager { vec![5] } else { vec![] });
            assert!(ledger.closed().is_empty());
            ledger.take(letter(6, true));
            ledger.opened();
            assert_eq!(send(&mut ledger, 2), [2, 4, 5, 6]);
            assert_eq!(ledger.answered(4, &Outcome::Refused("conflict".into())), Effect::Settles(1_004));
            assert_eq!(ledger.answered(4, &Outcome::Ok(9)), Effect::Nothing);
        }
    }

    #[test]
    fn what_has_no_key_is_sent_once() {
        let mut ledger = Ledger::new(true);
        ledger.opened();
        ledger.take(letter(1, false));
        ledger.take(letter(2, true));
        assert_eq!(send(&mut ledger, 1), [1, 2]);
        ledger.echo(1);
        ledger.take(letter(3, false));
        assert_eq!(ledger.closed(), [(1, 1, Some(1_001))], "what was not sent may still be");
        ledger.opened();
        assert_eq!(send(&mut ledger, 2), [2, 3]);
    }

    #[test]
    fn echoes_go_out_once_more_and_only_on_their_connection() {
        let mut ledger = Ledger::new(false);
        ledger.opened();
        (1..=3).for_each(|n| ledger.take(letter(n, true)));
        assert_eq!(send(&mut ledger, 1), [1, 2, 3]);
        ledger.echo(2);
        ledger.take(letter(4, true));
        assert_eq!(send(&mut ledger, 1), [4, 2], "never before what is new");
        ledger.echo(3);
        ledger.echo(1);
        ledger.answered(3, &Outcome::Ok(3));
        assert_eq!(send(&mut ledger, 1), [1]);
        ledger.echo(1);
        ledger.opened();
        assert_eq!(send(&mut ledger, 2), [1, 2, 4]);
    }

    #[test]
    fn only_what_cannot_overtake_is_repeated_elsewhere() {
        let mut ledger = Ledger::new(false);
        ledger.opened();
        ledger.take(letter(1, true));
        assert_eq!(ledger.repeatable(false), None, "never sent");
        ledger.take(letter(2, true));
        send(&mut ledger, 1);
        assert_eq!(ledger.repeatable(false), Some(&letter(1, true)));
        assert_eq!(ledger.repeatable(true), None);
        ledger.answered(1, &Outcome::Ok(1));
        assert_eq!(ledger.repeatable(true), Some(&letter(1, true)));
        assert_eq!(ledger.repeatable(false), Some(&letter(2, true)));
        assert_eq!(ledger.give_up_before(1_003), [(1, 2, Some(1_002))]);
        assert_eq!(ledger.repeatable(false), None);
    }

    proptest! {
        /// Whatever is answered when: a connection carries what is unanswered, oldest first, then what is new.
        #[test]
        fn every_connection_begins_with_what_is_unanswered(
            rounds in prop::collection::vec((0_usize..5, prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8), 0..4)), 1..9)
        ) {
            let mut ledger = Ledger::new(false);
            let (mut unanswered, mut n): (Vec<u64>, u64) = (Vec::new(), 0);
            for (conn, (new, answers)) in (1..).zip(rounds) {
                ledger.opened();
                for _ in 0..new {
                    n += 1;
                    ledger.take(letter(n, n % 4 != 0));
                    unanswered.push(n);
                }
                let sent = send(&mut ledger, conn);
                prop_assert_eq!(&sent, &unanswered);
                for (which, kind) in answers.iter().filter(|_| !sent.is_empty()) {
                    let n = *which.get(&sent);
                    let outcome = match kind {
                        0 => Outcome::Ok(n),
                        1 => Outcome::Refused("too_large".into()),
                        _ => Outcome::Again("not_sent".into()),
                    };
                    ledger.answered(n, &outcome);
                    unanswered.retain(|other| *other != n || (*kind > 1 && n % 4 != 0));
                }
                ledger.closed();
                unanswered.retain(|n| n % 4 != 0);
            }
        }
    }
}
