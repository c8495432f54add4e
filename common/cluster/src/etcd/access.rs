//! How the client shows who it is: what `[etcd]` names becomes the client's options; and what it says when it was not
//! let in.

use etcd_client::{Certificate, ConnectOptions, Error, Identity, TlsOptions};
use sluice_access::TlsNames;

use crate::Etcd;

/// Puts credentials and certificates into the options.
///
/// # Errors
/// A file that cannot be used, by its key.
pub(super) fn with_access(options: ConnectOptions, etcd: &Etcd) -> Result<ConnectOptions, Error> {
    let options = with_tls(options, etcd)?;
    if etcd.user.is_empty() {
        return Ok(options);
    }
    let password = match etcd.password_file.as_str() {
        "" => etcd.password.clone(),
        file => sluice_access::secret("etcd.password_file", file).map_err(Error::InvalidArgs)?,
    };
    // A server that starts anew knows none of its tokens, and an idle one forgets them.
    Ok(options.with_user(etcd.user.clone(), password).with_auto_token_refresh(true))
}

/// Puts what TLS needs into the options.
pub(super) fn with_tls(options: ConnectOptions, etcd: &Etcd) -> Result<ConnectOptions, Error> {
    Ok(match tls(etcd)? {
        Some(tls) => options.with_tls(tls),
        None => options,
    })
}

/// `None` for servers that are spoken to in clear.
fn tls(etcd: &Etcd) -> Result<Option<TlsOptions>, Error> {
    if !etcd.endpoints.iter().any(|url| url.starts_with("https://")) {
        return Ok(None);
    }
    let parts = etcd.tls().read().map_err(Error::InvalidArgs)?;
    let options = match parts.ca {
        Some(ca) => TlsOptions::new().ca_certificate(Certificate::from_pem(ca)),
        None => TlsOptions::new().with_native_roots(),
    };
    Ok(Some(match parts.identity {
        Some((cert, key)) => options.identity(Identity::from_pem(cert, key)),
        None => options,
    }))
}

const NAMES: TlsNames = TlsNames {
    url: "etcd.endpoints",
    ca: "etcd.ca_file",
    identity: "etcd.cert_file and etcd.key_file",
    plain: "http://",
};

/// What an operator has to change, where the words of the client or the server tell it.
pub(super) fn fix_of(said: &str) -> Option<String> {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&["authentication failed", "user name is empty", "user name not found", "invalid user"]) {
        Some("check etcd.user and its password (`etcdctl user add`)".to_owned())
    } else if has(&["permission denied"]) {
        let grant = "`etcdctl role grant-permission ROLE readwrite /PREFIX/ --prefix=true`";
        Some(format!("give the role of etcd.user its rights on the prefix: {grant}"))
    } else if has(&["connection closed", "connection reset", "broken pipe"]) {
        // In TLS 1.3 a server refuses a client's certificate after the client's handshake is done, and closes.
        let shown = "etcd.cert_file and etcd.key_file";
        Some(format!(
            "if the server speaks TLS, use https:// and a certificate that its authority signed ({shown})"
        ))
    } else {
        NAMES.fix(said)
    }
}
