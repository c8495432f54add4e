//! Who many tokens are: one call for all that wait, and one for each where a logic does not take them together.

use std::pin::pin;

use futures::{StreamExt, stream};
use sluice_proto::grpc::authenticate_result::Result as Verdict;
use sluice_proto::grpc::{
    AuthenticateManyReply, AuthenticateManyRequest, AuthenticateReply, AuthenticateRequest,
    AuthenticateResult,
};
use sluice_service::grpc::channels::Pick;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};

use super::{Calls, Client, is_of_the_way};
use crate::defaults::{AUTHENTICATE_SINGLY_MAX, CALL_WITHIN};

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

/// Verdicts, each with the place of its token.
type Verdicts = Vec<(usize, Authenticated)>;

impl Calls {
    /// Asks one logic once who these tokens are. `told` hears its verdicts: all together, or each as it comes from a logic
    /// that takes one at a time. A token without verdict is to be asked about again.
    pub async fn authenticate(&self, tokens: &[String], mut told: impl FnMut(Verdicts)) {
        // Tokens are of no lane: any logic will do.
        let Ok(pick) = timeout(CALL_WITHIN, self.channels.pick_or_wait(rand::random())).await else { return };
        let by = Instant::now() + CALL_WITHIN;
        let request = AuthenticateManyRequest { tokens: tokens.to_vec() };
        let call = |mut client: Client, request| async move { client.authenticate_many(request).await };
        match self.on(&pick, request, by, call).await {
            Ok(AuthenticateManyReply { results }) if results.len() <= tokens.len() => {
                told(results.into_iter().map(verdict).enumerate().collect());
            }
            // A reply of another shape answers nothing.
            Ok(_) => {}
            Err(status) if is_of_the_way(status.code()) => {}
            // A logic of the version before knows no such call. Whatever else one has against all together, it is asked
            // about each alone: one must not be refused for another.
            Err(_) => self.ask_singly(&pick, tokens.to_vec(), by, told).await,
        }
    }

    async fn ask_singly(
        &self,
        pick: &Pick,
        tokens: Vec<String>,
        by: Instant,
        mut told: impl FnMut(Verdicts),
    ) {
        let calls = tokens.into_iter().enumerate().map(|(place, token)| {
            let request = AuthenticateRequest { token };
            let call = |mut client: Client, request| async move { client.authenticate(request).await };
            async move { (place, verdict_on_one(self.on(pick, request, by, call).await)) }
        });
        // As they come: nobody waits for the slowest.
        let mut verdicts = pin!(stream::iter(calls).buffer_unordered(AUTHENTICATE_SINGLY_MAX));
        while let Some((place, verdict)) = verdicts.next().await {
            if let Some(verdict) = verdict {
                told(vec![(place, verdict)]);
            }
        }
    }
}

fn verdict(result: AuthenticateResult) -> Authenticated {
    match result.result {
        Some(Verdict::Known(reply)) => Authenticated::Known(reply),
        Some(Verdict::Invalid(text)) => Authenticated::Invalid(text),
        // A verdict that only a later version knows.
        None => Authenticated::Unavailable,
    }
}

/// `None`: it has none yet.
fn verdict_on_one(reply: Result<AuthenticateReply, Status>) -> Option<Authenticated> {
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
