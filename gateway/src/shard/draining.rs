//! How the connections of a shard leave: told in slices, closed at a pace, given up at the end.

use std::ops::Range;
use std::time::Duration;

use rand::seq::SliceRandom;
use sluice_proto::wire::Drain;
use sluice_proto::wire::codec;
use sluice_service::seeded::{self, Bug};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::Shard;
use super::connection::Connection;
use super::inbox::{Close, Leaving};
use super::turn::{Budget, ShardCell};
use crate::address::Address;
use crate::defaults::DRAIN_SLICE;
use crate::drain::pace::{Pace, due};
use crate::ending::{Ending, RESTART};
use crate::metrics::Departure;
use crate::session::event::Note;

/// A shard that is left.
#[derive(Debug)]
pub(super) struct Draining {
    leaving: Leaving,
    /// Names it, so that what is left of an earlier one, which was called off or overtaken, does nothing more.
    round: u64,
    pace: Pace,
    /// By which pace clients were told to come back, and when.
    told: Option<(Pace, Instant)>,
    /// Set when closing has begun.
    close: Option<Close>,
    /// Told when nobody is left.
    empty: Option<oneshot::Sender<()>>,
}

impl Shard {
    /// Tells all clients to leave.
    pub(super) fn notify_all(&mut self, pace: Pace, leaving: Leaving, told: oneshot::Sender<()>) {
        let now = Some((pace, Instant::now()));
        let Some(round) = self.begin_round(leaving) else { return };
        self.draining = Some(Draining { leaving, round, pace, told: now, close: None, empty: None });
        let all = self.everybody();
        self.local(async move |cell: ShardCell| {
            in_slices(&cell, round, all, pace.notify_within, |shard, who| shard.notify(who, pace)).await;
            // Whoever asked may have run out of time.
            let _ = told.send(());
        });
    }

    /// Closes all connections, each after its publishes have their outcome.
    pub(super) fn close_all(&mut self, close: Close, empty: oneshot::Sender<()>) {
        let Some(round) = self.begin_round(close.leaving) else { return };
        let told = self.draining.take().and_then(|draining| draining.told);
        let (leaving, pace) = (close.leaving, close.pace);
        let (closing, empty) = (Some(close), Some(empty));
        self.draining = Some(Draining { leaving, round, pace, told, close: closing, empty });
        self.signal_if_empty();
        self.local(async move |cell: ShardCell| {
            let closing = async {
                sleep(close.pace.close_after).await;
                let all = cell.turn(|shard| shard.everybody());
                let one = |shard: &mut Shard, who| shard.close(who, close);
                in_slices(&cell, round, all, close.pace.close_within, one).await;
            };
            // At its time, also when a machine without time to spare has made the closes late.
            let giving_up = async {
                sleep_until(close.give_up_at).await;
                cell.turn(|shard| {
                    if shard.is_round(round) {
                        shard.give_up();
                    }
                });
            };
            // However late they are, what is left of the stage belongs to the last words.
            let in_order = async {
                tokio::join!(closing, giving_up);
                sleep_until(close.drop_at).await;
            };
            drop(timeout_at(close.drop_at, in_order).await);
            cell.turn(|shard| {
                if shard.is_round(round) {
                    shard.last_words();
                    shard.drop_all();
                }
            });
        });
    }

    /// Who has not been closed stays: the drain of an operator is called off. A stop goes on.
    pub(super) fn stay(&mut self) {
        self.draining.take_if(|draining| draining.leaving == Leaving::Drain);
    }

    /// The name of a new round; `None`: the process stops already, and by the pace of that.
    fn begin_round(&mut self, leaving: Leaving) -> Option<u64> {
        let stops = self.draining.as_ref().is_some_and(|draining| draining.leaving == Leaving::Stop);
        if stops && leaving == Leaving::Drain {
            return None;
        }
        self.drain_rounds += 1;
        Some(self.drain_rounds)
    }

    fn is_round(&self, round: u64) -> bool {
        self.draining.as_ref().is_some_and(|draining| draining.round == round)
    }

    /// Says goodbye to whoever has not heard it, and writes it at once, in one turn: nothing else matters any more. The
    /// bookkeeping of a connection comes when it is dropped, after everybody has a close frame.
    pub(super) fn last_words(&mut self) {
        if seeded::is(Bug::NoGoodbye) {
            return;
        }
        let code = self.shared.config.drain.close_code;
        for who in self.everybody() {
            let reconnect_ms = self.reconnect_ms(who);
            let Some(connection) = self.connections.get(who) else { continue };
            if let Some(bye) = connection.session.take_last_bye(Ending::Restart { code }, reconnect_ms) {
                self.shared.metrics.ended(Ending::Restart { code }.label());
                self.append_bye(who, &bye);
            }
            // Also what others were told before and no turn had time to write.
            self.connections.write(who.slot);
        }
    }

    /// Somebody came in while all others leave.
    pub(super) fn admitted_while_draining(&mut self, who: Address) {
        let Some(draining) = &self.draining else { return };
        let (pace, closing) = (draining.pace, draining.close);
        self.notify(who, pace);
        if let Some(close) = closing {
            self.close(who, close);
        }
    }

    fn notify(&mut self, who: Address, pace: Pace) {
        // After `bye` nothing may follow, not even this. A stream without its head hears when it is closed.
        let Some(connection) = self.connections.get(who).filter(|connection| !connection.detached) else {
            return;
        };
        if seeded::is(Bug::NoGoodbye) {
            return;
        }
        let random = own_random(connection);
        let drain = Drain {
            reason: RESTART.to_owned(),
            within_ms: u64::try_from((pace.notify_within + pace.close_after + pace.close_within).as_millis())
                .unwrap_or(u64::MAX),
            reconnect_ms: pace.reconnect_ms(random),
        };
        // For a browser, which comes back by itself, by this.
        let note = Note { id: None, retry_ms: Some(drain.reconnect_ms) };
        self.connections.noted(who.slot, note, |out| codec::drain(out, &drain));
    }

    /// When a client that is closed now may come back. Whose time has not come yet keeps it: all of them together are the
    /// pace that was told, and new delays would be a second crowd in the middle of it.
    fn reconnect_ms(&mut self, who: Address) -> u64 {
        let Some(draining) = &self.draining else { return self.resend_ms() };
        // Unless nobody is there any more to come to: then it counts from the close.
        let told = draining.told.filter(|_| draining.pace.reconnect_ms_min == 0);
        let rest = told.and_then(|(pace, at)| {
            let connection = self.connections.get(who)?;
            pace.rest_ms(own_random(connection), at.elapsed())
        });
        rest.unwrap_or_else(|| draining.pace.reconnect_ms(rand::random()))
    }

    fn close(&mut self, who: Address, close: Close) {
        let reconnect_ms = self.reconnect_ms(who);
        if let Some(connection) = self.connections.get(who) {
            connection.session.end(Ending::Restart { code: close.code }, reconnect_ms);
            self.settle(who);
        }
    }

    /// The process stood still for longer than its lease: nothing of what was read may be stored later, and
    /// nothing more is read.
    pub(super) fn on_freeze(&mut self) {
        for who in self.everybody() {
            let reconnect_ms = self.resend_ms();
            let Some(connection) = self.connections.get(who) else { continue };
            // Before anything is answered: what still comes out of a lane must not be stored (A5).
            connection.session.link().fence();
            // What it sent while we stood still was sent to a dead gateway: its client may have sent it elsewhere too.
            connection.discard_input = true;
            connection.session.end(Ending::Frozen, reconnect_ms);
        }
        self.give_up();
        for who in self.everybody() {
            self.settle(who);
        }
    }

    /// Drops what is still there.
    fn drop_all(&mut self) {
        for who in self.everybody() {
            self.cut_connection(who);
        }
    }

    /// How a client left, for the line of the drain: by itself, after `bye`, or cut.
    pub(super) fn count_departure(&mut self, who: Address, cut: bool) {
        let Some(connection) = self.connections.get(who).filter(|_| self.draining.is_some()) else { return };
        let told = connection.session.has_left();
        // A `bye` that is still in the queue was heard by nobody.
        let departure = if cut || told && !connection.outbound.is_empty() {
            Departure::Dropped
        } else if told {
            Departure::Closed
        } else {
            Departure::Moved
        };
        self.counters.departure(departure);
    }

    /// Answers whoever waits for the last connection to end.
    pub(super) fn signal_if_empty(&mut self) {
        if !self.connections.is_empty() {
            return;
        }
        let empty = self.draining.as_mut().and_then(|draining| draining.empty.take());
        if let Some(empty) = empty {
            // Now, not at the next tick: the line of the drain is written as soon as everybody is gone.
            self.count();
            // Whoever asked may have run out of time.
            let _ = empty.send(());
        }
    }

    /// A delay before coming back that spreads clients who were closed together.
    pub(super) fn resend_ms(&self) -> u64 {
        rand::random_range(0..=500)
    }

    /// All connections in random order: nobody is always the first.
    fn everybody(&self) -> Vec<Address> {
        let mut all: Vec<Address> = self.connections.iter().map(Connection::address).collect();
        all.shuffle(&mut rand::rng());
        all
    }
}

/// A connection's random number for its return: the same each time, and nothing has to be kept for it.
#[expect(clippy::cast_possible_truncation, reason = "half of the random bits will do")]
fn own_random(connection: &Connection) -> u64 {
    connection.session.link().session.0 as u64
}

/// Does `act` for all, spread over `within`; what is due at once is done in as many turns as it needs.
async fn in_slices(
    cell: &ShardCell,
    round: u64,
    all: Vec<Address>,
    within: Duration,
    mut act: impl FnMut(&mut Shard, Address),
) {
    let turn = |slice: Range<usize>| {
        cell.turn(|shard| {
            // Called off by an operator, or begun anew since: nobody of this list is left to this round.
            if !shard.is_round(round) {
                return all.len();
            }
            let budget = Budget::begin();
            let mut done = slice.start;
            while done < slice.end && !budget.is_spent() {
                act(shard, all[done]);
                done += 1;
            }
            done
        })
    };
    paced(all.len(), within, turn).await;
}

/// Has `turn` do what is due of `total`, which is spread over `within`; it says how far it came.
async fn paced(total: usize, within: Duration, mut turn: impl FnMut(Range<usize>) -> usize) {
    let start = Instant::now();
    let mut done = 0;
    while done < total {
        let until = due(total, start.elapsed(), within);
        done = turn(done..until);
        if done < until {
            // Sockets have their turn: what was said in this one has to be written before the next is said.
            yield_now().await;
        } else if done < total {
            sleep_until(Instant::now() + DRAIN_SLICE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::pace::Situation;

    /// Two shards, a total of 120 s with a drain that is long enough.
    #[tokio::test(start_paused = true)]
    async fn a_hundred_thousand_leave_at_the_configured_rate() {
        let pace = Pace::plan(&Situation {
            connections: 100_000,
            peers: true,
            rate_per_s: 2_500,
            returns_per_s: 2_500,
            notify_for: Duration::from_secs(1),
            move_for: Duration::from_millis(700),
            close_for: Duration::from_secs(60),
            close_for_last: Duration::from_secs(1),
            reconnect_ms_max: 15_000,
        });
        let closed = std::cell::RefCell::new(Vec::new());
        let begun = Instant::now();
        let shard = || {
            paced(50_000, pace.close_within, |slice: Range<usize>| {
                closed.borrow_mut().extend(slice.clone().map(|_| begun.elapsed().as_secs()));
                slice.end
            })
        };
        tokio::join!(shard(), shard());
        assert_eq!(begun.elapsed().as_secs(), 40);
        for second in 0..40 {
            let count = closed.borrow().iter().filter(|at| **at == second).count();
            assert!((2_400..=2_600).contains(&count), "{count} in second {second}");
        }
    }
}
