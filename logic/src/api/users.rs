//! The calls that end what a user has, on every gateway: connections, with the tokens or without, and subscriptions.

use serde::Serialize;
use serde_json::Value;

use super::Api;
use super::keys::ApiKey;
use super::problem::{Code, Problem};
use super::types::{DisconnectBody, Disconnected, UnsubscribeBody, Unsubscribed};
use crate::disconnect::{Disconnect, Told, Unsubscribe};
use crate::error::CallError;

impl Api {
    /// Ends connections of a user, and revokes the tokens unless they are to be kept.
    ///
    /// # Errors
    /// Nothing was ended, or not on all gateways: the problem says then what was done.
    pub async fn disconnect(&self, key: &ApiKey, body: DisconnectBody) -> Result<Disconnected, Problem> {
        let DisconnectBody { user, session, keep_tokens, issued_until } = body;
        let call = Disconnect::read(&user, session.as_deref(), keep_tokens, issued_until);
        let call = call.map_err(Problem::bad)?;
        key.may_disconnect(&call.user)?;
        let told = self.core()?.disconnects.disconnect(call).await.map_err(not_ended)?;
        by_all(&told, Disconnected::from(&told))
    }

    /// Ends subscriptions of a user.
    ///
    /// # Errors
    /// Nothing was ended, or not on all gateways: the problem says then what was done.
    pub async fn unsubscribe(&self, key: &ApiKey, body: UnsubscribeBody) -> Result<Unsubscribed, Problem> {
        let UnsubscribeBody { user, session, room } = body;
        let call = Unsubscribe::read(&user, session.as_deref(), room.as_deref()).map_err(Problem::bad)?;
        key.may_disconnect(&call.user)?;
        let told = self.core()?.disconnects.unsubscribe(call).await.map_err(not_ended)?;
        by_all(&told, Unsubscribed::from(&told))
    }
}

/// The store did not answer: the tokens may be revoked or not.
fn not_ended(error: CallError) -> Problem {
    let mut problem = Problem::from(error);
    if problem.code == Code::Unavailable {
        let what = "nothing was ended, and it is not known whether tokens were revoked";
        problem.detail = format!("{what}: {}", problem.detail);
    }
    problem
}

/// The answer, if all gateways were told; else a problem with the members of the answer.
fn by_all<T: Serialize>(told: &Told, answer: T) -> Result<T, Problem> {
    let Some(missed) = told.missed() else { return Ok(answer) };
    let mut problem = Problem::new(Code::Unavailable, missed);
    if let Ok(Value::Object(members)) = serde_json::to_value(answer) {
        problem.more.extend(members);
    }
    Err(problem)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sluice_proto::ids::InstanceId;
    use sluice_store::StoreError;

    use super::*;

    fn told() -> Told {
        let id = |name: &str| InstanceId::parse(name).expect("valid");
        Told {
            revoked_until_s: Some(7),
            reached: [(id("gateway-a"), 2), (id("gateway-b"), 0)].into(),
            ..Told::default()
        }
    }

    #[test]
    fn whoever_was_not_told_makes_a_problem_that_says_what_was_done() {
        let mut told = told();
        let gateways =
            json!([{"instance": "gateway-a", "connections": 2}, {"instance": "gateway-b", "connections": 0}]);
        let done = by_all(&told, Disconnected::from(&told)).expect("all were told");
        assert_eq!(
            serde_json::to_value(done).expect("JSON"),
            json!({"revoked_until": 7, "connections": 2, "gateways": gateways, "unreached": []})
        );
        told.unreached.insert(InstanceId::parse("gateway-c").expect("valid"), "it hangs".into());
        let problem = by_all(&told, Disconnected::from(&told)).expect_err("one was not told");
        let said = problem.to_json("r");
        assert_eq!(
            (&said["status"], &said["code"], &said["retry"]),
            (&json!(503), &json!("unavailable"), &json!(true))
        );
        assert_eq!((&said["revoked_until"], &said["connections"]), (&json!(7), &json!(2)));
        assert_eq!(
            (&said["gateways"], &said["unreached"]),
            (&gateways, &json!([{"instance": "gateway-c", "why": "it hangs"}]))
        );
        assert!(
            problem.detail.contains("gateway-c") && problem.detail.contains("issued_until 7"),
            "{problem:?}"
        );
    }

    #[test]
    fn a_store_that_fails_leaves_open_what_became_of_tokens() {
        let lost = not_ended(CallError::Store(StoreError::Unknown("lost".into())));
        assert_eq!((lost.code, lost.detail.contains("not known whether tokens")), (Code::Unavailable, true));
        let full = not_ended(CallError::Full("ask again".into()));
        assert_eq!((full.code, full.detail.as_str()), (Code::NotSent, "ask again"));
        assert_eq!(not_ended(CallError::Invalid("no".into())).code, Code::BadRequest);
    }

    #[test]
    fn of_subscriptions_only_they_are_counted() {
        let told = Told { revoked_until_s: None, ..told() };
        let said = serde_json::to_value(Unsubscribed::from(&told)).expect("JSON");
        let gateways = json!([{"instance": "gateway-a", "subscriptions": 2}, {"instance": "gateway-b", "subscriptions": 0}]);
        assert_eq!(said, json!({"subscriptions": 2, "gateways": gateways, "unreached": []}));
    }
}
