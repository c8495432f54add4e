//! What a token says of its user to whoever is in a room with them. Passed on as it is.

use std::sync::Arc;

/// What a token says of its user, as JSON. Behind one pointer: most tokens say nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserInfo(Arc<String>);

impl UserInfo {
    /// `None` when nothing is said.
    #[must_use]
    pub fn of(json: String) -> Option<Self> {
        (!json.is_empty()).then(|| Self(Arc::new(json)))
    }

    /// As JSON.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
