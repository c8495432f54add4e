//! Tickets over gRPC: what they stand for is judged when they are taken, and Redis shows nobody what that is.

use std::time::Duration;

use sluice_logic::auth::{Auth, Claims, Grants};
use sluice_proto::grpc::{AuthenticateReply, IssueTicketRequest, TakeTicketRequest};
use sluice_proto::ids::UserId;
use sluice_store::Store as _;
use sluice_testing::eventually;
use tonic::Code;

use crate::rig::{Caller, SECRET, faked, starting, within};

const PATIENCE: Duration = Duration::from_secs(2);

fn token(exp: Option<f64>) -> String {
    let grants = Grants { sub: vec!["news".into()], publish: Vec::new() };
    let claims = Claims { sub: "ann".into(), exp, grants: Some(grants), ..Claims::default() };
    Auth::new(SECRET, None).sign(&claims).unwrap()
}

async fn issue(caller: &Caller, token: &str) -> Result<String, Code> {
    let request = within(PATIENCE, IssueTicketRequest { token: token.into() });
    let reply = caller.clone().issue_ticket(request).await.map_err(|status| status.code())?.into_inner();
    assert_eq!(reply.expires_in_s, 60);
    Ok(reply.ticket)
}

async fn take(caller: &Caller, ticket: &str) -> Result<AuthenticateReply, Code> {
    let request = within(PATIENCE, TakeTicketRequest { ticket: ticket.into() });
    caller.clone().take_ticket(request).await.map(tonic::Response::into_inner).map_err(|status| status.code())
}

#[tokio::test]
async fn a_ticket_is_its_token_once_and_no_longer_than_the_token() {
    let faked = faked().await;
    faked.presence.set_away(false);
    let caller = faked.rig.caller().await;
    let ticket = issue(&caller, &token(None)).await.unwrap();
    let who = take(&caller, &ticket).await.unwrap();
    assert_eq!((who.user.as_str(), who.anonymous), ("ann", false));
    assert!(who.grants.unwrap().sub.contains(&"news".to_owned()));
    assert_eq!(take(&caller, &ticket).await, Err(Code::Unauthenticated), "once");
    for wrong in ["", "x.y.z"] {
        assert_eq!(issue(&caller, wrong).await, Err(Code::Unauthenticated), "{wrong:?}");
    }
    for wrong in ["", "made up", &token(None)] {
        assert_eq!(take(&caller, wrong).await.map(|who| who.user), Err(Code::Unauthenticated), "{wrong:?}");
    }
    // Good for half a minute more, by the leeway of its end.
    let ticket = issue(&caller, &token(Some(1.0))).await.unwrap();
    faked.clock.set_ms(32_000);
    assert_eq!(take(&caller, &ticket).await.map(|who| who.user), Err(Code::Unauthenticated), "judged now");
    faked.rig.stop().await;
}

/// It says nothing of this logic, which gateways would leave alone for it.
#[tokio::test]
async fn without_redis_there_are_no_tickets_and_those_that_were_are_kept() {
    let faked = faked().await;
    faked.presence.set_away(false);
    let caller = faked.rig.caller().await;
    let ticket = issue(&caller, &token(None)).await.unwrap();
    faked.presence.set_away(true);
    assert_eq!(issue(&caller, &token(None)).await, Err(Code::FailedPrecondition));
    assert_eq!(take(&caller, &ticket).await.map(|who| who.user), Err(Code::FailedPrecondition));
    faked.presence.set_away(false);
    assert_eq!(take(&caller, &ticket).await.map(|who| who.user).as_deref(), Ok("ann"));
    faked.rig.stop().await;
}

/// It would be gone, and nobody could say whether its token is revoked.
#[tokio::test]
async fn a_logic_that_starts_takes_no_ticket() {
    let faked = faked().await;
    faked.presence.set_away(false);
    let ticket = issue(&faked.rig.caller().await, &token(None)).await.unwrap();
    let (begins, _) = starting(faked.presence.share()).await;
    let caller = begins.caller().await;
    assert_eq!(issue(&caller, &token(None)).await, Err(Code::Unavailable));
    assert_eq!(take(&caller, &ticket).await.map(|who| who.user), Err(Code::Unavailable));
    begins.stop().await;
    let taken = take(&faked.rig.caller().await, &ticket).await;
    assert_eq!(taken.map(|who| who.user).as_deref(), Ok("ann"));
    faked.rig.stop().await;
}

/// Neither a ticket that was given out before nor a new one.
#[tokio::test]
async fn a_token_that_was_revoked_has_no_ticket() {
    let faked = faked().await;
    faked.presence.set_away(false);
    let caller = faked.rig.caller().await;
    let ticket = issue(&caller, &token(None)).await.unwrap();
    faked.store.revoke(&UserId::parse("ann").unwrap(), Some(10)).await.unwrap();
    eventually("it has read of it", PATIENCE * 3, async || {
        issue(&caller, &token(None)).await == Err(Code::Unauthenticated)
    })
    .await;
    assert_eq!(take(&caller, &ticket).await.map(|who| who.user), Err(Code::Unauthenticated));
    faked.rig.stop().await;
}
