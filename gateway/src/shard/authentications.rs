//! Who clients are: tokens that came while a call is under way go together in the next one, each address in turn. Whoever
//! left meanwhile costs no call, and beyond a bound nobody is kept waiting. It does not look into a token.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

use sluice_proto::ids::{Epoch, RoomId};
use sluice_proto::limits::TOKENS_PER_CALL_MAX;
use socket2::SockRef;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::Shard;
use super::connection::Connection;
use super::requests::NO_EPOCH;
use super::shared::Shared;
use super::tokens::{identity, token_due};
use super::turn::{Budget, ShardCell};
use crate::address::Address;
use crate::calls::Authenticated;
use crate::defaults::{
    AUTHENTICATE_AGAIN, AUTHENTICATE_BYTES_MAX, CALL_WITHIN, CONNECT_WITHIN, TOKENS_WAITING_BYTES_MAX,
    TOKENS_WAITING_MAX,
};
use crate::fair_queue::FairQueue;
use crate::limits::TooMany;
use crate::limits::table::Seat;
use crate::session::machine::{Identity, NotIdentified};
use crate::status::change;
use crate::tick::{NEVER, ticks};

/// From the look at a question to the next one when there is no verdict: the epoch, a logic, its call, a pause.
const ROUND_MS_MAX: u128 = 3 * CALL_WITHIN.as_millis() + AUTHENTICATE_AGAIN.as_millis();
/// From a token to its answer: who is looked at just before its time has all of a round.
const ANSWERED_WITHIN_MS: u128 = CONNECT_WITHIN.as_millis() + ROUND_MS_MAX;
/// From a token until its client is given up: after every answer that comes in time.
const VERDICT_WITHIN: Duration = Duration::from_secs(2 * CONNECT_WITHIN.as_secs());
const _: () =
    assert!(ANSWERED_WITHIN_MS < VERDICT_WITHIN.as_millis(), "an answer comes before the client is given up");

/// Clients of a shard that nobody knows yet.
#[derive(Debug)]
pub(super) struct Authentications {
    waiting: FairQueue<Option<usize>, TokenCheck>,
    /// Of clients that are known already, and want to stay: they go before those that come.
    inside: FairQueue<Option<usize>, TokenCheck>,
    /// Those of the last call that have no verdict: they go first in the next one.
    again: VecDeque<TokenCheck>,
    /// Bytes of the tokens that wait.
    bytes: usize,
    /// Who waits is being looked at, or a call is under way.
    asking: bool,
}

/// Who asks with which token.
#[derive(Debug, PartialEq, Eq)]
struct TokenCheck {
    who: Address,
    token: String,
    /// Not asked by then, it is answered that nobody could say.
    by: Instant,
}

/// What becomes of a question whose turn it is.
#[derive(Debug)]
enum Look {
    Ask(TokenCheck),
    /// Its client has left or has its answer.
    NoCall,
}

impl Default for Authentications {
    fn default() -> Self {
        let (waiting, inside) = (FairQueue::new(1), FairQueue::new(1));
        Self { waiting, inside, again: VecDeque::new(), bytes: 0, asking: false }
    }
}

impl Authentications {
    /// Appends to what waits for `asker`, whom a known client is behind or not; gives it back when too much waits.
    fn push(&mut self, asker: Option<usize>, question: TokenCheck, is_known: bool) -> Result<(), TokenCheck> {
        let bytes = self.bytes + question.token.len();
        let queue = if is_known { &mut self.inside } else { &mut self.waiting };
        // Each of its own: a crowd that comes takes no place of those that are there.
        if queue.len() >= TOKENS_WAITING_MAX || bytes > TOKENS_WAITING_BYTES_MAX {
            return Err(question);
        }
        self.bytes = bytes;
        queue.push(asker, question);
        Ok(())
    }

    /// Takes back those of one call that have no verdict.
    fn ask_again(&mut self, questions: impl Iterator<Item = TokenCheck>) {
        for question in questions {
            self.bytes += question.token.len();
            self.again.push_back(question);
        }
    }

    /// The next question: each address has its turn.
    fn pop(&mut self) -> Option<TokenCheck> {
        let question = self.again.pop_front().or_else(|| self.inside.pop()).or_else(|| self.waiting.pop())?;
        self.bytes -= question.token.len();
        Some(question)
    }

    fn is_empty(&self) -> bool {
        self.again.is_empty() && self.inside.is_empty() && self.waiting.is_empty()
    }
}

/// Looks at questions until there are as many to ask as one call takes, the turn is over, or none is left.
fn gather(budget: Budget, mut look: impl FnMut() -> Option<Look>) -> Vec<TokenCheck> {
    let (mut asked, mut bytes) = (Vec::new(), 0);
    while asked.len() < TOKENS_PER_CALL_MAX && bytes < AUTHENTICATE_BYTES_MAX {
        match look() {
            Some(Look::Ask(question)) => {
                bytes += question.token.len();
                asked.push(question);
            }
            Some(Look::NoCall) => {}
            None => break,
        }
        if budget.is_spent() {
            break;
        }
    }
    asked
}

impl Shard {
    /// Asks logic about a token; an empty one asks for a new anonymous user.
    pub(super) fn authenticate(&mut self, who: Address, token: String) {
        let connect_by = self.connections.tick().saturating_add(ticks(VERDICT_WITHIN));
        let Some(connection) = self.connections.get(who) else { return };
        // What waits and what is asked ends in time by itself; this is for what it may leave open.
        connection.deadlines.connect_by = connect_by;
        let asker = connection.address_seat.as_ref().map(Seat::key);
        let is_known = connection.session.is_refreshed();
        self.connections.arm(who.slot);
        let question = TokenCheck { who, token, by: Instant::now() + CONNECT_WITHIN };
        match self.authentications.push(asker, question, is_known) {
            Ok(()) => self.ask_who(),
            // Beyond what could be answered in time nobody is kept waiting.
            Err(question) => self.authenticated(&question, Authenticated::Unavailable, None),
        }
    }

    /// Asks about all who wait, call after call, unless that is done already.
    fn ask_who(&mut self) {
        if std::mem::replace(&mut self.authentications.asking, true) {
            return;
        }
        let shared = self.shared.clone();
        self.local(async move |cell: ShardCell| {
            loop {
                // Not in the turn that reads: what came with a token is out of its place there, and a client that has sent
                // its last would be taken for one that left.
                yield_now().await;
                match cell.turn(|shard| shard.next_questions(Budget::begin())) {
                    Some(questions) if questions.is_empty() => {}
                    Some(questions) => ask(&cell, &shared, questions).await,
                    None => break,
                }
            }
        });
    }

    /// Those whose turn it is, perhaps none; `None` = nobody waits any more.
    fn next_questions(&mut self, budget: Budget) -> Option<Vec<TokenCheck>> {
        let now = Instant::now();
        let questions = gather(budget, || self.look_at_next(now));
        let more = !questions.is_empty() || !self.authentications.is_empty();
        self.authentications.asking = more;
        more.then_some(questions)
    }

    /// Looks at whose turn it is, and answers who costs no call. `None` = nobody waits.
    fn look_at_next(&mut self, now: Instant) -> Option<Look> {
        let question = self.authentications.pop()?;
        match self.connections.get(question.who) {
            Some(connection) if waits(connection) => {
                if has_left(connection) {
                    self.drop_connection(question.who);
                } else if question.by <= now {
                    self.authenticated(&question, Authenticated::Unavailable, None);
                } else {
                    return Some(Look::Ask(question));
                }
            }
            Some(_) | None => {}
        }
        Some(Look::NoCall)
    }

    fn authenticated(&mut self, question: &TokenCheck, result: Authenticated, epoch: Option<Epoch>) {
        let (who, anonymous_try) = (question.who, question.token.is_empty());
        // It ended while it was asked about, and has been reported gone: nobody would take back that it came.
        if !self.connections.get(who).is_some_and(|connection| waits(connection)) {
            return;
        }
        if self.connections.get(who).is_some_and(|connection| connection.session.is_refreshed()) {
            return self.vouched(who, result);
        }
        let former = self.change(who, change::disconnected_by_change);
        let result = if epoch.is_some() { identity(result) } else { Err(NotIdentified::Unavailable) };
        let result = result.and_then(|identity| self.take_user_seat(who, identity));
        // After the place is taken: whoever revokes looks for users with a place after it is noted there.
        let result = result.and_then(|identity| self.not_revoked(identity));
        if result.is_err()
            && let Some(connection) = self.connections.get(who)
        {
            connection.user_seat = None;
        }
        let result =
            result.map(|identity| Identity { grants: self.grants.share(identity.grants), ..identity });
        let (result, asked) = if self.waits_for_head(who) {
            let Some((identity, asked)) = self.open_stream(who, result) else { return };
            (Ok(identity), asked)
        } else {
            (result, Vec::new())
        };
        let facts = self.shared.welcome_facts(epoch.unwrap_or(NO_EPOCH));
        let known = result.is_ok();
        self.connections.with_session(who.slot, |session, out| {
            if session.link().address == who {
                session.identified(result, anonymous_try, &facts, out);
            }
        });
        let wall_ms = self.shared.clock.now_ms();
        let now = self.connections.tick();
        let Some(connection) = self.connections.get(who) else { return };
        if known {
            connection.session.token_begins(wall_ms);
            connection.deadlines.connect_by = NEVER;
            connection.deadlines.expires_at = token_due(connection, wall_ms, now);
            if let Some(former) = former {
                self.report(former);
            }
            // Whoever was anonymous brings the rooms of that, and has the grants of who it is.
            self.regranted(who, false);
            let Some(connection) = self.connections.get(who) else { return };
            let rooms: Vec<(RoomId, bool)> =
                connection.joined_rooms().map(|(room, watches)| (room.clone(), watches)).collect();
            if let Some(change) = self.change(who, change::connected) {
                self.report(change);
            }
            for (room, watches) in rooms {
                if let Some(change) = self.change(who, |about| change::joined(about, &room, watches)) {
                    self.report(change);
                }
            }
        } else {
            connection.deadlines.connect_by = now.saturating_add(ticks(CONNECT_WITHIN));
        }
        self.subscribe_stream(who, asked);
        // It waited for this.
        if let Some(connection) = self.connections.get(who) {
            connection.paused = true;
        }
        self.settle(who);
    }

    /// What was revoked while logic was asked, or is not known to the logic that answered.
    pub(super) fn not_revoked(&self, identity: Identity) -> Result<Identity, NotIdentified> {
        if !self.shared.revoked.refuses(&identity.user, identity.issued_at_s) {
            return Ok(identity);
        }
        // In the words of logic.
        let text = "the token was revoked: a new one is needed, with an iat of a later second";
        Err(NotIdentified::Invalid(text.to_owned()))
    }

    /// A ticket has said who a connection is, that nobody else was asked about.
    pub(super) fn identified_by_ticket(
        &mut self,
        who: Address,
        verdict: Authenticated,
        epoch: Option<Epoch>,
    ) {
        // Not empty: whoever has no ticket any more is no anonymous user.
        let question = TokenCheck { who, token: "ticket".to_owned(), by: Instant::now() };
        self.authenticated(&question, verdict, epoch);
    }

    fn take_user_seat(&mut self, who: Address, identity: Identity) -> Result<Identity, NotIdentified> {
        let Some(connection) = self.connections.get(who) else { return Ok(identity) };
        // Who was somebody else before gives up that place first.
        connection.user_seat = None;
        match self.shared.usages.identify(&identity.user) {
            Ok(seat) => {
                connection.user_seat = Some(seat);
                Ok(identity)
            }
            Err(TooMany(again)) => {
                let again_ms = u64::try_from(again.as_millis()).unwrap_or(u64::MAX);
                Err(NotIdentified::TooMany(again_ms.max(1_000)))
            }
        }
    }
}

/// One call about these clients: each hears its verdict when it is there, and who has none is asked about again.
async fn ask(cell: &ShardCell, shared: &Arc<Shared>, questions: Vec<TokenCheck>) {
    let tokens: Vec<String> = questions.iter().map(|question| question.token.clone()).collect();
    let mut open: Vec<Option<TokenCheck>> = questions.into_iter().map(Some).collect();
    // Without the one there is no `welcome`, without the other no verdict that is believed.
    let (epoch, ()) = tokio::join!(epoch(shared), shared.revoked.begun(CALL_WITHIN));
    if let Some(epoch) = epoch {
        let told = |verdicts: Vec<(usize, Authenticated)>| {
            cell.turn(|shard| {
                for (place, verdict) in verdicts {
                    // Of a logic that is behind: another one is asked.
                    if !shard.shared.revoked.believes(&verdict) {
                        continue;
                    }
                    if let Some(question) = open.get_mut(place).and_then(Option::take) {
                        shard.authenticated(&question, verdict, Some(epoch));
                    }
                }
            });
        };
        shared.calls.authenticate(&tokens, told).await;
    }
    let failed = open.iter().all(Option::is_some);
    cell.turn(|shard| shard.authentications.ask_again(open.into_iter().flatten()));
    // A reply that was full is followed by the next question at once; a failure is not.
    if failed {
        sleep(AUTHENTICATE_AGAIN).await;
    }
}

/// The store's epoch: the first call of a gateway's life may have to ask for it.
pub(super) async fn epoch(shared: &Arc<Shared>) -> Option<Epoch> {
    if shared.calls.epoch().get().is_none() {
        shared.calls.answers(CALL_WITHIN).await;
    }
    shared.calls.epoch().get()
}

/// Whether a client is still there for a verdict.
fn waits(connection: &Connection) -> bool {
    !connection.detached && connection.session.is_being_checked()
}

/// Whether a client has gone without another word. Its socket is not read while it is being checked, but the system has
/// told of its end.
fn has_left(connection: &Connection) -> bool {
    if connection.inbound.has_rest() || !connection.read_closed {
        return false;
    }
    // What it said before its end may be a publish that it waits to see answered.
    match SockRef::from(&connection.stream).peek(&mut [MaybeUninit::uninit()]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::grpc::AuthenticateReply;

    use super::super::tests::{enter, shard};
    use super::super::turn::tests::{clock, stopped};
    use super::*;
    use crate::defaults::TURN;

    fn question(slot: u32, bytes: usize) -> TokenCheck {
        let who = Address { shard: 0, slot, generation: 0 };
        TokenCheck { who, token: "t".repeat(bytes), by: Instant::now() }
    }

    fn slots(questions: &[TokenCheck]) -> Vec<u32> {
        questions.iter().map(|question| question.who.slot).collect()
    }

    /// As a shard does it, in a turn that has all the time there is.
    fn taken(
        all: &mut Authentications,
        mut costs_a_call: impl FnMut(&TokenCheck) -> bool,
    ) -> Vec<TokenCheck> {
        gather(Budget::by(stopped), || {
            let question = all.pop()?;
            Some(if costs_a_call(&question) { Look::Ask(question) } else { Look::NoCall })
        })
    }

    #[test]
    fn each_address_has_its_turn_and_who_left_takes_no_place() {
        let mut all = Authentications::default();
        for slot in 0..300 {
            all.push(Some(1), question(slot, 10), false).unwrap();
        }
        all.push(Some(2), question(1_000, 10), false).unwrap();
        all.push(Some(2), question(1_001, 10), false).unwrap();
        let stays = |question: &TokenCheck| !(2..6).contains(&question.who.slot);
        let asked = taken(&mut all, stays);
        assert_eq!(slots(&asked)[..6], [0, 1_000, 1, 1_001, 6, 7]);
        assert_eq!(asked.len(), TOKENS_PER_CALL_MAX);
        let rest = taken(&mut all, stays);
        assert_eq!((slots(&rest).first(), rest.len()), (Some(&258), 42));
        assert_eq!((all.bytes, all.is_empty()), (0, true));
    }

    #[test]
    fn who_is_known_goes_before_those_that_come() {
        let mut all = Authentications::default();
        for slot in 0..3 {
            all.push(Some(1), question(slot, 10), false).unwrap();
        }
        all.push(Some(1), question(9, 10), true).unwrap();
        assert_eq!(slots(&taken(&mut all, |_| true)), [9, 0, 1, 2]);
        for slot in 0..u32::try_from(TOKENS_WAITING_MAX).unwrap() {
            all.push(Some(1), question(slot, 1), false).unwrap();
        }
        assert!(all.push(Some(1), question(7, 1), false).is_err());
        assert!(
            all.push(Some(1), question(7, 1), true).is_ok(),
            "a crowd takes no place of those that are there"
        );
    }

    #[test]
    fn who_has_no_verdict_yet_goes_first_in_the_next_call() {
        let mut all = Authentications::default();
        for slot in 0..4 {
            all.push(None, question(slot, 10), false).unwrap();
        }
        let open = [all.pop(), all.pop()];
        all.ask_again(open.into_iter().flatten());
        assert_eq!((slots(&taken(&mut all, |_| true)), all.bytes), (vec![0, 1, 2, 3], 0));
    }

    #[test]
    fn a_call_is_as_long_as_it_may_be_and_takes_one_that_is_longer_alone() {
        let mut all = Authentications::default();
        for slot in 0..3 {
            all.push(None, question(slot, AUTHENTICATE_BYTES_MAX), false).unwrap();
        }
        for slot in 3..300 {
            all.push(None, question(slot, 8 * 1024), false).unwrap();
        }
        let mut calls = Vec::new();
        while !all.is_empty() {
            calls.push(taken(&mut all, |_| true).len());
        }
        assert_eq!(calls, [1, 1, 1, 64, 64, 64, 64, 41]);
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_bytes() {
        let mut many = Authentications::default();
        for slot in 0..u32::try_from(TOKENS_WAITING_MAX).unwrap() {
            many.push(None, question(slot, 1), false).unwrap();
        }
        assert_eq!(many.push(Some(1), question(7, 1), false).map_err(|back| back.who.slot), Err(7));
        let mut long = Authentications::default();
        for slot in 0..16 {
            long.push(None, question(slot, TOKENS_WAITING_BYTES_MAX / 16), false).unwrap();
        }
        assert_eq!(long.push(None, question(7, 1), false).map_err(|back| back.who.slot), Err(7));
        assert_eq!(taken(&mut long, |_| true).len(), 1);
        assert!(long.push(None, question(7, 1), false).is_ok(), "there is room again");
    }

    /// It was reported gone when it ended: nobody would take back that it came.
    #[tokio::test]
    async fn a_verdict_on_who_has_ended_tells_nobody_that_it_came() {
        let shard = shard();
        for ended in [true, false] {
            let (who, _client) = shard.turn(enter);
            let report = shard.turn(|shard| {
                if ended {
                    shard.detach(who, false);
                }
                let verdict = AuthenticateReply { user: "ann".to_owned(), ..AuthenticateReply::default() };
                let question = TokenCheck { who, ..question(0, 1) };
                shard.authenticated(&question, Authenticated::Known(verdict), Some(Epoch(1)));
                shard.next_report()
            });
            assert_eq!(report.is_none(), ended, "{report:?}");
        }
    }

    /// Thousands may be late or gone at once, and each of them is an answer to write or a connection to drop.
    #[test]
    fn a_look_at_who_costs_no_call_ends_with_the_turn() {
        let mut looked_at = 0;
        let asked = gather(Budget::by(clock), || {
            looked_at += 1;
            Some(Look::NoCall)
        });
        assert_eq!((asked.len(), looked_at), (0, TURN.as_millis()));
    }
}
