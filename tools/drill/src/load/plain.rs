//! A client written from the description of the wire alone, as somebody without our library would: JSON frames over a
//! WebSocket, one connection at a time, resending by the book. It shares no code with the library that it is compared to.

mod habits;
mod heard;
mod hearing;
mod ledger;
mod side;
mod socket;
mod visit;

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use sluice_checker::record::{Outcome, What};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, sleep, timeout};

use super::diary::Diary;
use super::letter::Pen;
use super::plan::{Part, Role};
use super::world::{Phase, World};
use crate::seed::Seed;
use habits::Habits;
use heard::{Heard, Welcome};
use ledger::{GivenUp, Ledger};
use socket::{Socket, Turn};

/// Handshake and `welcome` together.
const CONNECT: Duration = Duration::from_secs(10);
/// First and longest window of the random pause before a reconnect that nobody told a time for.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// Before coming back to a server that said not to: the load goes on all the same.
const UNWANTED: Duration = Duration::from_secs(2);
/// Second connections get this long to end.
const SIDE_WAIT: Duration = Duration::from_secs(2);

/// A life: what outlives a connection.
struct Plain {
    world: Arc<World>,
    part: Part,
    diary: Arc<Diary>,
    ledger: Ledger,
    pen: Pen,
    rng: SmallRng,
    habits: Habits,
    /// Ticks of publishing, from the beginning of the run.
    ticks: Option<Interval>,
    /// Which gateway is next.
    gateway: usize,
    /// Attempts that failed since the last connection.
    failures: u32,
    gathered: bool,
    /// Second connections.
    side: JoinSet<()>,
}

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// By the server or the network; come back after this, if a time was told.
    Lost(Option<Duration>),
    /// By the client, to come back.
    Left,
    /// For good.
    End,
}

/// Lives until the load ends.
pub(super) async fn live(world: Arc<World>, part: Part, diary: Arc<Diary>) {
    let rng = Seed(world.plan.seed).stream("habits", part.client);
    let pen = Pen::new(&world.plan, &part, &world.popularity, true);
    let (ledger, gateway) = (Ledger::new(part.eager), part.client as usize);
    let side = JoinSet::new();
    let habits = Habits::default();
    let mut plain = Plain {
        world,
        part,
        diary,
        ledger,
        pen,
        rng,
        habits,
        ticks: None,
        gateway,
        failures: 0,
        gathered: false,
        side,
    };
    plain.live().await;
    let gone = plain.ledger.give_up_all();
    plain.give_up(gone);
    let sides = async { while plain.side.join_next().await.is_some() {} };
    timeout(SIDE_WAIT, sides).await.ok(); // what still runs is cut
    plain.diary.note(&What::End);
}

impl Plain {
    async fn live(&mut self) {
        while self.world.phase() < Phase::End {
            let pause = match self.connect().await {
                Ok((socket, url, welcome)) => {
                    self.failures = 0;
                    match self.visit(socket, url, welcome).await {
                        Ended::End => return,
                        Ended::Left => Duration::from_millis(self.rng.random_range(50..2_000)),
                        Ended::Lost(told) => told.unwrap_or_else(|| self.backoff()),
                    }
                }
                Err(()) => self.backoff(),
            };
            self.gateway += 1;
            self.pause(pause).await;
        }
    }

    /// What has no answer for too long is given up meanwhile; whoever left on purpose comes back at once when sending
    /// ends.
    async fn pause(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        loop {
            let phase = self.world.phase();
            let gone = match phase {
                Phase::Gather | Phase::Run | Phase::Quiet => {
                    self.ledger.give_up_before(self.world.minute_ago_us())
                }
                Phase::Settle | Phase::End => self.ledger.give_up_all(),
            };
            self.give_up(gone);
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = self.world.leaves(phase), if phase < Phase::End => {}
            }
            if self.world.phase() == Phase::End {
                return;
            }
        }
    }

    fn backoff(&mut self) -> Duration {
        let grown = BACKOFF.0.saturating_mul(1 << self.failures.min(10)).min(BACKOFF.1);
        self.failures += 1;
        grown.mul_f64(self.rng.random_range(0.2..=1.0))
    }

    async fn connect(&mut self) -> Result<(Socket, String, Welcome), ()> {
        let Self { world, part, .. } = &*self;
        let place = if self.gathered { None } else { world.first.acquire().await.ok() };
        let url = world.entrances.url(self.gateway);
        let token = world.entrances.token(&part.user);
        let made = timeout(CONNECT, enter(&url, token.as_deref(), part.role == Role::Slow)).await;
        drop(place);
        match made.unwrap_or_else(|_| Err(format!("no welcome within {CONNECT:?}"))) {
            Ok((socket, welcome)) => Ok((socket, url, welcome)),
            Err(reason) => {
                self.diary.failed(url, reason);
                Err(())
            }
        }
    }

    fn give_up(&self, gone: Vec<GivenUp>) {
        for (conn, n, first_us) in gone {
            // what was never sent nobody has heard of
            if let Some(first_us) = first_us {
                self.diary.answered(conn, n, Outcome::GaveUp, Some(first_us));
            }
        }
    }
}

/// Connects and hears `welcome`.
async fn enter(url: &str, token: Option<&str>, slow: bool) -> Result<(Socket, Welcome), String> {
    let mut socket = Socket::connect(url, token, slow).await?;
    loop {
        match socket.turn(false, true).await {
            Turn::Text(text) => {
                let heard = Heard::parse(&text)?;
                if let Some(welcome) = heard.welcome {
                    return Ok((socket, welcome));
                }
                if let Some(error) = heard.error {
                    return Err(format!("{}: {}", error.code, error.message));
                }
            }
            Turn::Close(code, reason) => return Err(format!("closed before welcome: {code:?} {reason}")),
            Turn::Broken(reason) => return Err(reason),
            Turn::Writable => sleep(Duration::ZERO).await,
        }
    }
}
