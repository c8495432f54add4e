//! A client written with the client library, as most programs will be: it publishes at its pace whatever happens, reads
//! its rooms, and writes down what the library tells. Reconnects and resends are the library's.

mod habits;
mod reading;
mod sending;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use sluice_checker::record::What;
use sluice_client::{Client, Error, Events, Options};
use tokio::time::sleep;

use super::diary::{Diary, OWN_WISH};
use super::plan::{Part, Role};
use super::world::{Phase, World};
use crate::seed::Seed;
pub(super) use habits::page;
use reading::Reading;
use sending::Sending;

/// Between two attempts of a program whose first connection fails.
const AGAIN: Duration = Duration::from_millis(500);
/// Events kept for one that stops reading: few, so that its socket feels it soon.
const EVENTS_OF_STOPPED: usize = 16;

/// What the loops of one client share.
struct Life {
    world: Arc<World>,
    part: Part,
    diary: Arc<Diary>,
    /// The connection in use.
    conn: AtomicU32,
    /// Publishes without an answer.
    unanswered: AtomicUsize,
    /// Sends nothing new: it is about to say goodbye.
    held: AtomicBool,
}

/// Why one stay with the server is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// The library gave up.
    Lost,
    /// Kindly, to come back.
    Goodbye,
    /// By cutting the connection, to come back.
    Cut,
    /// For good.
    End,
}

/// Lives until the load ends.
pub(super) async fn live(world: Arc<World>, part: Part, diary: Arc<Diary>) {
    let mut rng = Seed(world.plan.seed).stream("habits", part.client);
    let mut sending = Sending::new(&world, &part);
    let life = Life {
        world,
        part,
        diary,
        conn: AtomicU32::new(0),
        unanswered: AtomicUsize::new(0),
        held: AtomicBool::new(false),
    };
    let mut gateway = life.part.client as usize;
    let mut gathered = false;
    while life.world.phase() < Phase::End {
        let Some((client, events)) = life.connect(gateway, gathered).await else { break };
        gateway += 1;
        let leave = life.stay(client, events, &mut sending, &mut rng, &mut gathered).await;
        if leave != Leave::End {
            let pause = Duration::from_millis(rng.random_range(50..2_000));
            tokio::select! {
                () = sleep(pause) => {}
                () = life.world.leaves(Phase::Run) => {}
            }
        }
    }
    sending.give_up(&life);
    life.diary.note(&What::End);
}

impl Life {
    /// Tries until it is connected or the load ends.
    async fn connect(&self, gateway: usize, gathered: bool) -> Option<(Client, Events)> {
        let Self { world, part, diary, .. } = self;
        let place = if gathered { None } else { world.first.acquire().await.ok() };
        for attempt in 0.. {
            let mut urls = world.entrances.from(gateway + attempt).into_iter();
            let mut options = Options::new(urls.next().unwrap_or_default()).detailed();
            options = urls.fold(options, Options::or).follow(world.entrances.changes());
            if let Some(token) = world.entrances.token(&part.user) {
                options = options.token(token);
            }
            if part.role == Role::Stopped {
                options = options.events_max(EVENTS_OF_STOPPED);
            }
            let made = tokio::select! {
                made = Client::connect(options) => made,
                () = world.reaches(Phase::End) => return None,
            };
            match made {
                Ok(made) => {
                    drop(place);
                    return Some(made);
                }
                Err(Error::Connect { url, reason }) => diary.failed(url, reason),
                Err(error) => diary.failed(String::new(), error.to_string()),
            }
            tokio::select! {
                () = sleep(AGAIN) => {}
                () = world.reaches(Phase::End) => return None,
            }
        }
        None
    }

    /// One client from its first connection to its end.
    async fn stay(
        &self,
        client: Client,
        mut events: Events,
        sending: &mut Sending,
        rng: &mut SmallRng,
        gathered: &mut bool,
    ) -> Leave {
        let mut reading = Reading::default();
        self.diary.standing.come_back();
        let leave = tokio::select! {
            biased;
            leave = self.read(&mut events, &mut reading) => leave,
            leave = self.act(&client, rng, gathered) => leave,
            () = self.send(&client, sending) => Leave::Lost,
            () = self.world.reaches(Phase::End) => Leave::End, // whatever it waits for
        };
        let farewell = match leave {
            Leave::Goodbye | Leave::End => {
                client.close().await;
                "goodbye"
            }
            Leave::Cut | Leave::Lost => {
                drop(client);
                "cut"
            }
        };
        if let Some(conn) = reading.conn() {
            self.diary.closed(conn, OWN_WISH, farewell);
        }
        sending.give_up(self);
        leave
    }
}
