//! Where tokens come from: one that was given, or a program's own function. That one is asked by one at a time, whoever
//! needs a token meanwhile; what it gave last is used until a server refuses it.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::time::timeout;

use crate::defaults::TOKEN_WITHIN;

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not now: it is asked again, after longer and longer pauses.
    #[error("there is no token now: {0}")]
    Later(String),
    /// Never again, as the user has logged out: the client ends.
    #[error("there is no token any more: {0}")]
    Over(String),
}

type Fetching = Shared<BoxFuture<'static, Result<String, TokenError>>>;

/// A program's function.
#[derive(Clone)]
pub(crate) struct TokenSource(Arc<dyn Fn() -> BoxFuture<'static, Result<String, TokenError>> + Send + Sync>);

impl TokenSource {
    pub(crate) fn new<F>(fetch: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        Self(Arc::new(move || fetch().boxed()))
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}

#[derive(Default)]
struct Held {
    token: Option<String>,
    fetching: Option<Fetching>,
}

/// The token of a client; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Tokens {
    source: Option<TokenSource>,
    held: Arc<Mutex<Held>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the token itself.
        f.debug_struct("Tokens").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Asks this function when it needs one.
    pub(crate) fn from(source: TokenSource) -> Self {
        Self { source: Some(source), held: Arc::default() }
    }

    /// The same for another client: what becomes of one of them is nobody else's.
    pub(crate) fn of_its_own(&self) -> Self {
        let held = Held { token: lock(&self.held).token.clone(), fetching: None };
        Self { source: self.source.clone(), held: Arc::new(Mutex::new(held)) }
    }

    pub(crate) fn has_source(&self) -> bool {
        self.source.is_some()
    }

    /// Uses this one from now on.
    pub(crate) fn keep(&self, token: String) {
        lock(&self.held).token = Some(token);
    }

    /// A server has refused this one: it is not used again where another can be had.
    pub(crate) fn refused(&self, token: Option<&str>) {
        if self.has_source() {
            let mut held = lock(&self.held);
            held.token.take_if(|held| token.is_none_or(|token| token == *held));
        }
    }

    /// The one that is used; a new one if there is none and it can be had. `None`: there is none, and none can be had.
    pub(crate) async fn current(&self) -> Result<Option<String>, TokenError> {
        let held = lock(&self.held).token.clone();
        match (held, self.has_source()) {
            (None, true) => self.fetch().await.map(Some),
            (held, _) => Ok(held),
        }
    }

    /// A new one. Asked again while it comes it is the same one.
    pub(crate) async fn fetch(&self) -> Result<String, TokenError> {
        let Some(source) = &self.source else {
            return Err(TokenError::Over("nobody was named to ask for one".into()));
        };
        let fetching = {
            let mut held = lock(&self.held);
            let new = || fetch(source.clone(), Arc::downgrade(&self.held)).boxed().shared();
            held.fetching.get_or_insert_with(new).clone()
        };
        fetching.await
    }
}

async fn fetch(source: TokenSource, held: Weak<Mutex<Held>>) -> Result<String, TokenError> {
    let late = || Err(TokenError::Later(format!("it did not come within {TOKEN_WITHIN:?}")));
    let token = timeout(TOKEN_WITHIN, (source.0)()).await.unwrap_or_else(|_| late());
    if let Some(held) = held.upgrade() {
        let mut held = lock(&held);
        held.fetching = None;
        if let Ok(token) = &token {
            held.token = Some(token.clone());
        }
    }
    token
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// One whose tokens are numbered and come as they are let go.
    fn counted() -> (Tokens, Arc<AtomicU32>, Arc<Semaphore>) {
        let (asked, let_go) = (Arc::<AtomicU32>::default(), Arc::new(Semaphore::new(0)));
        let (count, gate) = (Arc::clone(&asked), Arc::clone(&let_go));
        let source = TokenSource::new(move || {
            let (number, gate) = (count.fetch_add(1, Ordering::Relaxed) + 1, Arc::clone(&gate));
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(format!("token-{number}"))
            }
        });
        (Tokens::from(source), asked, let_go)
    }

    #[tokio::test]
    async fn one_asks_and_all_have_the_answer() {
        let (tokens, asked, let_go) = counted();
        let all = async { tokio::join!(tokens.current(), tokens.fetch(), tokens.current()) };
        let gate = async { let_go.add_permits(1) };
        let ((one, two, three), ()) = tokio::join!(all, gate);
        assert_eq!((one.unwrap(), two.unwrap()), (Some("token-1".into()), "token-1".into()));
        assert_eq!((three.unwrap(), asked.load(Ordering::Relaxed)), (Some("token-1".into()), 1));
        assert_eq!(tokens.current().await.unwrap(), Some("token-1".into()), "kept");
        // One that was refused in its place is not the one that is used now.
        tokens.refused(Some("token-0"));
        assert_eq!(tokens.current().await.unwrap(), Some("token-1".into()));
        tokens.refused(Some("token-1"));
        let_go.add_permits(1);
        assert_eq!(tokens.current().await.unwrap(), Some("token-2".into()));
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_the_question_to_the_next() {
        let (tokens, asked, let_go) = counted();
        assert!(timeout(std::time::Duration::from_millis(5), tokens.fetch()).await.is_err());
        let_go.add_permits(1);
        assert_eq!((tokens.fetch().await.unwrap().as_str(), asked.load(Ordering::Relaxed)), ("token-1", 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_that_never_answers_is_asked_again() {
        let tokens = Tokens::from(TokenSource::new(std::future::pending));
        assert!(matches!(tokens.fetch().await, Err(TokenError::Later(_))));
        assert!(matches!(tokens.fetch().await, Err(TokenError::Later(_))));
        let given = Tokens::default();
        assert_eq!(given.current().await, Ok(None));
        given.keep("t".into());
        given.refused(None);
        assert_eq!(given.current().await, Ok(Some("t".into())), "there is no other");
    }
}
