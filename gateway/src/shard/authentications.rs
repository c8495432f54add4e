//! Who clients are: tokens that came while a call is under way go together in the next one, each address in turn. Whoever
//! left meanwhile costs no call, and beyond a bound nobody is kept waiting. It does not look into a token.

mod waiting;

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

use sluice_proto::ids::{Epoch, RoomId};
use socket2::SockRef;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

pub(super) use self::waiting::Authentications;
use self::waiting::{Look, TokenCheck, gather};
use super::Shard;
use super::connection::Connection;
use super::requests::NO_EPOCH;
use super::shared::Shared;
use super::tokens::{identity, token_due};
use super::turn::{Budget, ShardCell};
use crate::address::Address;
use crate::calls::Authenticated;
use crate::defaults::{AUTHENTICATE_AGAIN, CALL_WITHIN, CONNECT_WITHIN};
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
        let question = TokenCheck { who, token, is_known, by: Instant::now() + CONNECT_WITHIN };
        match self.authentications.push(asker, question) {
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
                    self.authentications.takes_turn(&question);
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
        let question = TokenCheck { who, token: "ticket".to_owned(), is_known: false, by: Instant::now() };
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
    use super::*;

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
                let question = TokenCheck { who, token: String::new(), is_known: false, by: Instant::now() };
                shard.authenticated(&question, Authenticated::Known(verdict), Some(Epoch(1)));
                shard.next_report()
            });
            assert_eq!(report.is_none(), ended, "{report:?}");
        }
    }
}
