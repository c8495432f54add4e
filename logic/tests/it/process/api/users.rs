//! Ending what users have, by the API: who may, what is answered, what becomes of the tokens. What gateways do of it
//! is tested with them.

use serde_json::json;
use sluice_access::ApiKeyEntry;
use sluice_proto::api as proto;
use sluice_proto::api::api_client::ApiClient;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

use super::kit::{KEY, Served, all};
use crate::rig::get;
use crate::stores::stores;

#[tokio::test]
async fn disconnects_and_unsubscribes_are_answered() {
    let cluster = stores().await;
    let blind = ApiKeyEntry { disconnect: Vec::new(), ..all("blind", "kb") };
    let guests = ApiKeyEntry { disconnect: vec!["guest-*".into()], ..ApiKeyEntry::of("guests", "kg") };
    let served = Served::start(&cluster, &[blind, guests]).await;
    let api = &served.api;
    // No gateway is registered, so none is left to be told.
    let done = api.post("disconnect", &json!({"user": "ann"})).await.ok();
    let until_s = done["revoked_until"].as_u64().unwrap();
    assert_eq!(
        done,
        json!({"revoked_until": until_s, "connections": 0, "gateways": [], "unreached": []}),
        "{done}"
    );
    let again = api.post("disconnect", &json!({"user": "ann", "issued_until": 7})).await.ok();
    assert_eq!(again["revoked_until"], until_s, "what is revoked stays revoked");
    let session = format!("{:032x}", 7);
    let none = json!({"connections": 0, "gateways": [], "unreached": []});
    for body in [json!({"user": "bob", "keep_tokens": true}), json!({"user": "bob", "session": session})] {
        assert_eq!(api.post("disconnect", &body).await.ok(), none, "no token is revoked: {body}");
    }
    let none = json!({"subscriptions": 0, "gateways": [], "unreached": []});
    let bodies = [
        json!({"user": "ann"}),
        json!({"user": "ann", "room": "news"}),
        json!({"user": "ann", "session": session, "room": "@ann"}),
    ];
    for body in bodies {
        assert_eq!(api.post("unsubscribe", &body).await.ok(), none, "{body}");
    }
    // Only who has the scope, and only of whom it covers.
    for (key, user) in [("kb", "ann"), ("kg", "ann"), ("kg", "guest")] {
        for call in ["disconnect", "unsubscribe"] {
            let refused = api.with_key(key).post(call, &json!({"user": user})).await;
            let problem = refused.problem();
            assert_eq!((refused.status, &problem["code"]), (403, &json!("forbidden")), "{problem}");
            assert!(problem["detail"].as_str().unwrap().contains("\"disconnect\""), "{problem}");
        }
    }
    let guests = api.with_key("kg");
    assert_eq!(guests.post("unsubscribe", &json!({"user": "guest-1"})).await.status, 200);
    assert_eq!(guests.get("info").await.ok()["key"]["disconnect"], json!(["guest-*"]));
    let metrics = get(served.logic.admin(), "/metrics").await.1;
    let counted =
        "sluice_logic_api_calls_total{key=\"test\",method=\"disconnect\",outcome=\"completed\"} 4\n";
    assert!(metrics.contains(counted), "{metrics}");
    served.end().await;
    cluster.stop().await;
}

#[tokio::test]
async fn grpc_disconnects_and_unsubscribes_too() {
    let cluster = stores().await;
    let guests = ApiKeyEntry { disconnect: vec!["guest-*".into()], ..ApiKeyEntry::of("guests", "kg") };
    let served = Served::start(&cluster, &[guests]).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", served.api.address)).unwrap();
    let mut client = ApiClient::new(endpoint.connect().await.unwrap());
    let disconnect = |user: &str| proto::DisconnectRequest { user: user.into(), ..Default::default() };
    let done = client.disconnect(with_key(disconnect("ann"), KEY)).await.unwrap().into_inner();
    assert_eq!((done.connections, done.gateways.len(), done.revoked_until_s.is_some()), (0, 0, true));
    let kept = proto::DisconnectRequest { keep_tokens: true, ..disconnect("ann") };
    assert_eq!(client.disconnect(with_key(kept, KEY)).await.unwrap().into_inner().revoked_until_s, None);
    let left = proto::UnsubscribeRequest { user: "ann".into(), room: Some("news".into()), session: None };
    assert_eq!(client.unsubscribe(with_key(left, KEY)).await.unwrap().into_inner().subscriptions, 0);
    for (request, code) in [
        (with_key(disconnect("ann"), "kg"), Code::PermissionDenied),
        (with_key(disconnect(""), KEY), Code::InvalidArgument),
    ] {
        assert_eq!(client.disconnect(request).await.unwrap_err().code(), code);
    }
    let metrics = get(served.logic.admin(), "/metrics").await.1;
    assert!(metrics.contains("method=\"unsubscribe\",outcome=\"completed\"} 1\n"), "{metrics}");
    served.end().await;
    cluster.stop().await;
}

fn with_key<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request
}
