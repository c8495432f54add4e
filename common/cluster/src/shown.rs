//! Publishes what one process knows of the cluster to its own parts, as values that they watch. Decides nothing; that
//! is [`Known`]'s.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluice_proto::ids::InstanceId;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::known::{DutyEvent, Former, Known};
use crate::{ClusterCounts, ClusterView, Commanded, Duty};

pub(crate) struct Shown {
    known: Mutex<Known>,
    pub(crate) view: watch::Sender<Arc<ClusterView>>,
    pub(crate) me: watch::Sender<InstanceId>,
    pub(crate) owned: watch::Sender<BTreeSet<Duty>>,
    pub(crate) commanded: watch::Sender<Option<Commanded>>,
    counts: Mutex<ClusterCounts>,
}

/// How often time is to be let pass, a few times in a lease time: with a [`Shown::learn`] of nothing.
pub(crate) fn beat(ttl: Duration) -> Duration {
    (ttl / 10).clamp(Duration::from_millis(100), Duration::from_secs(1))
}

impl Shown {
    pub(crate) fn new(known: Known) -> Self {
        Self {
            view: watch::Sender::new(Arc::new(known.view(Instant::now()))),
            me: watch::Sender::new(known.me().clone()),
            owned: watch::Sender::default(),
            commanded: watch::Sender::default(),
            counts: Mutex::default(),
            known: Mutex::new(known),
        }
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// This process's id now.
    pub(crate) fn id(&self) -> InstanceId {
        self.me.borrow().clone()
    }

    /// Changes what is known and tells everybody whom it concerns.
    pub(crate) fn learn(&self, change: impl FnOnce(&mut Known, Instant)) {
        // Changed and told under one lock: nobody sees the view of one change with the duties of
        // another.
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known, now);
        known.tick(now);
        set(&self.me, known.me().clone());
        let view = known.view(now);
        self.view.send_if_modified(|last| {
            // Equal views wake nobody: ticks come several times a second.
            let changed = **last != view;
            if changed {
                *last = Arc::new(view);
            }
            changed
        });
        set(&self.owned, known.owned(now));
        let events = known.take_events();
        drop(known);
        events.iter().for_each(|event| self.tell(event));
    }

    /// A command for this process was seen, perhaps not for the first time.
    pub(crate) fn hear(&self, heard: Commanded) {
        self.commanded.send_if_modified(|last| {
            let news = last.as_ref().is_none_or(|last| last.revision < heard.revision);
            if news {
                *last = Some(heard);
            }
            news
        });
    }

    pub(crate) fn counts(&self) -> ClusterCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, count: impl FnOnce(&mut ClusterCounts)) {
        count(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Each change of hands is a line, with whose it was and why.
    fn tell(&self, event: &DutyEvent) {
        let me = self.id();
        match event {
            DutyEvent::Taken { duty, from: Former::Nobody } => {
                self.count(|counts| counts.from_nobody += 1);
                tracing::info!(%duty, owner = %me, reason = "nobody had it", "Duty taken.");
            }
            DutyEvent::Taken { duty, from: Former::GaveBack(from) } => {
                self.count(|counts| counts.given_by_others += 1);
                tracing::info!(%duty, owner = %me, %from, reason = "it was given back", "Duty taken.");
            }
            DutyEvent::Taken { duty, from: Former::Left(from) } => {
                self.count(|counts| counts.taken_over += 1);
                tracing::info!(%duty, owner = %me, %from, reason = "its owner has ended", "Duty taken over.");
            }
            DutyEvent::GivenBack(duty) => {
                self.count(|counts| counts.given_back += 1);
                tracing::info!(%duty, owner = %me, "Duty given back.");
            }
            DutyEvent::Lost { duty, to } => {
                self.count(|counts| counts.lost += 1);
                let to = to.as_ref().map_or("nobody", |to| to.as_str());
                tracing::warn!(%duty, owner = %me, to, "Duty lost: released by hand, or with the lease.");
            }
        }
    }
}

fn set<T: PartialEq>(place: &watch::Sender<T>, value: T) {
    place.send_if_modified(|last| {
        let changed = *last != value;
        if changed {
            *last = value;
        }
        changed
    });
}
