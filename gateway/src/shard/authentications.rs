//! Who clients are: tokens that came while a call is under way go together in the next one, each address in turn. Whoever
//! left meanwhile costs no call, and beyond a bound nobody is kept waiting. It does not look into a token.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::sync::Arc;

use sluice_proto::grpc::{AuthenticateReply, Grants as WireGrants};
use sluice_proto::ids::{Epoch, RoomId, UserId};
use sluice_proto::limits::TOKENS_PER_CALL_MAX;
use socket2::SockRef;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::Shard;
use super::connection::Connection;
use super::requests::NO_EPOCH;
use super::shared::Shared;
use super::turn::ShardCell;
use crate::address::Address;
use crate::calls::Authenticated;
use crate::defaults::{
    AUTHENTICATE_AGAIN, AUTHENTICATE_BYTES_MAX, CALL_WITHIN, CONNECT_WITHIN, TOKENS_LOOKED_AT_MAX,
    TOKENS_WAITING_BYTES_MAX, TOKENS_WAITING_MAX,
};
use crate::fair_queue::FairQueue;
use crate::limits::TooMany;
use crate::limits::table::Seat;
use crate::session::grants::Grants;
use crate::session::machine::{Identity, NotIdentified};
use crate::status::change;
use crate::tick::{NEVER, tick_of, ticks};

/// Clients of a shard that nobody knows yet.
#[derive(Debug)]
pub(super) struct Authentications {
    waiting: FairQueue<Option<usize>, Question>,
    /// Bytes of the tokens that wait.
    bytes: usize,
    /// A call is under way.
    asking: bool,
}

/// Who asks with which token.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    who: Address,
    token: String,
    /// Not asked by then, it is answered that nobody could say.
    by: Instant,
}

/// What becomes of a question whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Ask,
    /// It waited too long.
    Late,
    /// The client has left.
    Left,
    /// Nobody waits for an answer any more.
    Pass,
}

/// Questions whose turn it was.
#[derive(Debug, Default)]
struct Turns {
    asked: Vec<Question>,
    late: Vec<Question>,
    left: Vec<Address>,
}

impl Default for Authentications {
    fn default() -> Self {
        Self { waiting: FairQueue::new(1), bytes: 0, asking: false }
    }
}

impl Authentications {
    /// Appends to what waits for `asker`; gives it back when too much waits.
    fn push(&mut self, asker: Option<usize>, question: Question) -> Result<(), Question> {
        let bytes = self.bytes + question.token.len();
        if self.waiting.len() >= TOKENS_WAITING_MAX || bytes > TOKENS_WAITING_BYTES_MAX {
            return Err(question);
        }
        self.bytes = bytes;
        self.waiting.push(asker, question);
        Ok(())
    }

    /// Those whose turn it is, with as many that are to be asked as one call takes.
    fn take(&mut self, mut judge: impl FnMut(&Question) -> Turn) -> Turns {
        let (mut turns, mut bytes) = (Turns::default(), 0);
        for _ in 0..TOKENS_LOOKED_AT_MAX {
            if turns.asked.len() == TOKENS_PER_CALL_MAX || bytes >= AUTHENTICATE_BYTES_MAX {
                break;
            }
            let Some(question) = self.waiting.pop() else { break };
            self.bytes -= question.token.len();
            match judge(&question) {
                Turn::Ask => {
                    bytes += question.token.len();
                    turns.asked.push(question);
                }
                Turn::Late => turns.late.push(question),
                Turn::Left => turns.left.push(question.who),
                Turn::Pass => {}
            }
        }
        turns
    }
}

impl Shard {
    /// Asks logic about a token; an empty one asks for a new anonymous user.
    pub(super) fn authenticate(&mut self, who: Address, token: String) {
        let by = self.connections.tick().saturating_add(ticks(CONNECT_WITHIN));
        let Some(connection) = self.connections.get(who) else { return };
        // What waits and what is asked ends in time by itself; this is for what it may leave open.
        connection.deadlines.connect_by = by.saturating_add(ticks(CONNECT_WITHIN));
        let asker = connection.address_seat.as_ref().map(Seat::key);
        self.connections.arm(who.slot);
        let question = Question { who, token, by: Instant::now() + CONNECT_WITHIN };
        match self.authentications.push(asker, question) {
            // Not in the turn that reads: what came with the token is out of its place there, and a client that has
            // sent its last would be taken for one that left.
            Ok(()) if !self.authentications.asking => self.call_about(Vec::new()),
            Ok(()) => {}
            // Beyond what could be answered in time nobody is kept waiting.
            Err(question) => self.authenticated(&question, Authenticated::Unavailable, None),
        }
    }

    /// Sends what waits, unless a call is under way.
    fn ask_who(&mut self) {
        if self.authentications.asking {
            return;
        }
        let (connections, now) = (&mut self.connections, Instant::now());
        let turns = self.authentications.take(|question| match connections.get(question.who) {
            None => Turn::Pass,
            Some(connection) if !connection.session.is_being_checked() => Turn::Pass,
            Some(connection) if has_left(connection) => Turn::Left,
            Some(_) if question.by <= now => Turn::Late,
            Some(_) => Turn::Ask,
        });
        // When all who were looked at cost no call, the others are looked at in the next turn.
        if !turns.asked.is_empty() || !self.authentications.waiting.is_empty() {
            self.call_about(turns.asked);
        }
        turns.left.into_iter().for_each(|who| self.drop_connection(who));
        for question in turns.late {
            self.authenticated(&question, Authenticated::Unavailable, None);
        }
    }

    fn call_about(&mut self, asked: Vec<Question>) {
        self.authentications.asking = true;
        let shared = self.shared.clone();
        self.local(async move |cell: ShardCell| {
            let (answers, epoch) = answers(&shared, &asked).await;
            cell.turn(|shard| {
                for (question, answer) in asked.iter().zip(answers) {
                    shard.authenticated(question, answer, epoch);
                }
                shard.authentications.asking = false;
                shard.ask_who();
            });
        });
    }

    fn authenticated(&mut self, question: &Question, result: Authenticated, epoch: Option<Epoch>) {
        let (who, anonymous_try) = (question.who, question.token.is_empty());
        // It ended while it was asked about, and has been reported gone: nobody would take back that it came.
        let waits =
            |connection: &mut Connection| !connection.detached && connection.session.is_being_checked();
        if !self.connections.get(who).is_some_and(waits) {
            return;
        }
        let former = self.change(who, change::disconnected_by_change);
        let result = if epoch.is_some() { identity(result) } else { Err(NotIdentified::Unavailable) };
        let result = result.and_then(|identity| self.take_user_seat(who, identity));
        let result =
            result.map(|identity| Identity { grants: self.grants.share(identity.grants), ..identity });
        let facts = self.shared.welcome_facts(epoch.unwrap_or(NO_EPOCH));
        let expires_ms = result.as_ref().ok().and_then(|identity| identity.expires_at_ms);
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
            connection.deadlines.connect_by = NEVER;
            connection.deadlines.expires_at = expires_ms.map_or(NEVER, |at| tick_of(at, wall_ms, now));
            let rooms: Vec<RoomId> = connection.joined_rooms().cloned().collect();
            for change in former.into_iter().chain(self.change(who, change::connected)) {
                self.report(change);
            }
            for room in rooms {
                if let Some(change) = self.change(who, |about| change::joined(about, &room)) {
                    self.report(change);
                }
            }
        } else {
            connection.deadlines.connect_by = now.saturating_add(ticks(CONNECT_WITHIN));
        }
        // It waited for this.
        if let Some(connection) = self.connections.get(who) {
            connection.paused = true;
        }
        self.settle(who);
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

/// Logic's answers, in order.
async fn answers(shared: &Arc<Shared>, asked: &[Question]) -> (Vec<Authenticated>, Option<Epoch>) {
    let Some(last_by) = asked.iter().map(|question| question.by).max() else {
        yield_now().await;
        return (Vec::new(), None);
    };
    let tokens: Vec<String> = asked.iter().map(|question| question.token.clone()).collect();
    // What waited until just before its time has that of one try all the same.
    let by = last_by.max(Instant::now() + CALL_WITHIN);
    (shared.calls.authenticate(&tokens, by).await, until_epoch(shared).await)
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

fn identity(result: Authenticated) -> Result<Identity, NotIdentified> {
    match result {
        Authenticated::Known(reply) => known(reply).ok_or(NotIdentified::Unavailable),
        Authenticated::Invalid(text) => Err(NotIdentified::Invalid(text)),
        Authenticated::Unavailable => Err(NotIdentified::Unavailable),
    }
}

fn known(reply: AuthenticateReply) -> Option<Identity> {
    let AuthenticateReply { user, anonymous, token, expires_at_ms, grants } = reply;
    let grants: WireGrants = grants.unwrap_or_default();
    Some(Identity {
        user: UserId::parse(&user).ok()?,
        grants: Grants::from(grants),
        anonymous,
        token: (!token.is_empty()).then_some(token),
        expires_at_ms: (expires_at_ms != 0).then_some(expires_at_ms),
    })
}

/// A `welcome` needs the store's epoch: the first one of a gateway's life may have to ask for it.
async fn until_epoch(shared: &Arc<Shared>) -> Option<Epoch> {
    let by = Instant::now() + CONNECT_WITHIN;
    loop {
        if let Some(epoch) = shared.calls.epoch().get() {
            return Some(epoch);
        }
        if Instant::now() >= by {
            return None;
        }
        if !shared.calls.answers(CALL_WITHIN).await {
            sleep(AUTHENTICATE_AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(slot: u32, bytes: usize) -> Question {
        let who = Address { shard: 0, slot, generation: 0 };
        Question { who, token: "t".repeat(bytes), by: Instant::now() }
    }

    fn slots(questions: &[Question]) -> Vec<u32> {
        questions.iter().map(|question| question.who.slot).collect()
    }

    #[test]
    fn each_address_has_its_turn_and_who_left_takes_no_place() {
        let mut all = Authentications::default();
        for slot in 0..300 {
            all.push(Some(1), question(slot, 10)).unwrap();
        }
        all.push(Some(2), question(1_000, 10)).unwrap();
        all.push(Some(2), question(1_001, 10)).unwrap();
        let judge = |question: &Question| match question.who.slot {
            2 | 3 => Turn::Left,
            4 => Turn::Late,
            5 => Turn::Pass,
            _ => Turn::Ask,
        };
        let turns = all.take(judge);
        assert_eq!(slots(&turns.asked)[..6], [0, 1_000, 1, 1_001, 6, 7]);
        assert_eq!(turns.asked.len(), TOKENS_PER_CALL_MAX);
        assert_eq!((turns.left.len(), slots(&turns.late)), (2, vec![4]));
        let rest = all.take(judge);
        assert_eq!((slots(&rest.asked).first(), rest.asked.len()), (Some(&258), 42));
        assert_eq!((all.bytes, all.waiting.len()), (0, 0));
    }

    #[test]
    fn a_call_is_as_long_as_it_may_be_and_takes_one_that_is_longer_alone() {
        let mut all = Authentications::default();
        for slot in 0..3 {
            all.push(None, question(slot, AUTHENTICATE_BYTES_MAX)).unwrap();
        }
        for slot in 3..300 {
            all.push(None, question(slot, 8 * 1024)).unwrap();
        }
        let mut calls = Vec::new();
        while !all.waiting.is_empty() {
            calls.push(all.take(|_| Turn::Ask).asked.len());
        }
        assert_eq!(calls, [1, 1, 1, 64, 64, 64, 64, 41]);
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_bytes() {
        let mut many = Authentications::default();
        for slot in 0..u32::try_from(TOKENS_WAITING_MAX).unwrap() {
            many.push(None, question(slot, 1)).unwrap();
        }
        assert_eq!(many.push(Some(1), question(7, 1)).map_err(|back| back.who.slot), Err(7));
        let mut long = Authentications::default();
        for slot in 0..16 {
            long.push(None, question(slot, TOKENS_WAITING_BYTES_MAX / 16)).unwrap();
        }
        assert_eq!(long.push(None, question(7, 1)).map_err(|back| back.who.slot), Err(7));
        assert_eq!(long.take(|_| Turn::Ask).asked.len(), 1);
        assert!(long.push(None, question(7, 1)).is_ok(), "there is room again");
    }

    #[test]
    fn a_look_at_who_left_has_an_end() {
        let mut all = Authentications::default();
        for slot in 0..3_000 {
            all.push(None, question(slot, 1)).unwrap();
        }
        let turns = all.take(|_| Turn::Left);
        assert_eq!(
            (turns.left.len(), all.waiting.len()),
            (TOKENS_LOOKED_AT_MAX, 3_000 - TOKENS_LOOKED_AT_MAX)
        );
    }
}
