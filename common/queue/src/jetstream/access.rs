//! How the client shows who it is: what `[nats]` names becomes the client's options.

use std::path::PathBuf;

use async_nats::{ConnectOptions, ServerAddr};
use sluice_access::TlsNames;
use sluice_lifecycle::error_chain;

use crate::{Nats, QueueError};

fn refused(why: String) -> QueueError {
    QueueError::Refused(why)
}

/// A list with commas. What it says shows no password.
pub(super) fn servers(urls: &str) -> Result<Vec<ServerAddr>, QueueError> {
    let parse = |url: &str| url.trim().parse::<ServerAddr>().map_err(|error| refused(error.to_string()));
    urls.split(',').map(parse).collect()
}

/// Options that carry the credentials and certificates of `nats`.
pub(super) async fn options(nats: &Nats, servers: &[ServerAddr]) -> Result<ConnectOptions, QueueError> {
    let mut options = signed_in(ConnectOptions::new(), nats, servers).await?;
    if !nats.ca_file.is_empty() {
        // Naming an authority means that the servers are to be authenticated, not only if they ask for it.
        options = options.add_root_certificates(PathBuf::from(&nats.ca_file)).require_tls(true);
    }
    if !nats.cert_file.is_empty() {
        options = options
            .add_client_certificate(PathBuf::from(&nats.cert_file), PathBuf::from(&nats.key_file))
            .require_tls(true);
    }
    Ok(options)
}

async fn signed_in(
    options: ConnectOptions,
    nats: &Nats,
    servers: &[ServerAddr],
) -> Result<ConnectOptions, QueueError> {
    if !nats.credentials_file.is_empty() {
        let signed = options.credentials_file(&nats.credentials_file).await;
        return signed.map_err(|error| {
            refused(format!("nats.credentials_file {:?} is no .creds file: {error}", nats.credentials_file))
        });
    }
    if !nats.nkey_file.is_empty() {
        return Ok(options.nkey(secret("nats.nkey_file", &nats.nkey_file).await?));
    }
    let file = match nats.password_file.as_str() {
        "" => None,
        file => Some(secret("nats.password_file", file).await?),
    };
    // The client sends nothing of what a URL holds by itself.
    let named = servers.iter().find_map(|server| Some((server.username()?, server.password())));
    Ok(match (named, file) {
        (Some((user, _)), Some(password)) => options.user_and_password(decoded(user)?, password),
        (Some((user, Some(password))), None) => options.user_and_password(decoded(user)?, decoded(password)?),
        (Some((token, None)), None) => options.token(decoded(token)?),
        (None, Some(token)) => options.token(token),
        (None, None) => options,
    })
}

/// The first line of a file that holds one secret.
async fn secret(key: &str, file: &str) -> Result<String, QueueError> {
    let text = tokio::fs::read_to_string(file).await;
    let text = text.map_err(|error| refused(format!("{key} {file:?} cannot be read: {error}")))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Of a URL's user or password: `%40` is `@`.
fn decoded(text: &str) -> Result<String, QueueError> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| refused("the user or password in nats.url is no UTF-8".to_owned()))?;
    Ok(decoded.into_owned())
}

const NAMES: TlsNames = TlsNames {
    url: "nats.url",
    ca: "nats.ca_file",
    identity: "nats.cert_file and nats.key_file",
    plain: "nats://",
};

/// An error with its causes, and with what an operator has to change where they tell it.
pub(super) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let said = error_chain(error);
    let fix = if said.contains("authorization violation") {
        Some(
            "check the user and password of nats.url, or nats.password_file, nkey_file or credentials_file"
                .to_owned(),
        )
    } else {
        NAMES.fix(&said)
    };
    match fix {
        Some(fix) => format!("{said}; {fix}"),
        None => said,
    }
}
