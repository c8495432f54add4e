//! The keys that may call the API, with their scopes and what each has under way. The file is read again when it
//! changes; while it is of no use the last good one stays in force.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use sluice_access::{ApiKeyEntry, KeyHash, api_key_hash, read_api_keys};
use sluice_proto::grants::{cover, cover_prefix};
use sluice_proto::ids::{InvalidName, RoomId, UserId};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::problem::{Code, Problem};
use crate::defaults::{API_KEY_CALLS_MAX, API_KEY_EXPORTS_MAX, API_KEYS_EVERY, API_PAGE_MAX};

/// A key that is good.
#[derive(Debug)]
pub struct ApiKey {
    entry: ApiKeyEntry,
    hash: KeyHash,
    expires_ms: Option<i64>,
    /// Who publishes where a call does not say.
    sender: UserId,
    rate: Option<RateLimiter<NotKeyed, InMemoryState, DefaultClock>>,
    /// Its calls under way.
    pub calls: Arc<Semaphore>,
    /// Its exports under way.
    pub exports: Arc<Semaphore>,
}

impl ApiKey {
    fn new(entry: ApiKeyEntry, calls_per_s: u32) -> Result<Self, InvalidName> {
        let per_s = NonZeroU32::new(entry.calls_per_s.unwrap_or(calls_per_s));
        // A page of messages counts for each of them, so a second of calls must be able to hold one.
        let burst = |per_s: NonZeroU32| per_s.max(NonZeroU32::new(API_PAGE_MAX).unwrap_or(NonZeroU32::MIN));
        Ok(Self {
            hash: entry.key_hash().unwrap_or_default(),
            expires_ms: entry.expires_ms(),
            sender: UserId::parse(&entry.name)?,
            rate: per_s.map(|per_s| RateLimiter::direct(Quota::per_second(per_s).allow_burst(burst(per_s)))),
            calls: Arc::new(Semaphore::new(API_KEY_CALLS_MAX)),
            exports: Arc::new(Semaphore::new(API_KEY_EXPORTS_MAX)),
            entry,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// What the file says of it.
    #[must_use]
    pub const fn entry(&self) -> &ApiKeyEntry {
        &self.entry
    }

    /// Who publishes where a call does not say.
    #[must_use]
    pub const fn sender(&self) -> &UserId {
        &self.sender
    }

    /// Whether it may publish there.
    ///
    /// # Errors
    /// The problem, which names the scope.
    pub fn may_publish(&self, room: &RoomId) -> Result<(), Problem> {
        let may = cover(&self.entry.publish, room.as_str());
        if may { Ok(()) } else { Err(self.lacks("pub", room.as_str())) }
    }

    /// Whether it may read, and look into, this room.
    ///
    /// # Errors
    /// The problem, which names the scope.
    pub fn may_read(&self, room: &RoomId) -> Result<(), Problem> {
        if self.reads(room.as_str()) { Ok(()) } else { Err(self.lacks("sub", room.as_str())) }
    }

    /// Whether a list may name this room.
    #[must_use]
    pub fn reads(&self, room: &str) -> bool {
        cover(&self.entry.sub, room)
    }

    /// Whether it may list rooms that begin like this.
    ///
    /// # Errors
    /// The problem, which names the scope.
    pub fn may_list(&self, prefix: &str) -> Result<(), Problem> {
        let may = cover_prefix(&self.entry.sub, prefix);
        if may { Ok(()) } else { Err(self.lacks("sub", &format!("{prefix}*"))) }
    }

    /// Whether it may end what this user has.
    ///
    /// # Errors
    /// The problem, which names the scope.
    pub fn may_disconnect(&self, user: &UserId) -> Result<(), Problem> {
        let may = cover(&self.entry.disconnect, user.as_str());
        if may { Ok(()) } else { Err(self.lacks("disconnect", user.as_str())) }
    }

    /// Counts a call that is worth so many.
    ///
    /// # Errors
    /// The key is above its rate, with when it may come again.
    pub fn charge(&self, worth: usize) -> Result<(), Problem> {
        let Some(rate) = &self.rate else { return Ok(()) };
        let worth = u32::try_from(worth).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let wait = match rate.check_n(worth) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(until)) => until.wait_time_from(DefaultClock::default().now()),
            // More than a bucket holds; no call is worth so much.
            Err(_) => Duration::from_secs(1),
        };
        let per_s = rate_of(&self.entry);
        let detail = format!("the key {} makes more calls than it may{per_s}", self.name());
        let retry_after_s = Some(wait.as_secs() + 1);
        Err(Problem { retry_after_s, ..Problem::new(Code::RateLimited, detail) })
    }

    fn lacks(&self, scope: &str, name: &str) -> Problem {
        let detail = format!("the key {} has no {scope:?} that covers {name:?}", self.name());
        Problem::new(Code::Forbidden, detail)
    }
}

fn rate_of(entry: &ApiKeyEntry) -> String {
    entry.calls_per_s.map(|per_s| format!(", {per_s} a second")).unwrap_or_default()
}

type Table = HashMap<KeyHash, Arc<ApiKey>>;

/// All keys that are good now; clones share them.
#[derive(Debug, Clone)]
pub struct Keys {
    table: watch::Sender<Arc<Table>>,
    calls_per_s: u32,
}

impl Keys {
    /// These keys; each may make so many calls a second, unless it says otherwise.
    #[must_use]
    pub fn new(entries: Vec<ApiKeyEntry>, calls_per_s: u32) -> Self {
        let keys = Self { table: watch::Sender::default(), calls_per_s };
        keys.replace(entries);
        keys
    }

    /// Who calls with this key.
    ///
    /// # Errors
    /// It is not good, or not any more.
    pub fn of(&self, shown: &str, now_ms: i64) -> Result<Arc<ApiKey>, Problem> {
        // Looked up by its hash: how long that takes says nothing of the keys there are.
        let key = self.table.borrow().get(&api_key_hash(shown)).cloned();
        let unauthorized = |detail: String| Problem::new(Code::Unauthorized, detail);
        let key = key.ok_or_else(|| unauthorized("the key is not known here".into()))?;
        match key.expires_ms {
            Some(expires_ms) if now_ms >= expires_ms => {
                Err(unauthorized(format!("the key {} has expired", key.name())))
            }
            Some(_) | None => Ok(key),
        }
    }

    /// Whether what began with this key may go on.
    #[must_use]
    pub fn is_good(&self, key: &ApiKey, now_ms: i64) -> bool {
        let expired = key.expires_ms.is_some_and(|expires_ms| now_ms >= expires_ms);
        !expired && self.table.borrow().contains_key(&key.hash)
    }

    /// Puts others in force. A key that stays the same keeps its rate and what it has under way.
    fn replace(&self, entries: Vec<ApiKeyEntry>) {
        let now = Arc::clone(&self.table.borrow());
        let key = |entry: ApiKeyEntry| {
            let hash = entry.key_hash()?;
            let same = now.get(&hash).filter(|key| key.entry == entry).cloned();
            // A name of the file is always one of a user.
            let key = same.or_else(|| ApiKey::new(entry, self.calls_per_s).ok().map(Arc::new))?;
            Some((hash, key))
        };
        self.table.send_replace(Arc::new(entries.into_iter().filter_map(key).collect()));
    }

    /// Follows the file until `stop`.
    pub async fn follow(self, file: PathBuf, stop: CancellationToken) {
        let mut seen = tokio::fs::read(&file).await.ok();
        while stop.run_until_cancelled(tokio::time::sleep(API_KEYS_EVERY)).await.is_some() {
            // The whole of it: what is replaced by way of a link has the time and size of another file.
            let now = tokio::fs::read(&file).await;
            let found = now.as_ref().ok().cloned();
            if found == seen {
                continue;
            }
            seen = found;
            self.take(&file, now);
        }
    }

    /// Takes over what the file says, if it makes sense.
    fn take(&self, file: &Path, text: std::io::Result<Vec<u8>>) {
        let read = text.map_err(|error| error.to_string()).and_then(|text| {
            let text = String::from_utf8(text).map_err(|error| error.to_string())?;
            read_api_keys(&text)
        });
        match read {
            Ok(entries) => {
                tracing::info!(keys = entries.len(), file = %file.display(), "The keys of the API were read again.");
                self.replace(entries);
            }
            Err(error) => tracing::warn!(
                %error, file = %file.display(),
                "The file of the API's keys cannot be used; those of before stay good."
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, key: &str) -> ApiKeyEntry {
        ApiKeyEntry { sub: vec!["news.*".into()], ..ApiKeyEntry::of(name, key) }
    }

    fn code<T: std::fmt::Debug>(refused: Result<T, Problem>) -> Code {
        refused.expect_err("a refusal").code
    }

    #[test]
    fn a_key_is_known_by_what_it_is_and_until_it_expires() {
        let expires = Some("2027-01-31T00:00:00Z".parse().expect("a time"));
        let entries = vec![entry("a", "ka"), ApiKeyEntry { expires, ..entry("b", "kb") }];
        let keys = Keys::new(entries, 10);
        assert_eq!(keys.of("ka", i64::MAX).expect("good").name(), "a");
        assert_eq!(code(keys.of("kc", 0)), Code::Unauthorized);
        let ends_ms = 1_801_353_600_000;
        let b = keys.of("kb", ends_ms - 1).expect("good");
        assert_eq!(code(keys.of("kb", ends_ms)), Code::Unauthorized);
        assert!(keys.is_good(&b, ends_ms - 1) && !keys.is_good(&b, ends_ms));
    }

    #[test]
    fn scopes_are_grants() {
        let keys = Keys::new(vec![entry("a", "k")], 10);
        let key = keys.of("k", 0).expect("good");
        let room = |name: &str| RoomId::parse(name).expect("valid");
        assert!(key.may_read(&room("news.a")).is_ok() && key.may_list("news.").is_ok());
        assert_eq!(code(key.may_read(&room("other"))), Code::Forbidden);
        assert_eq!(code(key.may_list("")), Code::Forbidden);
        let lacks = key.may_publish(&room("news.a")).expect_err("a refusal");
        assert!(lacks.detail.contains("\"pub\"") && lacks.detail.contains("news.a"), "{}", lacks.detail);
    }

    #[test]
    fn whom_a_key_may_disconnect_is_judged_like_rooms() {
        for (scope, user, may) in [
            (&[][..], "ann", false),
            (&["ann"], "ann", true),
            (&["ann"], "anna", false),
            (&["ann"], "@ann", false),
            (&["guest-*"], "guest-1", true),
            (&["guest-*"], "guest", false),
            (&["bob", "guest-*"], "bob", true),
            (&["*"], "ann", true),
            (&["*"], "@ann", false),
            (&["@*"], "@ann", true),
        ] {
            let disconnect = scope.iter().map(|name| (*name).to_owned()).collect();
            let entry = ApiKeyEntry { publish: vec!["*".into(), "@*".into()], disconnect, ..entry("a", "k") };
            let key = Keys::new(vec![entry], 10).of("k", 0).expect("good");
            let judged = key.may_disconnect(&UserId::parse(user).expect("valid"));
            assert_eq!(judged.is_ok(), may, "{scope:?} {user}");
            if let Err(lacks) = judged {
                assert_eq!(lacks.code, Code::Forbidden);
                assert!(lacks.detail.contains("\"disconnect\"") && lacks.detail.contains(user), "{lacks:?}");
            }
        }
    }

    #[test]
    fn who_calls_too_often_hears_when_to_come_again() {
        let keys = Keys::new(vec![ApiKeyEntry { calls_per_s: Some(1), ..entry("a", "k") }], 10);
        let key = keys.of("k", 0).expect("good");
        assert!(key.charge(API_PAGE_MAX as usize).is_ok(), "one full call at once");
        let refused = key.charge(1).expect_err("a refusal");
        assert_eq!((refused.code, refused.retry_after_s.is_some()), (Code::RateLimited, true));
        let keys = Keys::new(vec![entry("a", "k")], 0);
        let key = keys.of("k", 0).expect("good");
        assert!((0..100_000).all(|_| key.charge(1).is_ok()), "no limit");
    }

    #[test]
    fn a_bad_file_changes_nothing_and_a_good_one_all() {
        let keys = Keys::new(vec![entry("a", "ka")], 10);
        let before = keys.of("ka", 0).expect("good");
        let file = Path::new("keys.toml");
        for bad in [Ok(b"keys".to_vec()), Ok(vec![0xff]), Err(std::io::Error::other("gone"))] {
            keys.take(file, bad);
            assert!(keys.of("ka", 0).is_ok());
        }
        let text = |entries: &[ApiKeyEntry]| -> String {
            entries.iter().map(|entry| entry.to_toml().expect("good")).collect()
        };
        keys.take(file, Ok(text(&[entry("a", "ka"), entry("b", "kb")]).into()));
        let after = keys.of("ka", 0).expect("good");
        assert!(Arc::ptr_eq(&before, &after) && keys.of("kb", 0).is_ok(), "the same key goes on");
        keys.take(file, Ok(text(&[entry("b", "kb")]).into()));
        assert!(keys.of("ka", 0).is_err() && !keys.is_good(&before, 0));
    }
}
