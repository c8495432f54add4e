//! Tokens that are revoked: what logic says of them, and how it hears of it.

use std::time::Duration;

use sluice_logic::auth::{Auth, Claims};
use sluice_proto::grpc::authenticate_result::Result as Verdict;
use sluice_proto::grpc::{AuthenticateManyRequest, AuthenticateRequest, RevocationsRequest};
use sluice_proto::ids::UserId;
use sluice_store::Store as _;
use sluice_testing::eventually;

use super::rig::{SECRET, faked};

/// A token of a user that was issued in this second of the rig's time.
fn token(user: &str, iat: Option<u32>) -> String {
    let claims = Claims { sub: user.into(), iat: iat.map(f64::from), ..Claims::default() };
    Auth::new(SECRET, None).sign(&claims).unwrap()
}

/// By another logic, which tells nobody.
#[tokio::test]
async fn what_another_logic_revoked_is_refused_soon_and_each_verdict_says_what_it_looked_at() {
    let faked = faked().await;
    let mut caller = faked.rig.caller().await;
    let ann = UserId::parse("ann").unwrap();
    faked.store.revoke(&ann, Some(10)).await.unwrap();
    eventually("it has read of it", Duration::from_secs(5), async || {
        let asked = caller.authenticate(AuthenticateRequest { token: token("ann", Some(10)) }).await;
        asked.is_err_and(|error| error.message().contains("revoked"))
    })
    .await;
    let tokens = [("ann", Some(11)), ("ann", None), ("bob", None), ("ann", Some(10))];
    let tokens = tokens.map(|(user, iat)| token(user, iat)).to_vec();
    let reply = caller.authenticate_many(AuthenticateManyRequest { tokens }).await.unwrap().into_inner();
    let said: Vec<_> = reply.results.into_iter().map(|one| one.result.expect("a verdict")).collect();
    let [Verdict::Known(ann), Verdict::Invalid(silent), Verdict::Known(bob), Verdict::Invalid(old)] =
        said.as_slice()
    else {
        panic!("{said:?}")
    };
    assert_eq!((ann.issued_at_s, ann.revocations), (11, Some(1)));
    assert_eq!((bob.issued_at_s, bob.revocations), (0, Some(1)), "who was never revoked need not say when");
    assert!(silent.contains("revoked") && old.contains("revoked"), "{silent}, {old}");
    faked.rig.stop().await;
}

/// A gateway that begins asks where they end, and from then on what is new.
#[tokio::test]
async fn gateways_are_told_what_is_new() {
    let faked = faked().await;
    let mut caller = faked.rig.caller().await;
    for (user, until) in [("ann", 10), ("bob", 20)] {
        faked.store.revoke(&UserId::parse(user).unwrap(), Some(until)).await.unwrap();
    }
    let mut ask = async |after| caller.revocations(RevocationsRequest { after }).await.unwrap().into_inner();
    eventually("both are read", Duration::from_secs(5), async || ask(None).await.position == 2).await;
    let named = |reply: sluice_proto::grpc::RevocationsReply| {
        let all = reply.revocations.into_iter().map(|one| (one.user, one.issued_until_s, one.position));
        (all.collect::<Vec<_>>(), reply.position, reply.more)
    };
    assert_eq!(named(ask(None).await), (vec![], 2, false));
    assert_eq!(named(ask(Some(2)).await), (vec![], 2, false));
    assert_eq!(named(ask(Some(1)).await), (vec![("bob".to_owned(), 20, 2)], 2, false));
    assert_eq!(named(ask(Some(0)).await).0.len(), 2);
    faked.rig.stop().await;
}

/// Nobody told it, and it remembers nothing that a verdict could be held against: what another logic revoked a moment ago
/// has to count from its first question on.
#[tokio::test]
async fn a_gateway_that_begins_is_told_of_what_was_revoked_just_now() {
    let faked = faked().await;
    let mut caller = faked.rig.caller().await;
    // More often than a look of the logic can fall between the two by chance.
    for position in 1..=20 {
        let user = UserId::parse(&format!("user-{position}")).unwrap();
        faked.store.revoke(&user, Some(10)).await.unwrap();
        let told = caller.revocations(RevocationsRequest { after: None }).await.unwrap().into_inner();
        assert_eq!((told.position, told.revocations.len()), (position, 0));
        let asked = caller.authenticate(AuthenticateRequest { token: token(user.as_str(), Some(10)) }).await;
        assert!(asked.is_err_and(|error| error.message().contains("revoked")), "{user}");
    }
    faked.rig.stop().await;
}
