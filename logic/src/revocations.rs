//! Which tokens are revoked, as this logic knows it: a bounded copy of what the store has, read again twice a second, so
//! that a connection costs no question to the store. Of revocations that the copy has forgotten only old tokens can be: for
//! these the store is asked, once for all tokens of a call.
//!
//! A logic that has read nothing yet vouches for nobody. One whose store went away goes on with what it has: gateways hear
//! of later revocations by others, and believe no verdict that is older than what they know.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_proto::grpc::{RevocationsReply, RevocationsRequest};
use sluice_proto::ids::{Epoch, UserId};
use sluice_proto::revocation::{Revocation, Revocations, Standing, is_refused};
use sluice_store::{RevocationPage, Store, StoreError};
use tokio::sync::{Mutex as Turn, Notify};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::defaults::{REVOCATIONS_EVERY, REVOCATIONS_FIRST_WITHIN, REVOCATIONS_KNOWN_MAX, REVOCATIONS_PAGE};
use crate::error::CallError;
use crate::metrics::Metrics;

/// Whose token it is, and when it was issued if it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The user.
    pub user: UserId,
    /// Seconds since 1970.
    pub issued_at_s: Option<u32>,
}

/// Revoked tokens; clones share them.
#[derive(Clone)]
pub struct RevokedTokens(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    known: Mutex<Known>,
    /// One reads at a time: of two an older copy could come over a newer one.
    reading: Turn<()>,
    /// Somebody has just revoked tokens.
    woken: Notify,
    metrics: Metrics,
}

struct Known {
    epoch: Epoch,
    revocations: Revocations,
}

impl RevokedTokens {
    /// Reads what the store has; without that nobody may be vouched for.
    ///
    /// # Errors
    /// The store; to be tried again.
    pub async fn load(store: Arc<dyn Store>, metrics: Metrics) -> Result<Self, StoreError> {
        let known = read_all(&*store).await?;
        metrics.revocations.set(count(known.revocations.len()));
        let (known, reading, woken) = (Mutex::new(known), Turn::new(()), Notify::new());
        Ok(Self(Arc::new(Shared { store, known, reading, woken, metrics })))
    }

    /// Reads on until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(REVOCATIONS_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.0.woken.notified() => {}
                _ = ticks.tick() => {}
            }
            // A store that does not answer has deadlines of its own, and must not hold the stop.
            match stop.run_until_cancelled(self.read_on()).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(%error, "Revocations were not read."),
            }
        }
    }

    async fn read_on(&self) -> Result<(), StoreError> {
        let _turn = self.0.reading.lock().await;
        loop {
            let (position, epoch) = {
                let known = self.known();
                (known.revocations.position(), known.epoch)
            };
            let RevocationPage { epoch: now, head, page } =
                self.0.store.revocations(position, REVOCATIONS_PAGE).await?;
            // Another history: what it has up to there may be something else.
            if now != epoch || head < position {
                let all = read_all(&*self.0.store).await?;
                *self.known() = all;
            } else {
                let full = page.len() >= REVOCATIONS_PAGE;
                let read_up_to = if full { page.last().map_or(head, |last| last.position) } else { head };
                let mut known = self.known();
                page.into_iter().for_each(|revocation| known.revocations.add(revocation));
                known.revocations.read_up_to(read_up_to);
                if full {
                    continue;
                }
            }
            self.0.metrics.revocations.set(count(self.known().revocations.len()));
            return Ok(());
        }
    }

    /// One that was committed by this logic counts at once.
    pub fn add(&self, revocation: Revocation) {
        self.known().revocations.add(revocation);
        self.0.woken.notify_one();
    }

    /// How it stands with these tokens, in order, and up to which position that was looked at.
    pub async fn judge(&self, holders: &[Holder]) -> (u64, Vec<Standing>) {
        let (looked_at, mut standings) = {
            let known = self.known();
            let judge = |holder: &Holder| known.revocations.judge(&holder.user, holder.issued_at_s);
            (known.revocations.position(), holders.iter().map(judge).collect::<Vec<_>>())
        };
        let open = || holders.iter().zip(&standings).filter(|(_, it)| **it == Standing::Unknown);
        let users: Vec<UserId> = open().map(|(holder, _)| holder.user.clone()).collect();
        if users.is_empty() {
            return (looked_at, standings);
        }
        // Those whom nobody can vouch for stay in doubt.
        let until = self.0.store.revocations_of(&users).await.unwrap_or_default();
        let open = holders.iter().zip(&mut standings).filter(|(_, it)| **it == Standing::Unknown);
        for ((holder, standing), until) in open.zip(until) {
            let refused = until.is_some_and(|until| is_refused(holder.issued_at_s, until));
            *standing = if refused { Standing::Revoked } else { Standing::Good };
        }
        (looked_at, standings)
    }

    /// Answers `Revocations`.
    ///
    /// # Errors
    /// The store, where it has to be asked.
    pub async fn tell(&self, request: RevocationsRequest) -> Result<RevocationsReply, CallError> {
        if request.after.is_none() {
            // A gateway that begins remembers nothing, and was not there to be told: it believes verdicts from the position
            // that it hears now. One that was revoked a moment ago by another logic would still open it. A store that is away
            // keeps nobody out, and what it has is found by the next looks.
            drop(timeout(REVOCATIONS_FIRST_WITHIN, self.read_on()).await);
        }
        let (epoch, position, page) = {
            let known = self.known();
            let page = match request.after {
                None => Some((Vec::new(), false)),
                Some(after) => known.revocations.after(after, REVOCATIONS_PAGE),
            };
            (known.epoch, known.revocations.position(), page)
        };
        let reply = |epoch: Epoch, position, page: Vec<Revocation>, more| RevocationsReply {
            epoch: epoch.0,
            position,
            revocations: page.into_iter().map(Into::into).collect(),
            more,
        };
        if let Some((page, more)) = page {
            let last = page.last().map_or(position, |last| last.position);
            return Ok(reply(epoch, if more { last } else { position }, page, more));
        }
        // A gateway that was cut off for long.
        let RevocationPage { epoch, head, page } =
            self.0.store.revocations(request.after.unwrap_or(0), REVOCATIONS_PAGE).await?;
        let more = page.len() >= REVOCATIONS_PAGE;
        let last = page.last().map_or(head, |last| last.position);
        Ok(reply(epoch, if more { last } else { head }, page, more))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The newest ones that a copy has room for, page by page.
async fn read_all(store: &dyn Store) -> Result<Known, StoreError> {
    let most = u64::try_from(REVOCATIONS_KNOWN_MAX).unwrap_or(u64::MAX);
    // Each has a position of its own: so many positions are at most so many revocations.
    let RevocationPage { epoch, head, .. } = store.revocations(u64::MAX, 1).await?;
    let floor = head.saturating_sub(most);
    let floor_s = if floor == 0 { 0 } else { store.revoked_up_to(floor).await? };
    let mut revocations = Revocations::above(floor, floor_s, REVOCATIONS_KNOWN_MAX);
    loop {
        let RevocationPage { head, page, .. } =
            store.revocations(revocations.position(), REVOCATIONS_PAGE).await?;
        let (full, last) = (page.len() >= REVOCATIONS_PAGE, page.last().map(|last| last.position));
        page.into_iter().for_each(|revocation| revocations.add(revocation));
        revocations.read_up_to(last.filter(|_| full).unwrap_or(head));
        if !full {
            return Ok(Known { epoch, revocations });
        }
    }
}

fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}
