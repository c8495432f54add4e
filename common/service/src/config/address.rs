//! Where a service listens: `host:port` as written, so that a host name works. Resolves nothing.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `host:port`, its form checked; port 0 takes a free one, an IPv6 address stands in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(String);

/// The text is no `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address: write host:port, for example 127.0.0.1:7070 or [::1]:7070")]
pub struct BadAddress(String);

impl Address {
    /// A port of this machine that others cannot reach.
    #[must_use]
    pub fn local(port: u16) -> Self {
        Self(format!("127.0.0.1:{port}"))
    }

    /// The address as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether only this machine reaches it. A name that may be anything is not loopback.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.0.parse::<SocketAddr>() {
            Ok(address) => address.ip().is_loopback(),
            Err(_) => self.0.rsplit_once(':').is_some_and(|(host, _)| host == "localhost"),
        }
    }

    /// Whether it stands for every interface: to be listened on, not to be dialled.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        self.0.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified())
    }
}

impl Default for Address {
    fn default() -> Self {
        Self::local(0)
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let named = || {
            let (host, port) = text.rsplit_once(':')?;
            let host = !host.is_empty() && !host.contains([':', '[', ']', '/', ' ']);
            (host && port.parse::<u16>().is_ok()).then_some(())
        };
        if text.parse::<SocketAddr>().is_ok() || named().is_some() {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadAddress(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Address {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Self, BadAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_and_port_is_an_address() {
        for text in ["127.0.0.1:0", "[::1]:7070", "logic-0:7070", "localhost:65535"] {
            assert_eq!(text.parse::<Address>().expect(text).as_str(), text);
        }
        for text in ["", "7070", ":7070", "localhost", "::1:7070x", "::1", "h:65536", "http://h:1", "h:-1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_others_cannot_dial_is_known() {
        let unspecified = |text: &str| text.parse::<Address>().expect(text).is_unspecified();
        assert!(unspecified("0.0.0.0:7070") && unspecified("[::]:7070"));
        assert!(!unspecified("127.0.0.1:7070") && !unspecified("logic-0:7070"));
    }
}
