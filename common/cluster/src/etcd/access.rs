//! How the client shows who it is: what `[etcd]` names becomes the client's options; and what it says when it was not
//! let in.

use etcd_client::{Certificate, ConnectOptions, Error, Identity, TlsOptions};
use sluice_access::{TlsNames, TlsParts};

use crate::Etcd;

/// What the section and its files hold.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Access {
    /// Name and password, where the servers ask for them.
    user: Option<(String, String)>,
    /// `None` for servers that are spoken to in clear.
    tls: Option<TlsParts>,
}

impl Access {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that cannot be used, by its key.
    pub(super) fn read(etcd: &Etcd) -> Result<Self, Error> {
        let encrypted = etcd.urls().iter().any(|url| url.starts_with("https://"));
        let tls = encrypted.then(|| etcd.tls().read()).transpose().map_err(Error::InvalidArgs)?;
        if etcd.user.is_empty() {
            return Ok(Self { user: None, tls });
        }
        let password = match etcd.password_file.as_str() {
            "" => etcd.password.reveal().to_owned(),
            file => sluice_access::secret("etcd.password_file", file).map_err(Error::InvalidArgs)?,
        };
        Ok(Self { user: Some((etcd.user.clone(), password)), tls })
    }

    /// Puts credentials and certificates into the options.
    pub(super) fn put_into(&self, options: ConnectOptions) -> ConnectOptions {
        let options = self.put_tls_into(options);
        match self.user.clone() {
            // A server that starts anew knows none of its tokens, and an idle one forgets them.
            Some((user, password)) => options.with_user(user, password).with_auto_token_refresh(true),
            None => options,
        }
    }

    /// Puts what TLS needs into the options.
    pub(super) fn put_tls_into(&self, options: ConnectOptions) -> ConnectOptions {
        let Some(TlsParts { ca, identity }) = self.tls.clone() else { return options };
        let tls = match ca {
            Some(ca) => TlsOptions::new().ca_certificate(Certificate::from_pem(ca)),
            None => TlsOptions::new().with_native_roots(),
        };
        options.with_tls(match identity {
            Some((cert, key)) => tls.identity(Identity::from_pem(cert, key)),
            None => tls,
        })
    }
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
    } else if has(&["connection closed", "connection reset", "Connection reset", "broken pipe"]) {
        // In TLS 1.3 a server refuses a client's certificate after the client's handshake is done, and closes. One that
        // speaks no TLS closes too, and its answer may come behind the end of the connection.
        let shown = "etcd.cert_file and etcd.key_file";
        Some(format!(
            "if the server speaks TLS, use https:// and a certificate that its authority signed ({shown}), else http://"
        ))
    } else {
        NAMES.fix(said)
    }
}
