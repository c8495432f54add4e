//! A client written from the description of the wire alone, as somebody without our library would: JSON frames over a
//! WebSocket, one connection at a time, resending by the book. It shares no code with the library that it is compared to.

mod behaviour;
mod connection;
mod frame;
mod on_frame;
mod resend;
mod second_connection;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use sluice_client::Trust;
use sluice_judge::record::{ClientEvent, PublishOutcome};
use sluice_load::comeback::Comeback;
use sluice_load::server_frame::{ServerFrame, WelcomeFrame};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, sleep, timeout};

use super::message::MessageGenerator;
use super::plan::{ClientRole, ClientSpec};
use super::recorder::Recorder;
use super::shared::{LoadPhase, LoadShared};
use crate::seed::Seed;
use behaviour::Behaviour;
use resend::{GivenUp, ResendQueue};
use socket::{ConnectError, Socket, Turn};

/// Handshake and `welcome` together.
const CONNECT: Duration = Duration::from_secs(10);
/// Before coming back to a server that said not to: the load goes on all the same.
const UNWANTED: Duration = Duration::from_secs(2);
/// Second connections get this long to end.
const SIDE_WAIT: Duration = Duration::from_secs(2);

/// A life: what outlives a connection.
struct PlainClient {
    shared: Arc<LoadShared>,
    spec: ClientSpec,
    recorder: Arc<Recorder>,
    resends: ResendQueue,
    generator: MessageGenerator,
    rng: SmallRng,
    behaviour: Behaviour,
    /// Ticks of publishing, from the beginning of the run.
    ticks: Option<Interval>,
    /// Which gateway is next.
    gateway: usize,
    comeback: Comeback,
    gathered: bool,
    /// Second connections.
    second_connection: JoinSet<()>,
}

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionEnd {
    /// By the server or the network; come back after this, if a time was told.
    Lost(Option<Duration>),
    /// By the client, to come back.
    Left,
    /// For good.
    End,
}

/// Lives until the load ends.
pub(super) async fn live(shared: Arc<LoadShared>, spec: ClientSpec, recorder: Arc<Recorder>) {
    let rng = Seed(shared.plan.seed).stream("habits", spec.client);
    let generator = MessageGenerator::new(&shared.plan, &spec, &shared.popularity, true);
    let (resends, gateway) = (ResendQueue::new(spec.eager), spec.client as usize);
    let second_connection = JoinSet::new();
    let behaviour = Behaviour::default();
    let mut plain = PlainClient {
        shared,
        spec,
        recorder,
        resends,
        generator,
        rng,
        behaviour,
        ticks: None,
        gateway,
        comeback: Comeback::default(),
        gathered: false,
        second_connection,
    };
    plain.live().await;
    let gone = plain.resends.give_up_all();
    plain.give_up(gone);
    let sides = async { while plain.second_connection.join_next().await.is_some() {} };
    // Before the last line: what they write down belongs to this client.
    timeout(SIDE_WAIT, sides).await.ok(); // what still runs is cut
    plain.recorder.note(&ClientEvent::End);
}

impl PlainClient {
    async fn live(&mut self) {
        while self.shared.phase() < LoadPhase::End {
            let pause = match self.connect().await {
                Ok((socket, url, welcome)) => {
                    self.comeback.connected();
                    match self.run_connection(socket, url, welcome).await {
                        ConnectionEnd::End => return,
                        ConnectionEnd::Left => Duration::from_millis(self.rng.random_range(50..2_000)),
                        ConnectionEnd::Lost(told) => self.pause_before_return(told),
                    }
                }
                Err(retry_after_s) => {
                    self.failed(retry_after_s);
                    self.pause_before_return(None)
                }
            };
            // Also after a success: the gateway that was left is the last to come back to.
            let until = self.next_gateway(pause);
            self.pause(until).await;
        }
    }

    /// What has no answer for too long is given up meanwhile; whoever left on purpose comes back at once when sending
    /// ends.
    async fn pause(&mut self, until: Instant) {
        loop {
            let phase = self.shared.phase();
            let gone = match phase {
                LoadPhase::Gather | LoadPhase::Run | LoadPhase::Quiet => {
                    self.resends.give_up_before(self.shared.minute_ago_us())
                }
                LoadPhase::Settle | LoadPhase::End => self.resends.give_up_all(),
            };
            self.give_up(gone);
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = self.shared.leaves(phase), if phase < LoadPhase::End => {}
            }
            if self.shared.phase() == LoadPhase::End {
                return;
            }
        }
    }

    fn pause_before_return(&mut self, told: Option<Duration>) -> Duration {
        self.comeback.pause(told, self.shared.endpoints.count(), self.rng.random())
    }

    /// An attempt failed: a gateway that told when it may be asked again is left alone so long.
    fn failed(&mut self, retry_after_s: Option<u64>) {
        let (gateways, random) = (self.shared.endpoints.count().max(1), self.rng.random());
        self.comeback.failed();
        if let Some(after_s) = retry_after_s {
            self.comeback.refused(self.gateway % gateways, after_s, Instant::now().into_std(), random);
        }
    }

    /// Whose turn is next, after a pause or when it may be asked; when that is.
    fn next_gateway(&mut self, pause: Duration) -> Instant {
        let (turn, at) = (self.gateway + 1, (Instant::now() + pause).into_std());
        let (turn, at) = self.comeback.choose(turn, self.shared.endpoints.count(), at);
        self.gateway = turn;
        Instant::from_std(at)
    }

    /// With [`ConnectError::retry_after_s`] when that fails.
    async fn connect(&mut self) -> Result<(Socket, String, WelcomeFrame), Option<u64>> {
        let Self { shared, spec, .. } = &*self;
        let place = if self.gathered { None } else { shared.first.acquire().await.ok() };
        let url = shared.endpoints.url(self.gateway);
        let (token, trust) = (shared.endpoints.token(&spec.user), shared.endpoints.trust());
        let is_slow = spec.role == ClientRole::Slow;
        let made = timeout(CONNECT, enter(&url, token.as_deref(), &trust, is_slow)).await;
        drop(place);
        match made.unwrap_or_else(|_| Err(format!("no welcome within {CONNECT:?}").into())) {
            Ok((socket, welcome)) => Ok((socket, url, welcome)),
            Err(ConnectError { reason, retry_after_s }) => {
                self.recorder.failed(url, reason);
                Err(retry_after_s)
            }
        }
    }

    fn give_up(&self, gone: Vec<GivenUp>) {
        for (conn, n, first_us) in gone {
            // what was never sent nobody has heard of
            if let Some(first_us) = first_us {
                self.recorder.answered(conn, n, PublishOutcome::GaveUp, Some(first_us));
            }
        }
    }
}

/// Connects and hears `welcome`.
async fn enter(
    url: &str,
    token: Option<&str>,
    trust: &Trust,
    slow: bool,
) -> Result<(Socket, WelcomeFrame), ConnectError> {
    let mut socket = Socket::connect(url, token, trust, slow).await?;
    loop {
        match socket.turn(false, true).await {
            Turn::Text(text) => {
                let frame = ServerFrame::parse(&text)?;
                if let Some(welcome) = frame.welcome {
                    return Ok((socket, welcome));
                }
                if let Some(error) = frame.error {
                    return Err(format!("{}: {}", error.code, error.message).into());
                }
            }
            Turn::Close(code, reason) => {
                return Err(format!("closed before welcome: {code:?} {reason}").into());
            }
            Turn::Broken(reason) => return Err(reason.into()),
            // Nothing was to be written: others have their turn before the next look.
            Turn::Writable => sleep(Duration::ZERO).await,
        }
    }
}

#[cfg(test)]
mod tests;
