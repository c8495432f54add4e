//! A new token for the connection that stands: fetched when the server says that the old one ends, handed over, and again
//! after a pause when either fails. The end of the connection ends it too: the next one begins with a token anyway.

use std::future::pending;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::RngExt as _;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::defaults::{TOKEN_AGAIN, TOKEN_AGAIN_MAX, TOKEN_TRIES};
use crate::error::Error;
use crate::tokens::{TokenError, Tokens};

/// What came of a step.
#[derive(Debug)]
pub(super) enum Renewed {
    /// The program's function has answered.
    Token(Result<String, TokenError>),
    /// The server has.
    Answer(Result<(), Error>),
}

/// The step that is under way, if there is one.
#[derive(Default)]
pub(super) struct Renewal {
    step: Option<BoxFuture<'static, Renewed>>,
    failures: u32,
    /// Of the pauses after failures.
    longest: Duration,
}

impl Renewal {
    /// Begins, unless it is under way; several tries fit into the time that is left.
    pub(super) fn begin(&mut self, tokens: &Tokens, within: Duration) {
        if self.step.is_none() {
            self.failures = 0;
            self.longest = (within / TOKEN_TRIES).clamp(TOKEN_AGAIN, TOKEN_AGAIN_MAX);
            self.fetch(tokens, Duration::ZERO);
        }
    }

    /// A step has failed: once more, after a pause.
    pub(super) fn again(&mut self, tokens: &Tokens) {
        let window = TOKEN_AGAIN.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        // Not all clients of a provider at once.
        self.fetch(tokens, window.mul_f64(rand::rng().random_range(0.5..=1.0)));
    }

    fn fetch(&mut self, tokens: &Tokens, pause: Duration) {
        let tokens = tokens.clone();
        let step = async move {
            sleep(pause).await;
            Renewed::Token(tokens.fetch().await)
        };
        self.step = Some(step.boxed());
    }

    /// The token was handed over; the server's answer comes here.
    pub(super) fn handed_over(&mut self, answer: oneshot::Receiver<Result<Option<i64>, Error>>) {
        let step = async move {
            let answer = answer.await.unwrap_or(Err(Error::Disconnected));
            Renewed::Answer(answer.map(drop))
        };
        self.step = Some(step.boxed());
    }

    /// It is done, or of no use any more.
    pub(super) fn end(&mut self) {
        self.step = None;
    }

    /// What comes of the step; waits for ever when there is none. Cancel-safe.
    pub(super) async fn next(&mut self) -> Renewed {
        let Some(step) = &mut self.step else { return pending().await };
        let renewed = step.await;
        self.step = None;
        renewed
    }
}
