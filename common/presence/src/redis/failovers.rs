//! Hears from sentinels when another server was made the primary. Without it a connection to the old one goes on taking
//! writes, which are thrown away, until sentinels have turned it: 8 to 10 s after a failover by hand.
//!
//! Only ever moves the link sooner: what is missed here is found as if nobody listened.

use std::time::Duration;

use ::redis::aio::PubSub;
use ::redis::{ErrorKind, Msg, RedisError, RedisResult};
use futures::StreamExt as _;
use futures::future::join_all;
use tokio::time::{sleep, timeout};

use super::access;
use super::link::RedisLink;
use super::sentinels::{Address, Sentinels};
use crate::Redis;

const SWITCHED: &str = "+switch-master";
/// A sentinel that has said nothing for so long is subscribed to anew: the connection may lead nowhere by now.
const RENEW: Duration = Duration::from_secs(60);
/// Between two attempts to subscribe.
const AGAIN: Duration = Duration::from_secs(2);

/// Moves the link to the primary that any sentinel announces; never ends.
pub(super) async fn follow(link: &RedisLink, sentinels: &Sentinels<'_>) {
    let all = sentinels.each(link.redis());
    join_all(all.map(|sentinel| follow_one(link, sentinel, sentinels.name()))).await;
}

async fn follow_one(link: &RedisLink, sentinel: Redis, name: &str) {
    loop {
        // An error is not said: whether sentinels answer is found by whoever connects.
        if listen(link, &sentinel, name).await.is_err() {
            sleep(AGAIN).await;
        }
    }
}

/// Until it says nothing for a while, or the connection breaks.
async fn listen(link: &RedisLink, sentinel: &Redis, name: &str) -> RedisResult<()> {
    let subscribing = async {
        let mut heard = access::client(sentinel)?.get_async_pubsub().await?;
        heard.subscribe(SWITCHED).await?;
        Ok::<_, RedisError>(heard)
    };
    let mut heard: PubSub =
        timeout(link.patience(), subscribing).await.unwrap_or_else(|late| Err(io(late)))?;
    let mut messages = heard.on_message();
    while let Ok(message) = timeout(RENEW, messages.next()).await {
        let Some(message) = message else { return Err(io("the sentinel has closed the connection")) };
        if let Some(address) = announced(&message, name) {
            link.moved(address);
        }
    }
    Ok(())
}

fn io(why: impl ToString) -> RedisError {
    RedisError::from((ErrorKind::Io, "Sentinel", why.to_string()))
}

fn announced(message: &Msg, name: &str) -> Option<Address> {
    address_of(&message.get_payload::<String>().ok()?, name)
}

/// `NAME OLD-HOST OLD-PORT NEW-HOST NEW-PORT`
fn address_of(said: &str, name: &str) -> Option<Address> {
    let words: Vec<&str> = said.split_ascii_whitespace().collect();
    match words[..] {
        [of, _, _, host, port] if of == name => Some((host.to_owned(), port.parse().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_new_place_of_our_own_primary_counts() {
        let said = "main 10.0.0.1 6379 10.0.0.2 6380";
        assert_eq!(address_of(said, "main"), Some(("10.0.0.2".to_owned(), 6380)));
        assert_eq!(address_of(said, "other"), None);
        for said in ["", "main", "main a 1 b", "main a 1 b x", "main a 1 b 2 c"] {
            assert_eq!(address_of(said, "main"), None, "{said}");
        }
    }
}
