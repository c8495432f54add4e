//! A client written with the client library, as most programs will be: it publishes at its pace whatever happens, reads
//! its rooms, and writes down what the library tells. Reconnects and resends are the library's.

mod behaviour;
mod events;
mod publishing;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use sluice_client::{Client, Error, Events, Options};
use sluice_judge::record::ClientEvent;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::plan::{ClientRole, ClientSpec};
use super::recorder::{OWN_WISH, Recorder};
use super::shared::{LoadPhase, LoadShared};
use crate::seed::Seed;
pub(super) use behaviour::page;
use events::EventReader;
use publishing::LibraryPublisher;

/// Between two attempts of a program whose first connection fails.
const AGAIN: Duration = Duration::from_millis(500);
/// Events kept for one that stops reading: few, so that its socket feels it soon.
const EVENTS_OF_STOPPED: usize = 16;

/// What the loops of one client share.
struct LibraryClient {
    shared: Arc<LoadShared>,
    spec: ClientSpec,
    recorder: Arc<Recorder>,
    /// The connection in use.
    conn: AtomicU32,
    /// Publishes without an answer.
    unanswered: AtomicUsize,
    /// Sends nothing new: it is about to say goodbye.
    held: AtomicBool,
    /// What it watches may have changed unheard.
    stale: Notify,
}

/// Why one stay with the server is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeaveReason {
    /// The library gave up.
    Lost,
    /// Kindly, to come back.
    Goodbye,
    /// By cutting the connection, to come back.
    Cut,
    /// For good, by cutting the connection or after it broke.
    Quit,
    /// For good, kindly.
    End,
}

/// Lives until the load ends.
pub(super) async fn live(shared: Arc<LoadShared>, spec: ClientSpec, recorder: Arc<Recorder>) {
    let mut rng = Seed(shared.plan.seed).stream("habits", spec.client);
    let mut publisher = LibraryPublisher::new(&shared, &spec);
    let library = LibraryClient {
        shared,
        spec,
        recorder,
        conn: AtomicU32::new(0),
        unanswered: AtomicUsize::new(0),
        held: AtomicBool::new(false),
        stale: Notify::new(),
    };
    let mut gateway = library.spec.client as usize;
    let mut gathered = false;
    while library.shared.phase() < LoadPhase::End {
        let Some((client, events)) = library.connect(gateway, gathered).await else { break };
        // The next gateway each time: otherwise all who leave one come back to the same.
        gateway += 1;
        let leave = library.stay(client, events, &mut publisher, &mut rng, &mut gathered).await;
        if matches!(leave, LeaveReason::Quit | LeaveReason::End) {
            break;
        }
        let pause = Duration::from_millis(rng.random_range(50..2_000));
        tokio::select! {
            () = sleep(pause) => {}
            () = library.shared.leaves(LoadPhase::Run) => {}
        }
    }
    library.recorder.state.gone();
    publisher.give_up(&library);
    library.recorder.note(&ClientEvent::End);
}

impl LibraryClient {
    /// Tries until it is connected or the load ends.
    async fn connect(&self, gateway: usize, gathered: bool) -> Option<(Client, Events)> {
        let Self { shared, spec, recorder, .. } = self;
        // Only the first time: who comes back comes when it will, also in a crowd.
        let place = if gathered { None } else { shared.first.acquire().await.ok() };
        for attempt in 0.. {
            let mut urls = shared.endpoints.from(gateway + attempt).into_iter();
            let mut options = Options::new(urls.next().unwrap_or_default()).detailed();
            options = urls
                .fold(options, Options::or)
                .follow(shared.endpoints.changes())
                .trust(shared.endpoints.trust());
            if let Some(token) = shared.endpoints.token(&spec.user) {
                options = options.token(token);
            }
            if spec.role == ClientRole::Stopped {
                // Or the library would take for it what it does not read.
                options = options.events_max(EVENTS_OF_STOPPED);
            }
            let made = tokio::select! {
                made = Client::connect(options) => made,
                () = shared.reaches(LoadPhase::End) => return None,
            };
            match made {
                Ok(made) => {
                    drop(place);
                    return Some(made);
                }
                Err(Error::Connect { url, reason }) => recorder.failed(url, reason),
                Err(error) => recorder.failed(String::new(), error.to_string()),
            }
            tokio::select! {
                () = sleep(AGAIN) => {}
                () = shared.reaches(LoadPhase::End) => return None,
            }
        }
        None
    }

    /// One client from its first connection to its end.
    async fn stay(
        &self,
        client: Client,
        mut events: Events,
        publisher: &mut LibraryPublisher,
        rng: &mut SmallRng,
        gathered: &mut bool,
    ) -> LeaveReason {
        let mut reader = EventReader::default();
        self.recorder.state.come_back();
        let leave = tokio::select! {
            // Reading first: what has come is written down before the client goes.
            biased;
            leave = self.read(&mut events, &mut reader) => leave,
            leave = self.behave(&client, rng, gathered) => leave,
            () = self.send(&client, publisher) => LeaveReason::Lost,
            () = self.shared.reaches(LoadPhase::End) => LeaveReason::End, // whatever it waits for
        };
        let farewell = match leave {
            LeaveReason::Goodbye | LeaveReason::End => {
                client.close().await;
                "goodbye"
            }
            LeaveReason::Cut | LeaveReason::Lost | LeaveReason::Quit => {
                drop(client);
                "cut"
            }
        };
        if let Some(conn) = reader.conn() {
            self.recorder.closed(conn, OWN_WISH, farewell);
        }
        publisher.give_up(self);
        leave
    }
}
