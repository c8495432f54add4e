//! What a library client does besides publishing and reading: it subscribes, leaves rooms and comes back, says goodbye
//! or cuts the connection to come back, and reads history.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::future::join_all;
use rand::RngExt;
use rand::rngs::SmallRng;
use sluice_client::{Client, Error, HistoryPage, HistoryRange, Message, Position};
use sluice_judge::record::{ClientEvent, PageMessage, hash_of};
use tokio::time::{Instant, sleep, sleep_until};

use super::super::client_state::RoomState;
use super::super::pace::FIRST_S;
use super::super::plan::ClientRole;
use super::super::shared::LoadPhase;
use super::{LeaveReason, LibraryClient};

/// Time between two of the same, seconds.
const CHURN_S: std::ops::Range<f64> = 4.0..16.0;
const HISTORY_S: std::ops::Range<f64> = 5.0..20.0;
/// When somebody ends for good: late enough that who watches has listened for a while.
const LEAVES_S: std::ops::Range<f64> = 12.0..25.0;
/// Who was told that it may have missed something asks again within this.
const ASK_AGAIN_MS: u64 = 2_000;
/// How long a room is left.
const AWAY_S: std::ops::Range<f64> = 0.2..2.0;
/// Messages of a page.
const PAGE: u32 = 100;
/// Before a goodbye, what is on its way gets this long to be answered.
const ANSWERS_WAIT: Duration = Duration::from_secs(3);
/// Between two looks at what should come soon.
const LOOK: Duration = Duration::from_millis(10);
/// A reader that is behind hears of what it asked for within this.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// One that is not, within this.
const SOON: Duration = Duration::from_secs(2);

impl LibraryClient {
    /// Until it is time to leave.
    pub(super) async fn behave(
        &self,
        client: &Client,
        rng: &mut SmallRng,
        gathered: &mut bool,
    ) -> LeaveReason {
        // A former stay ended by it.
        self.held.store(false, Relaxed);
        let rooms = self.recorder.state.wanted();
        join_all(rooms.into_iter().map(|(room, held)| self.subscribe(client, room, held))).await;
        if !std::mem::replace(gathered, true) {
            self.shared.one_is_ready();
        }
        self.shared.reaches(LoadPhase::Run).await;
        let mut next =
            |range: std::ops::Range<f64>| Instant::now() + Duration::from_secs_f64(rng.random_range(range));
        let (mut churn_at, mut history_at) = (next(FIRST_S), next(HISTORY_S));
        let (churns, reads) = (self.spec.role == ClientRole::Churn, self.spec.history);
        let leaves = self.spec.role == ClientRole::Leaver;
        // Drawn only by those who need it: all others do the same with the same seed.
        let leave_at = if leaves { next(LEAVES_S) } else { churn_at };
        let mut turns = 0_u32;
        while self.shared.phase() == LoadPhase::Run {
            tokio::select! {
                biased;
                () = self.shared.leaves(LoadPhase::Run) => {}
                () = self.stale.notified() => self.ask_again(client).await,
                () = sleep_until(leave_at), if leaves => return self.for_good(),
                () = sleep_until(churn_at), if churns => {
                    churn_at = next(CHURN_S);
                    turns += 1;
                    match turns % 4 {
                        1 | 2 => self.step_out(client, turns, next(AWAY_S)).await,
                        // By its number, not by chance: a short run has both kinds of leaving.
                        3 if self.spec.client % 4 < 2 => return LeaveReason::Cut,
                        _ => {
                            self.finish_sending().await;
                            return LeaveReason::Goodbye;
                        }
                    }
                }
                () = sleep_until(history_at), if reads => {
                    history_at = next(HISTORY_S);
                    tokio::select! {
                        () = self.read_history(client, turns) => {}
                        () = self.shared.leaves(LoadPhase::Run) => {}
                    }
                    turns += 1;
                }
            }
        }
        self.shared.reaches(LoadPhase::End).await;
        LeaveReason::End
    }

    /// By its number, so that a short run has both.
    fn for_good(&self) -> LeaveReason {
        if self.spec.client % 8 < 4 { LeaveReason::Quit } else { LeaveReason::End }
    }

    /// Before that, nothing more is told. Everybody who watches was told at the same time.
    async fn ask_again(&self, client: &Client) {
        let pause = Duration::from_millis(u64::from(self.spec.client) * 97 % ASK_AGAIN_MS);
        let asked = async {
            sleep(pause).await;
            for room in &self.spec.rooms {
                if client.presence(room).await.is_err() {
                    // Without an answer it still hears nothing.
                    self.stale.notify_one();
                }
            }
        };
        tokio::select! {
            () = asked => {}
            () = self.shared.reaches(LoadPhase::End) => {}
        }
    }

    async fn subscribe(&self, client: &Client, room: String, held: RoomState) {
        let from = match held.last {
            Some(after) => Position::In { after, epoch: held.epoch },
            None => Position::Now,
        };
        let watches = self.spec.role == ClientRole::Watcher;
        let answer =
            if watches { client.watch(&room, from).await } else { client.subscribe(&room, from).await };
        if watches {
            self.stale.notify_one();
        }
        // anything else is told as an event
        if let Err(Error::Answer(error)) = answer {
            let (conn, code) = (self.conn.load(Relaxed), error.code.as_str().to_owned());
            self.recorder.note(&ClientEvent::Error { conn, code, message: error.message });
        }
    }

    /// Leaves a room and comes back to where it was.
    async fn step_out(&self, client: &Client, turn: u32, until: Instant) {
        let state = &self.recorder.state;
        let mut rooms = state.live();
        // Silence is measured in the beacon's room: nobody leaves it by wish.
        rooms.retain(|room| *room != self.shared.beacon_room);
        let Some(room) = rooms.get(turn as usize % rooms.len().max(1)) else { return };
        let patience = match client.unsubscribe(room).await {
            Ok(()) => ANSWER_WAIT,
            Err(_) => SOON, // without a connection it stays; if the answer was lost it is over all the same
        };
        let start = Instant::now();
        let held = loop {
            match state.held(room) {
                Some(held) if held.away => break held, // its last message is written down
                Some(_) if start.elapsed() < patience => sleep(LOOK).await,
                Some(_) | None => return,
            }
        };
        tokio::select! {
            () = sleep_until(until) => {}
            () = self.shared.leaves(LoadPhase::Run) => {}
        }
        self.subscribe(client, room.clone(), held).await;
    }

    async fn finish_sending(&self) {
        self.held.store(true, Relaxed);
        let start = Instant::now();
        while self.unanswered.load(Relaxed) > 0 && start.elapsed() < ANSWERS_WAIT {
            sleep(LOOK).await;
        }
    }

    async fn read_history(&self, client: &Client, turn: u32) {
        let rooms = &self.spec.rooms;
        let Some(room) = rooms.get(turn as usize % rooms.len().max(1)) else { return };
        let last = self.recorder.state.held(room).and_then(|held| held.last);
        let before = last.filter(|last| turn % 2 == 1 && *last > 0);
        let range = before.map_or(HistoryRange::Newest, HistoryRange::Before);
        if let Ok(HistoryPage { messages, .. }) = client.history(room, range, Some(PAGE)).await {
            let conn = self.conn.load(Relaxed);
            self.recorder.note(&page(conn, room, before, &messages));
        }
    }
}

/// The record of a page.
pub(in super::super) fn page(
    conn: u32,
    room: &str,
    before: Option<u64>,
    messages: &[Message],
) -> ClientEvent {
    let seen = |message: &Message| PageMessage {
        seq: message.seq,
        from: message.from.clone(),
        key: message.key.clone(),
        hash: hash_of(message.data.get().as_bytes()),
    };
    ClientEvent::History {
        conn,
        room: room.to_owned(),
        before,
        messages: messages.iter().map(seen).collect(),
    }
}
