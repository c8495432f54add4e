//! What an operator has to change when a TLS handshake fails: the words of rustls, and of servers, are for others.

/// How the settings of one server are called.
#[derive(Debug, Clone, Copy)]
pub struct TlsNames {
    /// Where its address is, as `redis.url`.
    pub url: &'static str,
    /// Where its authority is named.
    pub ca: &'static str,
    /// Where the certificate that it is shown, and its key.
    pub identity: &'static str,
    /// How an address without TLS begins or ends, as `redis://`.
    pub plain: &'static str,
}

impl TlsNames {
    /// One sentence for what was said of a handshake, if it was one.
    #[must_use]
    pub fn fix(&self, said: &str) -> Option<String> {
        let Self { url, ca, identity, plain } = self;
        let said: String = said.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
        let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
        // The server's words first: an alert names what it thinks of our certificate.
        if has(&["certificaterequired", "receivedfatalalert", "fatalalert"]) && !has(&["protocolversion"]) {
            Some(format!("the server wants to see a certificate that its authority signed: set {identity}"))
        } else if has(&["unknownissuer", "badsignature", "caasendentity", "causedasend"]) {
            // A bad signature: an authority made anew under its old name has another key.
            Some(format!("name the authority that signed the server's certificate in {ca}"))
        } else if has(&["notvalidforname"]) {
            Some(format!(
                "use a name that stands in the server's certificate in {url}, or have it signed for this one"
            ))
        } else if has(&["expired", "notvalidyet"]) {
            Some("a certificate is not valid now: renew it, and compare the clocks".to_owned())
        } else if has(&["invalidcontenttype", "corruptmessage", "doesnotsupporttls", "tlshandshakeeof"]) {
            Some(format!("the server does not speak TLS there: use {plain}, or the port where it does"))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: TlsNames = TlsNames {
        url: "redis.url",
        ca: "redis.ca_file",
        identity: "redis.cert_file and redis.key_file",
        plain: "redis://",
    };

    #[test]
    fn each_wrong_thing_names_its_setting() {
        for (said, fix) in [
            ("invalid peer certificate: UnknownIssuer", "redis.ca_file"),
            ("invalid peer certificate: BadSignature", "redis.ca_file"),
            ("invalid peer certificate: certificate not valid for name \"a\"", "redis.url"),
            ("invalid peer certificate: certificate expired: verification time …", "not valid now"),
            ("received fatal alert: CertificateRequired", "redis.cert_file"),
            ("received fatal alert: the server requires a certificate", "redis.cert_file"),
            ("received corrupt message of type InvalidContentType", "use redis://"),
            ("tls handshake eof", "use redis://"),
        ] {
            let found = NAMES.fix(said).unwrap_or_default();
            assert!(found.contains(fix), "{said}: {found}");
        }
        assert_eq!(NAMES.fix("connection refused"), None);
    }
}
