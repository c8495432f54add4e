//! Tickets: each stands for a token once, in a URL, where a token must never stand. Redis keeps what they stand for.
//!
//! A ticket is 256 random bits, and only its holder has it. Redis has the token sealed with a key made of the ticket,
//! under a name made of the ticket: whoever reads Redis learns no token, and whoever writes there can only bring a token
//! that is valid by itself. What is taken is judged as a token is, so nothing of it outlives the token.

use std::sync::Arc;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::error::Unspecified;
use sluice_presence::{Presence, PresenceError};

use crate::defaults::{TICKET_BYTES_MAX, TICKET_FOR};

/// What a seal is for: nothing that is sealed elsewhere opens here.
const PURPOSE: &[u8] = b"sluice ticket 1";

/// Issues and takes tickets.
pub struct Tickets(Arc<dyn Presence>);

impl Tickets {
    /// Tickets of all logics that share `presence`.
    #[must_use]
    pub fn new(presence: Arc<dyn Presence>) -> Self {
        Self(presence)
    }

    /// A new ticket that stands for `token`.
    ///
    /// # Errors
    /// Redis did not take it.
    pub async fn issue(&self, token: &str) -> Result<String, PresenceError> {
        let ticket = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let record = seal(&ticket, token)
            .map_err(|Unspecified| PresenceError::Refused("a ticket could not be sealed".into()))?;
        self.0.keep_ticket(&name_of(&ticket), &record, TICKET_FOR).await?;
        Ok(ticket)
    }

    /// The token that a ticket stands for, once. `None`: it was taken, its time is over, or it never was.
    ///
    /// # Errors
    /// Redis did not answer; the ticket may still be there.
    pub async fn take(&self, ticket: &str) -> Result<Option<String>, PresenceError> {
        // Before it is hashed: what strangers send is bounded first.
        if ticket.is_empty() || ticket.len() > TICKET_BYTES_MAX {
            return Ok(None);
        }
        let record = self.0.take_ticket(&name_of(ticket)).await?;
        Ok(record.and_then(|record| open(ticket, record).ok()))
    }
}

/// What Redis calls it: says nothing of the ticket.
fn name_of(ticket: &str) -> String {
    derived(b"name", ticket).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn derived(use_of: &[u8], ticket: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    // A ticket is random and as long as the hash: it needs no slower derivation.
    bytes.copy_from_slice(
        digest(&SHA256, &[PURPOSE, b" ", use_of, b" ", ticket.as_bytes()].concat()).as_ref(),
    );
    bytes
}

fn key_of(ticket: &str) -> Result<LessSafeKey, Unspecified> {
    UnboundKey::new(&CHACHA20_POLY1305, &derived(b"key", ticket)).map(LessSafeKey::new)
}

/// Each key seals one record, so the nonce may be the same for all.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn seal(ticket: &str, token: &str) -> Result<Vec<u8>, Unspecified> {
    let mut record = token.as_bytes().to_vec();
    key_of(ticket)?.seal_in_place_append_tag(nonce(), Aad::from(PURPOSE), &mut record)?;
    Ok(record)
}

fn open(ticket: &str, mut record: Vec<u8>) -> Result<String, Unspecified> {
    let token = key_of(ticket)?.open_in_place(nonce(), Aad::from(PURPOSE), &mut record)?;
    String::from_utf8(token.to_vec()).map_err(|_| Unspecified)
}

#[cfg(test)]
mod tests {
    use sluice_presence::memory::MemoryPresence;

    use super::*;

    #[test]
    fn what_redis_has_shows_no_token_and_opens_with_its_ticket_alone() {
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2ln";
        let record = seal("a", token).expect("sealed");
        assert!(!record.windows(4).any(|part| part == &token.as_bytes()[..4]));
        assert_eq!(open("a", record.clone()).as_deref(), Ok(token));
        assert!(open("b", record.clone()).is_err(), "copied under another ticket's name");
        let mut changed = record;
        changed[3] ^= 1;
        assert!(open("a", changed).is_err());
        assert!(open("a", Vec::new()).is_err());
        assert_ne!(name_of("a"), name_of("b"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_stands_for_its_token_once_and_for_a_minute() {
        let presence = MemoryPresence::default();
        let (one, two) = (Tickets::new(Arc::new(presence.share())), Tickets::new(Arc::new(presence.share())));
        let (first, late) = (one.issue("t1").await.expect("kept"), one.issue("t2").await.expect("kept"));
        assert_ne!(first, late);
        assert_eq!(two.take(&first).await, Ok(Some("t1".to_owned())), "by another logic");
        assert_eq!(one.take(&first).await, Ok(None));
        assert_eq!(one.take(&"x".repeat(TICKET_BYTES_MAX + 1)).await, Ok(None));
        tokio::time::advance(TICKET_FOR).await;
        assert_eq!(one.take(&late).await, Ok(None));
        presence.set_away(true);
        assert!(matches!(one.issue("t").await, Err(PresenceError::Unavailable(_))));
        assert!(matches!(one.take("t").await, Err(PresenceError::Unavailable(_))));
    }
}
