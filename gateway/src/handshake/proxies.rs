//! Where a client really comes from, when a proxy stands before the gateway. Only what a trusted proxy says counts:
//! anybody can write a header. Pure.
//!
//! A proxy says it by the PROXY protocol, version 2, before the request, or in `Forwarded` (RFC 7239) or
//! `X-Forwarded-For`, where each proxy adds whom it was called by: from the right, the first that is not trusted.

use std::net::IpAddr;

use http::header::{FORWARDED, HeaderName};
use ipnet::IpNet;
use ppp::v2::{self, Addresses, Command};

use super::head::Head;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies that are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies(Vec<IpNet>);

/// What stands before a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Prefix {
    /// It is not complete.
    More,
    /// Nothing: the request begins at once.
    None,
    /// A header of the PROXY protocol of so many bytes, and the address in it: none for what the proxy asks itself.
    Proxy(usize, Option<IpAddr>),
    /// A header of that protocol which cannot be read, or comes from somebody who is not believed.
    Refused(&'static str),
}

impl Proxies {
    /// Reads the setting `trusted_proxies`.
    ///
    /// # Errors
    /// All entries that are neither an address nor a network.
    pub fn read(texts: &[String]) -> Result<Self, Vec<String>> {
        let read = |text: &String| {
            let address = text.parse::<IpAddr>().map(IpNet::from).ok();
            address.or_else(|| text.parse::<IpNet>().ok()).ok_or_else(|| {
                format!("trusted_proxies has {text:?}: write an address or a network, for example 10.0.0.0/8")
            })
        };
        let (nets, wrong): (Vec<_>, Vec<_>) = texts.iter().map(read).partition(Result::is_ok);
        if wrong.is_empty() {
            Ok(Self(nets.into_iter().filter_map(Result::ok).collect()))
        } else {
            Err(wrong.into_iter().filter_map(Result::err).collect())
        }
    }

    /// Whether this address is a proxy of ours.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        // A socket for both families shows an IPv4 proxy as `::ffff:…`, which no network of the setting holds.
        let address = address.to_canonical();
        self.0.iter().any(|net| net.contains(&address))
    }

    /// What stands before the request of a connection that came from `peer`.
    #[must_use]
    pub fn prefix(&self, peer: Option<IpAddr>, bytes: &[u8]) -> Prefix {
        let signature = v2::PROTOCOL_PREFIX;
        // Byte by byte as they come: the signature may arrive in parts.
        let begun = bytes.len().min(signature.len());
        if bytes[..begun] != signature[..begun] {
            return Prefix::None;
        }
        // No HTTP request begins like this: it is worth waiting for the rest.
        if begun < signature.len() {
            return Prefix::More;
        }
        // Refused, not passed over: with it in front what follows is no request either.
        if !peer.is_some_and(|peer| self.trusts(peer)) {
            return Prefix::Refused("the PROXY protocol is only understood from trusted_proxies");
        }
        match v2::Header::try_from(bytes) {
            Ok(header) => {
                let from = match (header.command, header.addresses) {
                    (Command::Proxy, Addresses::IPv4(of)) => Some(IpAddr::V4(of.source_address)),
                    (Command::Proxy, Addresses::IPv6(of)) => Some(IpAddr::V6(of.source_address)),
                    // LOCAL: the proxy asks for itself, to see whether we are well.
                    _ => None,
                };
                Prefix::Proxy(header.len(), from)
            }
            Err(v2::ParseError::Incomplete(_) | v2::ParseError::Partial(..)) => Prefix::More,
            Err(_) => Prefix::Refused("this header of the PROXY protocol cannot be read"),
        }
    }

    /// The client of a request that was sent by `peer`.
    pub(super) fn client(&self, peer: IpAddr, head: &Head) -> IpAddr {
        // One of the two: a proxy that writes the one leaves the other as a stranger has sent it.
        let said: Vec<&str> = if head.headers.contains_key(FORWARDED) {
            head.entries(&FORWARDED).map(forwarded_for).collect()
        } else {
            head.entries(&X_FORWARDED_FOR).collect()
        };
        let mut client = peer;
        for said in said.iter().rev() {
            if !self.trusts(client) {
                break;
            }
            // What the proxy could not name is the proxy's own.
            let Some(before) = address(said) else { break };
            client = before;
        }
        client.to_canonical()
    }
}

/// The value of `for` in `for=…;proto=…`.
fn forwarded_for(entry: &str) -> &str {
    let pairs = entry.split(';').filter_map(|pair| pair.split_once('='));
    let mut found = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    found.next().map_or("", |(_, value)| value.trim().trim_matches('"'))
}

/// An address with or without port and brackets.
fn address(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split(']').next()?.parse().ok();
    }
    let bare = text.parse().ok();
    bare.or_else(|| text.rsplit_once(':').and_then(|(address, _)| address.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies() -> Proxies {
        Proxies::read(&["10.0.0.0/8".to_owned(), "fd00::1".to_owned()]).expect("usable")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn client(peer: &str, lines: &str) -> String {
        let text = format!("GET /ws HTTP/1.1\r\n{lines}\r\n");
        let head = Head::read(text.as_bytes()).expect("readable").expect("complete");
        proxies().client(ip(peer), &head).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        assert_eq!(client("10.0.0.1", "X-Forwarded-For: 192.0.2.7\r\n"), "192.0.2.7");
        assert_eq!(client("198.51.100.1", "X-Forwarded-For: 192.0.2.7\r\n"), "198.51.100.1");
        assert_eq!(client("fd00::1", "Forwarded: for=192.0.2.7;proto=https\r\n"), "192.0.2.7");
        assert_eq!(
            client("10.0.0.1", "Forwarded: proto=https;For=\"[2001:db8::1]:4711\"\r\n"),
            "2001:db8::1"
        );
        assert_eq!(client("::ffff:10.0.0.1", "X-Forwarded-For: 192.0.2.7:80\r\n"), "192.0.2.7");
        assert_eq!(client("10.0.0.1", ""), "10.0.0.1");
    }

    #[test]
    fn what_a_client_writes_in_front_counts_for_nothing() {
        let lines = "X-Forwarded-For: 1.1.1.1, 192.0.2.7\r\nX-Forwarded-For: 10.0.0.2\r\n";
        assert_eq!(client("10.0.0.1", lines), "192.0.2.7");
        assert_eq!(client("10.0.0.1", "X-Forwarded-For: 1.1.1.1, unknown\r\n"), "10.0.0.1");
        assert_eq!(client("10.0.0.1", "Forwarded: for=_hidden\r\nX-Forwarded-For: 1.1.1.1\r\n"), "10.0.0.1");
    }

    #[test]
    fn the_proxy_protocol_stands_before_the_request() {
        let addresses = v2::IPv4::new([192, 0, 2, 7], [10, 0, 0, 9], 4711, 8080);
        let header =
            v2::Builder::with_addresses(v2::Version::Two | Command::Proxy, v2::Protocol::Stream, addresses)
                .build()
                .expect("a header");
        let bytes = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
        let peer = Some(ip("10.0.0.1"));
        for end in 0..header.len() {
            assert_eq!(proxies().prefix(peer, &bytes[..end]), Prefix::More, "{end}");
        }
        let read = Prefix::Proxy(header.len(), Some(ip("192.0.2.7")));
        assert_eq!(proxies().prefix(peer, &bytes), read);
        assert!(matches!(proxies().prefix(Some(ip("192.0.2.1")), &bytes), Prefix::Refused(_)));
        assert!(matches!(proxies().prefix(None, &bytes), Prefix::Refused(_)));
        assert_eq!(proxies().prefix(peer, b"GET"), Prefix::None);
        let mut wrong = header.clone();
        wrong[12] = 0x33;
        assert!(matches!(proxies().prefix(peer, &wrong), Prefix::Refused(_)));
        let own = v2::Builder::new(
            v2::Version::Two | Command::Local,
            v2::AddressFamily::Unspecified | v2::Protocol::Unspecified,
        )
        .build()
        .expect("a header");
        assert_eq!(proxies().prefix(peer, &own), Prefix::Proxy(own.len(), None));
    }

    #[test]
    fn the_setting_names_what_it_cannot_use() {
        let wrong = Proxies::read(&["10.0.0.0/8".into(), "haproxy".into(), "10.0.0.0/64".into()]);
        assert_eq!(wrong.expect_err("two").len(), 2);
    }
}
