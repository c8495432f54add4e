//! Who many tokens are: one call for all that wait, and one for each where a logic does not take them together.

use futures::{StreamExt, stream};
use sluice_proto::grpc::authenticate_result::Result as Verdict;
use sluice_proto::grpc::{
    AuthenticateManyReply, AuthenticateManyRequest, AuthenticateReply, AuthenticateRequest,
    AuthenticateResult,
};
use sluice_service::grpc::channels::Pick;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{Code, Status};

use super::{Calls, Client, is_of_the_way};
use crate::defaults::{AUTHENTICATE_AGAIN, AUTHENTICATE_SINGLY_MAX, CALL_WITHIN};

/// Logic's verdict on a token.
#[derive(Debug, Clone, PartialEq)]
pub enum Authenticated {
    /// Who the client is.
    Known(AuthenticateReply),
    /// The token is wrong; the text is for people.
    Invalid(String),
    /// Nobody could say in time.
    Unavailable,
}

/// A verdict, or `None` where there is none yet.
type Answer = Option<Authenticated>;

impl Calls {
    /// Asks who these tokens are, again and again until `by` while nobody answers; a verdict on each, in order. Each try
    /// has [`CALL_WITHIN`] from when it is sent.
    pub async fn authenticate(&self, tokens: &[String], by: Instant) -> Vec<Authenticated> {
        let mut answers: Vec<Answer> = vec![None; tokens.len()];
        loop {
            let open: Vec<usize> = (0..tokens.len()).filter(|n| answers[*n].is_none()).collect();
            if open.is_empty() {
                break;
            }
            let asked: Vec<String> = open.iter().map(|n| tokens[*n].clone()).collect();
            let came = self.ask_who(asked, by).await;
            let progress = came.iter().any(Option::is_some);
            for (n, answer) in open.into_iter().zip(came) {
                answers[n] = answer;
            }
            // A reply that was full is followed by the next question at once; a failure is not.
            if !progress {
                let again = Instant::now() + AUTHENTICATE_AGAIN;
                if again >= by {
                    break;
                }
                sleep_until(again).await;
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or(Authenticated::Unavailable)).collect()
    }

    /// One try, of one logic; fewer answers than tokens when it did not answer them all.
    async fn ask_who(&self, tokens: Vec<String>, by: Instant) -> Vec<Answer> {
        // Tokens are of no lane: any logic will do.
        let Ok(pick) = timeout_at(by, self.channels.pick_or_wait(rand::random())).await else {
            return Vec::new();
        };
        let try_by = Instant::now() + CALL_WITHIN;
        let asked = tokens.len();
        let request = AuthenticateManyRequest { tokens: tokens.clone() };
        let call = |mut client: Client, request| async move { client.authenticate_many(request).await };
        match self.on(&pick, request, try_by, call).await {
            Ok(AuthenticateManyReply { results }) if results.len() <= asked => {
                results.into_iter().map(answer).collect()
            }
            // A reply of another shape answers nothing.
            Ok(_) => Vec::new(),
            Err(status) if is_of_the_way(status.code()) => Vec::new(),
            // A logic of the version before knows no such call. Whatever else one has against all together, it is asked
            // about each alone: one must not be refused for another.
            Err(_) => self.ask_singly(&pick, tokens, try_by).await,
        }
    }

    async fn ask_singly(&self, pick: &Pick, tokens: Vec<String>, by: Instant) -> Vec<Answer> {
        let calls = tokens.into_iter().map(|token| {
            let request = AuthenticateRequest { token };
            let call = |mut client: Client, request| async move { client.authenticate(request).await };
            async move { answer_of_one(self.on(pick, request, by, call).await) }
        });
        stream::iter(calls).buffered(AUTHENTICATE_SINGLY_MAX).collect().await
    }
}

fn answer(result: AuthenticateResult) -> Answer {
    Some(match result.result {
        Some(Verdict::Known(reply)) => Authenticated::Known(reply),
        Some(Verdict::Invalid(text)) => Authenticated::Invalid(text),
        // A verdict that only a later version knows.
        None => Authenticated::Unavailable,
    })
}

fn answer_of_one(reply: Result<AuthenticateReply, Status>) -> Answer {
    match reply {
        Ok(reply) => Some(Authenticated::Known(reply)),
        Err(status) if status.code() == Code::Unauthenticated => {
            Some(Authenticated::Invalid(status.message().to_owned()))
        }
        Err(status) if is_of_the_way(status.code()) => None,
        // Asked again it would say the same.
        Err(_) => Some(Authenticated::Unavailable),
    }
}
