//! The section of the HTTP API.

use serde::{Deserialize, Serialize};
use sluice_access::read_api_keys;
use sluice_service::config::Address;

use crate::defaults::{API_CALLS_PER_S, API_SCHEDULED_PER_KEY};

/// `[api]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiSettings {
    /// Where the HTTP API is, for backends; empty: nowhere.
    pub listen: String,
    /// Names the keys that are good, with their scopes; read again when it changes.
    pub keys_file: String,
    /// Calls a second that one key may make, unless the file says otherwise; 0 = no limit.
    pub calls_per_s: u32,
    /// Messages that one key has scheduled and that wait, in whoever's name; 0 = any number.
    pub scheduled_per_key: u32,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            listen: String::new(),
            keys_file: String::new(),
            calls_per_s: API_CALLS_PER_S,
            scheduled_per_key: API_SCHEDULED_PER_KEY,
        }
    }
}

impl ApiSettings {
    /// Whether there is one.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.listen.is_empty()
    }

    /// Reads the file of keys as the API would.
    ///
    /// # Errors
    /// Why it is of no use, with its name.
    pub fn read_keys(&self) -> Result<Vec<sluice_access::ApiKeyEntry>, String> {
        let file = &self.keys_file;
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("api.keys_file {file:?} cannot be read: {error}"))?;
        read_api_keys(&text).map_err(|error| format!("api.keys_file {file:?}: {error}"))
    }

    /// What contradicts itself, each a sentence with its fix.
    pub fn check(&self) -> impl Iterator<Item = String> {
        let address = self.is_on().then(|| self.listen.parse::<Address>().err()).flatten();
        let address = address.map(|error| format!("api.listen: {error}"));
        let keys = match (self.is_on(), self.keys_file.is_empty()) {
            (true, true) => Some(
                "api.listen is set, but api.keys_file is not, so nobody could call: \
                 `sluice api-key new NAME --pub '*' --file keys.toml` makes a key and the file"
                    .to_owned(),
            ),
            (true, false) => self.read_keys().err(),
            (false, _) => None,
        };
        address.into_iter().chain(keys)
    }

    /// What strangers may hear, where they may.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let open = self.listen.parse::<Address>().is_ok_and(|address| !address.is_loopback());
        open.then(|| {
            format!(
                "api.listen is {}, where keys and messages travel as they are: put a proxy with TLS before it, or keep \
                 strangers out of that network",
                self.listen
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_needs_an_address_and_keys() {
        let check = |listen: &str, keys_file: &str| {
            let api =
                ApiSettings { listen: listen.into(), keys_file: keys_file.into(), ..ApiSettings::default() };
            (api.check().collect::<Vec<_>>().join("; "), api.warning().is_some())
        };
        assert_eq!(check("", "/none"), (String::new(), false), "off");
        assert!(check("127.0.0.1:0", "").0.contains("sluice api-key new"));
        assert!(check("127.0.0.1:0", "/none").0.contains("cannot be read"));
        assert!(check("7072", "").0.contains("write host:port"));
        assert!(check("0.0.0.0:7072", "").1 && !check("localhost:7072", "").1);
    }
}
