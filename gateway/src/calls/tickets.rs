//! Tickets: issued for a token, and taken in its place. Each is one try: a ticket that was taken by a call whose answer was
//! lost is gone, and who wanted one asks again.

use sluice_proto::grpc::{IssueTicketReply, IssueTicketRequest, TakeTicketRequest};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use super::{Authenticated, Calls, Client};
use crate::defaults::CALL_WITHIN;

/// What became of a wish for a ticket.
#[derive(Debug, Clone, PartialEq)]
pub enum Issued {
    /// The ticket, and for how long.
    Ticket(IssueTicketReply),
    /// The token is wrong; the text is for people.
    Invalid(String),
    /// Nobody could make one in time; the text is for people.
    Unavailable(String),
}

const NOBODY: &str = "no logic could say in time who asks";

impl Calls {
    /// A ticket for `token`.
    pub async fn issue_ticket(&self, token: String) -> Issued {
        let by = Instant::now() + CALL_WITHIN;
        let Ok(pick) = timeout_at(by, self.channels.pick_or_wait(rand::random())).await else {
            return Issued::Unavailable(NOBODY.to_owned());
        };
        let call = |mut client: Client, request| async move { client.issue_ticket(request).await };
        match self.on(&pick, IssueTicketRequest { token }, by, call).await {
            Ok(reply) => Issued::Ticket(reply),
            Err(status) if status.code() == Code::Unauthenticated => {
                Issued::Invalid(status.message().to_owned())
            }
            Err(status) => Issued::Unavailable(why(&status)),
        }
    }

    /// Who comes with a ticket.
    pub async fn take_ticket(&self, ticket: String) -> Authenticated {
        let by = Instant::now() + CALL_WITHIN;
        let Ok(pick) = timeout_at(by, self.channels.pick_or_wait(rand::random())).await else {
            return Authenticated::Unavailable;
        };
        let call = |mut client: Client, request| async move { client.take_ticket(request).await };
        match self.on(&pick, TakeTicketRequest { ticket }, by, call).await {
            Ok(reply) => Authenticated::Known(reply),
            Err(status) if status.code() == Code::Unauthenticated => {
                Authenticated::Invalid(status.message().to_owned())
            }
            Err(_) => Authenticated::Unavailable,
        }
    }
}

/// What logic says of itself is for whoever asked; what became of the way to it is not.
fn why(status: &Status) -> String {
    match status.code() == Code::FailedPrecondition {
        true => status.message().to_owned(),
        false => NOBODY.to_owned(),
    }
}
