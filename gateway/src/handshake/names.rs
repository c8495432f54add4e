//! Which names may stand in a request: the origins of pages, and what the gateway itself is called. Pure.
//!
//! An origin is scheme, host and port (RFC 6454): compared as such, so that capitals, a default port and a trailing
//! slash of the configuration mean what people mean. What could never match is an error of the configuration.

use std::fmt;

/// The names of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Origins of pages, besides the gateway's own host.
    origins: Vec<Origin>,
    /// What the gateway itself is called, without port; none: whatever it is called.
    hosts: Vec<String>,
}

impl Names {
    /// Reads the settings `origins` and `hosts`.
    ///
    /// # Errors
    /// All entries that can never match, each with what was probably meant.
    pub fn read(origins: &[String], hosts: &[String]) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        let mut names = Self::default();
        for text in origins {
            // With a slash at the end, as people copy it from the address bar.
            match Origin::parse(text.strip_suffix('/').unwrap_or(text)) {
                Some(origin) => names.origins.push(origin),
                None => wrong.push(not_an_origin(text)),
            }
        }
        for text in hosts {
            match host_of_setting(text) {
                Ok(host) => names.hosts.push(host),
                Err(why) => wrong.push(why),
            }
        }
        if wrong.is_empty() { Ok(names) } else { Err(wrong) }
    }

    /// Whether a client may call this gateway by such a `Host`.
    #[must_use]
    pub fn is_called(&self, host: &str) -> bool {
        self.hosts.is_empty() || split_port(host).is_some_and(|(name, _)| self.hosts.contains(&name))
    }

    /// As people would write them in a sentence.
    #[must_use]
    pub fn hosts(&self) -> String {
        self.hosts.join(" or ")
    }

    /// Whether pages of this origin may connect to a gateway that they call `host`: its own, or a listed one.
    #[must_use]
    pub fn lets_in(&self, origin: &str, host: &str) -> bool {
        Origin::parse(origin).is_some_and(|origin| origin.is_at(host) || self.origins.contains(&origin))
    }
}

/// Where a page comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// A file, a sandbox: nowhere that has a name.
    Null,
    Named {
        scheme: String,
        host: String,
        /// `None` where it is the scheme's own.
        port: Option<u16>,
    },
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        if text == "null" {
            return Some(Self::Null);
        }
        let (scheme, rest) = text.split_once("://")?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(plain) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = split_port(rest)?;
        // Browsers leave out the default port, people write it: both mean the same.
        let port = port.filter(|port| Some(*port) != default_port(&scheme));
        Some(Self::Named { scheme, host, port })
    }

    /// Whether this is the origin of pages that the server called `host` would send itself. Whether it speaks TLS is not
    /// known here, as that ends in front of it: either is taken, with the default port of each.
    fn is_at(&self, host: &str) -> bool {
        match self {
            // Not `app://` and the like: a program may give itself any name there.
            Self::Named { scheme, .. } if scheme == "http" || scheme == "https" => {
                Self::parse(&format!("{scheme}://{host}")).as_ref() == Some(self)
            }
            Self::Named { .. } | Self::Null => false,
        }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// `host` or `host:port`, in small letters; an IPv6 address stands in brackets.
fn split_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.rsplit_once(':') {
        // A colon inside of brackets belongs to an IPv6 address and divides nothing.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (text, None),
    };
    let address = host.strip_prefix('[').map(|rest| rest.strip_suffix(']'));
    let usable = match address {
        Some(address) => address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            let odd = |c: char| c.is_whitespace() || c.is_control() || "/?#@\\*,:[]\"".contains(c);
            !host.is_empty() && !host.contains(odd)
        }
    };
    let digits = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    let port = port.map(str::parse::<u16>).transpose().ok()?;
    (usable && digits).then(|| (host.to_ascii_lowercase(), port))
}

fn not_an_origin(text: &str) -> String {
    let hint = match text {
        // What people try first; it would let in every page that a user has open.
        "*" => {
            "name each origin whose pages may connect; clients without an Origin are let in anyway".to_owned()
        }
        _ => match split_port(text.split("://").last().unwrap_or(text).split('/').next().unwrap_or(text)) {
            Some((host, port)) => {
                let scheme = text.split_once("://").map_or("https", |(scheme, _)| scheme);
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                format!("write scheme://host[:port], for example {scheme}://{host}{port}")
            }
            None => "write scheme://host[:port], for example https://app.example".to_owned(),
        },
    };
    format!("origins has {text:?}, which no browser sends: {hint}")
}

fn host_of_setting(text: &str) -> Result<String, String> {
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(format!("hosts has {text:?}: an IPv6 address stands in brackets, [{text}]"));
    }
    match split_port(text) {
        Some((host, None)) => Ok(host),
        Some((host, Some(_))) => Err(format!("hosts has {text:?}: write the name without its port, {host}")),
        None => Err(format!("hosts has {text:?}, which is no name: write for example chat.example")),
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hosts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(origins: &[&str]) -> Names {
        let origins: Vec<String> = origins.iter().map(|text| (*text).to_owned()).collect();
        Names::read(&origins, &[]).expect("usable")
    }

    #[test]
    fn the_own_origin_is_scheme_host_and_effective_port() {
        let lets_in = |origin: &str, host: &str| Names::default().lets_in(origin, host);
        for (origin, host) in [
            ("https://localhost", "localhost:443"),
            ("https://localhost", "LOCALHOST"),
            ("https://localhost:443", "localhost"),
            ("http://localhost", "localhost:80"),
            ("http://chat.example:8080", "chat.example:8080"),
            ("HTTPS://Chat.Example", "chat.example"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("https://[::1]", "[::1]"),
        ] {
            assert!(lets_in(origin, host), "{origin} at {host}");
        }
        for (origin, host) in [
            ("https://localhost", "localhost:80"),
            ("http://localhost", "localhost:443"),
            ("http://chat.example", "chat.example:8080"),
            ("https://chat.example.evil", "chat.example"),
            ("https://evil.example", "chat.example"),
            ("tauri://localhost", "localhost"),
            ("null", "localhost"),
            ("", "localhost"),
            ("https://", ""),
            ("https://localhost/", "localhost"),
            ("https://a@localhost", "localhost"),
            ("localhost", "localhost"),
            ("https://localhost:x", "localhost:x"),
            ("https://localhost:99999", "localhost:99999"),
        ] {
            assert!(!lets_in(origin, host), "{origin} at {host}");
        }
    }

    #[test]
    fn listed_origins_mean_what_people_mean() {
        let list = names(&["https://App.Example/", "http://app.example:80", "tauri://localhost", "null"]);
        for origin in [
            "https://app.example",
            "https://app.example:443",
            "http://app.example",
            "tauri://localhost",
            "null",
        ] {
            assert!(list.lets_in(origin, "chat.example"), "{origin}");
        }
        for origin in
            ["https://app.example:8443", "ftp://app.example", "https://app.example.evil", "https://APP.evil"]
        {
            assert!(!list.lets_in(origin, "chat.example"), "{origin}");
        }
    }

    #[test]
    fn what_can_never_match_is_named_with_what_was_meant() {
        let origins = ["*", "app.example", "https://app.example/page", "https://*.example", "", ":443"];
        let hosts = ["chat.example:443", "https://chat.example", "*", "::1", "", "a b"];
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let wrong = Names::read(&owned(&origins), &owned(&hosts)).expect_err("twelve mistakes");
        assert_eq!(wrong.len(), 12, "{wrong:#?}");
        for (text, hint) in wrong.iter().zip([
            "name each origin",
            "https://app.example",
            "https://app.example",
            "https://app.example",
            "https://app.example",
            "https://app.example",
            "without its port, chat.example",
            "chat.example",
            "chat.example",
            "[::1]",
            "chat.example",
            "chat.example",
        ]) {
            assert!(text.contains(hint), "{text}");
        }
    }

    #[test]
    fn hosts_are_compared_without_port_and_capitals() {
        let hosts = ["Localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        let names = Names::read(&[], &hosts).expect("usable");
        for host in ["localhost:8080", "LOCALHOST", "127.0.0.1:1", "[::1]:8080", "[::1]"] {
            assert!(names.is_called(host), "{host}");
        }
        for host in
            ["evil.example:8080", "127.0.0.1.evil.example", "localhost:evil", "x:127.0.0.1", "::1", ""]
        {
            assert!(!names.is_called(host), "{host}");
        }
    }
}
