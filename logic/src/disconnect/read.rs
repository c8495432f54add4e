//! What callers say, as they say it, and what they are told: the same for operators and for the API.

use sluice_proto::ids::{RoomId, SessionId, UserId};

use super::{Disconnect, Tokens, Told, Unsubscribe};

impl Disconnect {
    /// Tokens are revoked unless it is said otherwise, or a session is meant.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn read(
        user: &str,
        session: Option<&str>,
        keep_tokens: bool,
        issued_until_s: Option<u32>,
    ) -> Result<Self, String> {
        let (user, session) = whose(user, session)?;
        let tokens = match (keep_tokens || session.is_some(), issued_until_s) {
            (true, Some(_)) => return Err("issued_until is for tokens that are revoked".into()),
            (true, None) => Tokens::Keep,
            (false, issued_until_s) => Tokens::Revoke { issued_until_s },
        };
        Ok(Self { user, session, tokens })
    }
}

impl Unsubscribe {
    /// From all rooms where none is said.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn read(user: &str, session: Option<&str>, room: Option<&str>) -> Result<Self, String> {
        let (user, session) = whose(user, session)?;
        let room = room.map(RoomId::parse).transpose().map_err(|error| error.to_string())?;
        Ok(Self { user, session, room })
    }
}

impl Told {
    /// Who was not told, and how to ask again; `None` when all were.
    #[must_use]
    pub fn missed(&self) -> Option<String> {
        if self.unreached.is_empty() {
            return None;
        }
        let names: Vec<&str> = self.unreached.keys().map(|id| id.as_str()).collect();
        // Asked again without it, whoever came with a newer token meanwhile would be refused, too.
        let until = self.revoked_until_s.map(|until_s| format!(" with issued_until {until_s}"));
        Some(format!("not told: {}; ask again{}", names.join(", "), until.unwrap_or_default()))
    }

    /// Connections or subscriptions that ended, on all gateways.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.reached.values().map(|count| u64::from(*count)).sum()
    }
}

fn whose(user: &str, session: Option<&str>) -> Result<(UserId, Option<SessionId>), String> {
    let user = UserId::parse(user).map_err(|error| error.to_string())?;
    let no_session = || "session must be the 32 hex digits of a welcome".to_owned();
    let session = session.map(|id| SessionId::parse(id).ok_or_else(no_session)).transpose()?;
    Ok((user, session))
}

#[cfg(test)]
mod tests {
    use sluice_proto::ids::InstanceId;

    use super::*;

    #[test]
    fn who_was_not_told_is_named_with_the_second_to_ask_again_with() {
        let id = |name: &str| InstanceId::parse(name).expect("valid");
        let mut told =
            Told { reached: [(id("gateway-a"), 2), (id("gateway-b"), 3)].into(), ..Told::default() };
        assert_eq!((told.missed(), told.ended()), (None, 5));
        told.unreached.insert(id("gateway-c"), "it does not answer in time".into());
        assert_eq!(told.missed().as_deref(), Some("not told: gateway-c; ask again"));
        told.revoked_until_s = Some(7);
        assert_eq!(told.missed().as_deref(), Some("not told: gateway-c; ask again with issued_until 7"));
    }
}
