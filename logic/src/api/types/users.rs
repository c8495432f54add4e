//! What calls say and get that end what users have.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::names::{KnownRoomName, SessionName, UserName};
use crate::disconnect::Told;

/// Whose connections end, and what becomes of the tokens: without more than `user` those that were issued up to now are
/// refused from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DisconnectBody {
    /// The user, as tokens name it in `sub`.
    #[schema(value_type = UserName)]
    pub user: String,
    /// This connection alone, the `session` of its `welcome`; no token is revoked.
    #[schema(value_type = Option<SessionName>)]
    pub session: Option<String>,
    /// Revokes nothing: whoever is disconnected may come back.
    #[serde(default)]
    #[schema(default = false)]
    pub keep_tokens: bool,
    /// Revokes what was issued up to this second since 1970, at most 30 s ahead, instead of now.
    #[schema(minimum = 0)]
    pub issued_until: Option<u32>,
}

/// Whose subscriptions end; no connection does, and no token is revoked.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UnsubscribeBody {
    /// The user, as tokens name it in `sub`.
    #[schema(value_type = UserName)]
    pub user: String,
    /// Those of this connection alone, the `session` of its `welcome`.
    #[schema(value_type = Option<SessionName>)]
    pub session: Option<String>,
    /// Those to this room; without it to all.
    #[schema(value_type = Option<KnownRoomName>)]
    pub room: Option<String>,
}

/// All gateways have ended connections.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Disconnected {
    /// Tokens issued up to this second since 1970 are refused; absent if they are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_until: Option<u32>,
    /// How many ended.
    pub connections: u64,
    /// On which gateways.
    pub gateways: Vec<GatewayConnections>,
    /// Gateways that were not told; none where the call succeeds.
    pub unreached: Vec<Unreached>,
}

/// A gateway that has ended connections.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct GatewayConnections {
    /// Its id.
    pub instance: String,
    /// How many it had.
    pub connections: u32,
}

/// All gateways have ended subscriptions.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Unsubscribed {
    /// How many ended.
    pub subscriptions: u64,
    /// On which gateways.
    pub gateways: Vec<GatewaySubscriptions>,
    /// Gateways that were not told; none where the call succeeds.
    pub unreached: Vec<Unreached>,
}

/// A gateway that has ended subscriptions.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct GatewaySubscriptions {
    /// Its id.
    pub instance: String,
    /// How many it had.
    pub subscriptions: u32,
}

/// A gateway that is registered and was not told.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Unreached {
    /// Its id.
    pub instance: String,
    /// Why.
    pub why: String,
}

impl From<&Told> for Disconnected {
    fn from(told: &Told) -> Self {
        let gateways = told.reached.iter();
        let gateways =
            gateways.map(|(id, count)| GatewayConnections { instance: id.to_string(), connections: *count });
        Self {
            revoked_until: told.revoked_until_s,
            connections: told.ended(),
            gateways: gateways.collect(),
            unreached: unreached(told),
        }
    }
}

impl From<&Told> for Unsubscribed {
    fn from(told: &Told) -> Self {
        let gateways = told.reached.iter();
        let gateways = gateways
            .map(|(id, count)| GatewaySubscriptions { instance: id.to_string(), subscriptions: *count });
        Self { subscriptions: told.ended(), gateways: gateways.collect(), unreached: unreached(told) }
    }
}

fn unreached(told: &Told) -> Vec<Unreached> {
    let one = told.unreached.iter();
    one.map(|(id, why)| Unreached { instance: id.to_string(), why: why.clone() }).collect()
}
