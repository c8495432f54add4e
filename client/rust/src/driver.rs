//! The task behind a client: owns the connections, lets [`crate::state`] decide. A `select!` arm only waits; the work
//! is in its body. It ends when it is told to close, when nobody can tell it anything, or when the server refuses for good.

mod dial;
mod renewal;

use std::time::Duration;

use sluice_proto::wire::{Bye, ErrorCode, close};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::backoff::Backoff;
use crate::defaults::{CLOSE_WAIT, FENCE_WAIT, OLD_WAIT, SENDING_MAX};
use crate::error::Error;
use crate::event::{Event, Subscribed};
use crate::options::{Options, Position};
use crate::raw::Frame;
use crate::state::{ClientState, PendingRequest, Publish, Source, Then};
use crate::tokens::TokenError;
use crate::wire::Wire;
use dial::{GatewayDialer, Standing};
use renewal::{Renewal, Renewed};

/// What a handle asks for.
#[derive(Debug)]
pub(crate) enum DriverCommand {
    Publish(Publish),
    Subscribe(String, Position, bool, oneshot::Sender<Result<Subscribed, Error>>),
    Request(PendingRequest),
    Close(oneshot::Sender<()>),
}

/// The connection in use.
#[derive(Debug)]
struct Active {
    wire: Wire,
    /// It is silent for longer than this: gone.
    patience: Duration,
    heard: Instant,
    /// The server said that it would close by then.
    until: Option<Instant>,
    bye: Option<Bye>,
}

/// A connection left behind by a move: read for answers until none is missing.
#[derive(Debug)]
struct Old {
    wire: Wire,
    until: Instant,
    leaving: bool,
}

pub(crate) struct Driver {
    state: ClientState,
    active: Option<Active>,
    old: Option<Old>,
    dialer: GatewayDialer,
    renewal: Renewal,
    commands: mpsc::Receiver<DriverCommand>,
    events: mpsc::Sender<Event>,
    /// Events in `state` above which the socket is not read.
    events_max: usize,
}

/// What woke the driver.
#[expect(clippy::large_enum_variant, reason = "one lives at a time, on the stack")]
enum Woken {
    Command(Option<DriverCommand>),
    Delivered,
    ReaderGone,
    Frame(Option<Frame>),
    OldFrame(Option<Frame>),
    Dialled(Result<Standing, Error>),
    Renewed(Renewed),
    Timer,
}

impl Driver {
    /// Makes the first connection.
    pub(crate) async fn connect(
        options: Options,
        commands: mpsc::Receiver<DriverCommand>,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, Error> {
        let (events_max, detailed) = (options.events_max, options.detailed);
        let backoff = Backoff::new(options.backoff);
        let tokens = options.tokens.of_its_own();
        let mut dialer = GatewayDialer::new(Options { tokens, ..options }, backoff);
        let standing = dialer.first().await?;
        let state = ClientState::new(detailed);
        let renewal = Renewal::default();
        let mut driver =
            Self { state, active: None, old: None, dialer, renewal, commands, events, events_max };
        driver.attach(standing);
        Ok(driver)
    }

    pub(crate) async fn run(mut self) {
        loop {
            // Before each wait, as any event may have made space on the socket.
            self.pump();
            // Also when nothing is heard on it: the server would wait for its clients until the end of the stage.
            self.leave_old();
            let outcome = match self.wait().await {
                Woken::Command(Some(DriverCommand::Close(done))) => {
                    self.goodbye().await;
                    drop(done);
                    Err(Error::Closed)
                }
                Woken::Command(None) => Err(Error::Closed),
                Woken::Command(Some(command)) => {
                    self.command(command);
                    Ok(())
                }
                Woken::Frame(Some(frame)) => self.frame(frame),
                Woken::OldFrame(Some(frame)) => {
                    self.old_frame(&frame);
                    Ok(())
                }
                Woken::Dialled(result) => self.dialled(result),
                Woken::Renewed(renewed) => self.renewed(renewed),
                Woken::Timer => self.timer(),
                // Nobody reads events, but publishes go on: they have receipts of their own.
                Woken::ReaderGone => {
                    self.state.events.clear();
                    Ok(())
                }
                Woken::Delivered | Woken::Frame(None) | Woken::OldFrame(None) => Ok(()),
            };
            if let Err(error) = outcome {
                return self.end(&error).await;
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        // A reader that is behind stops the socket: TCP tells the server, which sends `skipped` in
        // the end.
        let reading = self.state.events.len() < self.events_max;
        let timer = self.next_timer();
        // A server that takes nothing must not fill our memory with requests.
        let full = self.active.as_ref().is_some_and(|active| active.wire.unsent() >= SENDING_MAX * 2);
        let (active, old) = (self.active.as_mut(), self.old.as_mut());
        let front = self.state.events.front().is_some();
        tokio::select! {
            // Delivery first, as it makes space; the timer last, as what was heard may move it.
            biased;
            // Reserve, not send: a dropped `send` would lose its event.
            permit = self.events.reserve(), if front => match (permit, self.state.events.pop_front()) {
                (Ok(permit), Some(event)) => {
                    permit.send(event);
                    Woken::Delivered
                }
                (Ok(_), None) => Woken::Delivered,
                (Err(_), _) => Woken::ReaderGone,
            },
            // Before frames: the next one may say that the new token ends as well.
            renewed = self.renewal.next() => Woken::Renewed(renewed),
            frame = step(active.map(|active| &mut active.wire), reading) => Woken::Frame(frame),
            frame = step(old.map(|old| &mut old.wire), true) => Woken::OldFrame(frame),
            command = self.commands.recv(), if !full => Woken::Command(command),
            result = self.dialer.dial() => Woken::Dialled(result),
            () = sleep_until(timer) => Woken::Timer,
        }
    }

    /// Moves publishes from the outbox to the socket, a few at a time.
    fn pump(&mut self) {
        let Some(active) = &mut self.active else { return };
        // A few at a time: what is still in the outbox is not sent twice when the connection
        // breaks.
        while active.wire.unsent() < SENDING_MAX
            && let Some(text) = self.state.next_publish()
        {
            active.wire.push(text);
        }
    }

    fn command(&mut self, command: DriverCommand) {
        let text = match command {
            DriverCommand::Publish(publish) => {
                self.state.publish(publish);
                None
            }
            DriverCommand::Subscribe(room, from, watches, reply) => {
                let text = self.state.subscribe(room.clone(), from, watches, reply);
                // Without a connection it is asked by `attach`, with all others.
                if text.is_some() && self.active.is_some() {
                    self.state.asked(&room);
                }
                text
            }
            DriverCommand::Request(request) if self.active.is_none() => {
                request.fail(&Error::Disconnected);
                None
            }
            DriverCommand::Request(request) => self.state.request(request),
            DriverCommand::Close(_) => None, // handled where the loop can end
        };
        if let (Some(active), Some(text)) = (&mut self.active, text) {
            active.wire.push(text);
        }
    }

    fn frame(&mut self, frame: Frame) -> Result<(), Error> {
        let Some(active) = &mut self.active else { return Ok(()) };
        // Any frame is a sign of life, pongs too.
        active.heard = Instant::now();
        match frame {
            Frame::Text(text) => match self.state.frame(&text, Source::Active) {
                Then::Nothing => {}
                // Nothing new is sent until the server says `bye`: what was answered `retry` would
                // be overtaken.
                Then::Fenced => active.until = Some(active.heard + FENCE_WAIT),
                Then::Keep(token) => self.dialer.tokens().keep(token),
                Then::Renew(within) if self.dialer.tokens().has_source() => {
                    self.renewal.begin(self.dialer.tokens(), within);
                }
                Then::Renew(_) => {}
                Then::Leave(bye) => active.bye = Some(bye),
                Then::Move(drain) => self.dialer.begin_as_told(drain.reconnect_ms),
                Then::Reconnect(why) => return self.lost(None, why),
            },
            Frame::Binary(_) | Frame::Ping | Frame::Pong => {}
            Frame::Close { code, reason } => return self.lost(Some(code), reason),
            Frame::End(reason) => return self.lost(None, reason),
        }
        Ok(())
    }

    fn old_frame(&mut self, frame: &Frame) {
        match frame {
            // Of an old connection only answers count; messages come by the new one.
            Frame::Text(text) => {
                self.state.frame(text, Source::Old);
            }
            Frame::Close { .. } | Frame::End(_) => self.forget_old(),
            Frame::Binary(_) | Frame::Ping | Frame::Pong => {}
        }
    }

    /// Says goodbye on the connection that was left behind, as soon as nothing is to come by it.
    fn leave_old(&mut self) {
        if let Some(old) = &mut self.old
            && !old.leaving
            // Kept for the answers it owes: closing it early would lose them, and the publishes be
            // sent again.
            && !self.state.needs_old()
        {
            old.leaving = true;
            old.wire.push_close();
        }
    }

    fn forget_old(&mut self) {
        self.old = None;
        // Requests that only it could answer.
        self.state.detach_old();
    }

    /// The active connection is gone.
    fn lost(&mut self, code: Option<u16>, reason: String) -> Result<(), Error> {
        let Some(active) = self.active.take() else { return Ok(()) };
        self.old = None;
        self.state.detach();
        self.renewal.end();
        let told = active.bye.as_ref().map(|bye| bye.code);
        // With another token it makes sense.
        let replaces = code.or(told) == Some(close::UNAUTHORIZED) && self.dialer.tokens().has_source();
        if replaces {
            self.dialer.tokens().refused(None);
        }
        let may_return = active.bye.as_ref().is_none_or(|bye| bye.reconnect);
        // 4500…4999: coming back makes no sense, whatever the reason.
        let reconnects = replaces || may_return && !code.is_some_and(|code| (4500..5000).contains(&code));
        self.state.events.push_back(Event::Closed { code, reason: reason.clone(), reconnects });
        if !reconnects {
            let why = active.bye.map_or(reason, |bye| bye.reason);
            return Err(Error::Refused(why));
        }
        match active.bye.and_then(|bye| bye.reconnect_ms) {
            Some(pause) => self.dialer.begin_as_told(pause),
            None => self.dialer.begin(),
        }
        self.state.events.extend(self.dialer.announcement());
        Ok(())
    }

    fn dialled(&mut self, result: Result<Standing, Error>) -> Result<(), Error> {
        match result {
            Ok(standing) => self.attach(standing),
            // While a connection stands a refusal of another gateway ends nothing.
            Err(error @ (Error::Refused(_) | Error::TokenNeeded))
                if self.active.is_none() && !self.dialer.may_do_better() =>
            {
                return Err(error);
            }
            Err(error) => {
                tracing::debug!(%error, "no connection");
                if let (Error::Connect { url, reason }, true) = (error, self.state.detailed) {
                    self.state.events.push_back(Event::Dialled { url, failed: Some(reason) });
                }
                self.dialer.failed();
                if self.active.is_none() {
                    self.state.events.extend(self.dialer.announcement());
                }
            }
        }
        Ok(())
    }

    /// A step towards another token has ended.
    fn renewed(&mut self, renewed: Renewed) -> Result<(), Error> {
        let tokens = self.dialer.tokens().clone();
        match renewed {
            Renewed::Token(Ok(token)) => {
                let (reply, answer) = oneshot::channel();
                self.renewal.handed_over(answer);
                self.command(DriverCommand::Request(PendingRequest::Refresh(token, reply)));
            }
            // The connection stands until the old one ends; then nobody would have another.
            Renewed::Token(Err(TokenError::Over(why))) => tracing::debug!(why, "no other token"),
            Renewed::Token(Err(error @ TokenError::Later(_))) => {
                tracing::debug!(%error, "no other token yet");
                self.renewal.again(&tokens);
            }
            Renewed::Answer(Ok(())) | Renewed::Answer(Err(Error::Disconnected)) => {}
            Renewed::Answer(Err(error)) => {
                tracing::debug!(%error, "the new token was not taken");
                if matches!(&error, Error::Answer(error) if error.code == ErrorCode::Unauthorized) {
                    tokens.refused(None);
                }
                self.renewal.again(&tokens);
            }
        }
        Ok(())
    }

    /// Makes a new connection the active one. What was active is kept for the answers it may still bring.
    fn attach(&mut self, standing: Standing) {
        let now = Instant::now();
        let Standing { mut wire, url, welcome, patience } = standing;
        if self.state.detailed {
            self.state.events.push_back(Event::Dialled { url, failed: None });
        }
        for text in self.state.attach(welcome) {
            wire.push(text);
        }
        let active = Active { wire, patience, heard: now, until: None, bye: None };
        // It began with the newest token that there was.
        self.renewal.end();
        // A move: the former connection has answers on the way.
        let before = self.active.replace(active);
        self.old = before.map(|before| Old { wire: before.wire, until: now + OLD_WAIT, leaving: false });
    }

    fn next_timer(&self) -> Instant {
        // `sleep_until` needs some instant; an hour is never reached without another event.
        let far = Instant::now() + Duration::from_secs(3600);
        let active = self.active.as_ref().map(|active| {
            let silent = active.heard + active.patience;
            active.until.map_or(silent, |until| until.min(silent))
        });
        let old = self.old.as_ref().map(|old| old.until);
        [active, old].into_iter().flatten().min().unwrap_or(far)
    }

    fn timer(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.old.as_ref().is_some_and(|old| old.until <= now) {
            self.forget_old();
        }
        let Some(active) = &mut self.active else { return Ok(()) };
        if self.state.events.len() >= self.events_max {
            active.heard = now; // it is we who do not listen
        }
        if active.until.is_some_and(|until| until <= now) {
            return self.lost(None, "the server did not close after retry:true".into());
        }
        if active.heard + active.patience <= now {
            let why = format!("nothing heard for {:?}", active.patience);
            return self.lost(None, why);
        }
        Ok(())
    }

    async fn goodbye(&mut self) {
        let Some(mut active) = self.active.take() else { return };
        active.wire.push_close();
        // Read until the close is answered: a socket dropped with unread bytes is reset, and the
        // last frames with it.
        let answered = async {
            while !matches!(active.wire.step(true).await, Some(Frame::Close { .. } | Frame::End(_))) {}
        };
        timeout(CLOSE_WAIT, answered).await.ok(); // one that does not answer has had its time
    }

    /// Answers whoever waits, and hands over the last events as far as the reader takes them at once.
    async fn end(mut self, error: &Error) {
        self.commands.close();
        // Their callers wait for a reply: `end` answers them.
        while let Ok(command) = self.commands.try_recv() {
            self.command(command);
        }
        self.state.end(error);
        let deliver = async {
            for event in self.state.events.drain(..) {
                if self.events.send(event).await.is_err() {
                    return;
                }
            }
        };
        timeout(CLOSE_WAIT, deliver).await.ok(); // a reader that is away does not keep the task alive
    }
}

/// The next frame of a connection, if there is one; else waits for ever.
async fn step(wire: Option<&mut Wire>, read: bool) -> Option<Frame> {
    match wire {
        Some(wire) => wire.step(read).await,
        None => std::future::pending().await,
    }
}
