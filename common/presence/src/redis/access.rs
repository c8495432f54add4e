//! How the client shows who it is: what `[redis]` names becomes a client. Read anew for each connection, so that a
//! password or a certificate can be replaced.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionInfo, ErrorKind, IntoConnectionInfo as _,
    RedisError, RedisResult, TlsCertificates,
};
use sluice_access::TlsNames;

use crate::Redis;

/// Connects to one server.
pub(super) async fn open(redis: &Redis, patience: Duration) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(patience))
        // The caller's is the only clock: a call that it ends leaves the connection to the others.
        .set_response_timeout(None);
    let connected = client(redis)?.get_multiplexed_async_connection_with_config(&config).await;
    connected.map_err(|error| match error.is_timeout() {
        true => RedisError::from((ErrorKind::Io, "redis", silence(redis))),
        false => error,
    })
}

/// What is said of a server that accepts a connection and is silent: one that waits for the end of a line takes a
/// handshake for its beginning.
pub(super) fn silence(redis: &Redis) -> String {
    let hint = if redis.url.reveal().starts_with("rediss") {
        "; if the server does not speak TLS there, use redis://, or the port where it does"
    } else {
        ""
    };
    format!("no answer in time{hint}")
}

/// A client that connects to nobody yet.
///
/// # Errors
/// A URL that is none, or a file of the section that cannot be used.
pub(super) fn client(redis: &Redis) -> RedisResult<Client> {
    let info = with_password(redis.url.reveal().into_connection_info()?, redis)?;
    if !redis.url.reveal().starts_with("rediss://") {
        return Client::open(info);
    }
    let parts = redis.tls().read().map_err(wrong)?;
    let client_tls =
        parts.identity.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
    Client::build_with_tls(info, TlsCertificates { client_tls, root_cert: parts.ca })
}

fn with_password(info: ConnectionInfo, redis: &Redis) -> RedisResult<ConnectionInfo> {
    if redis.password_file.is_empty() {
        return Ok(info);
    }
    let password = sluice_access::secret("redis.password_file", &redis.password_file).map_err(wrong)?;
    let settings = info.redis_settings().clone().set_password(password);
    Ok(info.set_redis_settings(settings))
}

fn wrong(text: String) -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, "redis", text))
}

/// The error with what an operator has to change, where its words tell it.
pub(super) fn describe(error: &RedisError) -> String {
    let said = error.to_string();
    match fix_of(&said) {
        Some(fix) => format!("{said}; {fix}"),
        None => said,
    }
}

/// Why a node of a Redis Cluster is of no use alone.
pub(super) const NODE: &str = "it is a node of a Redis Cluster: write redis+cluster://host:6379,host:6379 in redis.url \
                               (rediss+cluster:// for TLS)";

const NAMES: TlsNames = TlsNames {
    url: "redis.url",
    ca: "redis.ca_file",
    identity: "redis.cert_file and redis.key_file",
    plain: "redis://",
};

fn fix_of(said: &str) -> Option<String> {
    let has = |words: &[&str]| words.iter().any(|word| said.to_uppercase().contains(word));
    let stranger = has(&["WRONGPASS", "NOAUTH", "AUTHENTICATION FAILED", "INVALID PASSWORD"]);
    if stranger && has(&["THE SENTINEL AT"]) {
        Some("check redis.sentinel_password_file (`requirepass` of the sentinels)".to_owned())
    } else if stranger {
        Some("check the user and password of redis.url, or redis.password_file (ACL SETUSER)".to_owned())
    } else if has(&["NOPERM"]) {
        Some("give the user ~PREFIX:* and the commands that `ACL LOG` names".to_owned())
    } else if has(&["READONLY", "MASTERDOWN"]) {
        Some(
            "it is a replica: name the primary in redis.url, or its sentinels by redis+sentinel://"
                .to_owned(),
        )
    } else if has(&["MOVED:", "CROSSSLOT", "CLUSTERDOWN", "NON LOCAL KEY"]) {
        Some(NODE.to_owned())
    } else if let Some(fix) = NAMES.fix(said) {
        Some(fix)
    } else if has(&["UNEXPECTED END OF FILE", "BROKEN PIPE", "CONNECTION RESET", "TERMINATED"]) {
        // What a server does that waits for a handshake, and one that does not want this client's certificate.
        Some(
            "if the server speaks TLS, use rediss:// and a certificate that its authority signed (redis.cert_file and \
             redis.key_file)"
                .to_owned(),
        )
    } else {
        None
    }
}
