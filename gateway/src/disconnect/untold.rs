//! Revocations that nobody told of: twice a second any logic is asked for what is new, and whoever came with such a token is
//! ended.

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Disconnects;
use crate::defaults::{REVOCATIONS_EVERY, REVOCATIONS_FIRST_AGAIN};

/// Asks for revocations and ends whoever came with such a token, until `stop`.
pub async fn follow(disconnects: Disconnects, stop: CancellationToken) {
    loop {
        let more = stop.run_until_cancelled(look(&disconnects)).await;
        let pause = match more {
            None => return,
            Some(true) => continue,
            Some(false) if disconnects.shared.revoked.after().is_none() => REVOCATIONS_FIRST_AGAIN,
            Some(false) => REVOCATIONS_EVERY,
        };
        if stop.run_until_cancelled(sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// One look; `true`: there is more to see at once.
async fn look(disconnects: &Disconnects) -> bool {
    let revoked = &disconnects.shared.revoked;
    let after = revoked.after();
    let reply = match disconnects.shared.calls.revocations(after).await {
        Ok(Some(reply)) => reply,
        // Of the version before: those that this gateway meets first are all it will know.
        Ok(None) => {
            revoked.begin_at(0);
            return false;
        }
        Err(_) => return false,
    };
    let (position, more) = (reply.position, reply.more);
    if after.is_none() {
        revoked.begin_at(position);
    }
    let new = match revoked.take(reply) {
        Ok(new) => new,
        Err(error) => {
            tracing::warn!(%error, "A logic told of a revocation that makes no sense.");
            return false;
        }
    };
    // What is not carried out in time is asked for again.
    if !disconnects.end_revoked(new).await {
        return false;
    }
    revoked.carried_out(position);
    more
}
