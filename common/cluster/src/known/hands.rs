//! Through whose hands duties went: since when each is whose it is, who had it before, and what of that concerns this
//! process. For pages, log and counts, and so that who gave a duty back is not the first to take it again. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sluice_proto::ids::InstanceId;
use tokio::time::Instant;

use crate::view::Duty;

/// What became of a duty of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DutyEvent {
    /// It is ours from now on.
    Taken { duty: Duty, from: Former },
    /// It was ours, and we gave it back.
    GivenBack(Duty),
    /// It was ours, and we did not give it back; who has it now.
    Lost { duty: Duty, to: Option<InstanceId> },
}

/// Whose a duty was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Former {
    /// Nobody had it, as far as this process knows.
    Nobody,
    /// It is still there.
    GaveBack(InstanceId),
    /// It is not there any more: it has ended, or its lease has.
    Left(InstanceId),
}

#[derive(Debug, Default)]
pub(super) struct Hands {
    since: BTreeMap<Duty, Instant>,
    former: BTreeMap<Duty, (InstanceId, Instant)>,
    /// Ours, about to be given back by ourselves.
    giving: BTreeSet<Duty>,
    events: Vec<DutyEvent>,
}

impl Hands {
    /// From now on the loss of this duty is our own doing.
    pub(super) fn gives(&mut self, duty: Duty) {
        self.giving.insert(duty);
    }

    /// How long its owner has had it, as far as this process saw.
    pub(super) fn held_for(&self, duty: Duty, now: Instant) -> Option<Duration> {
        self.since.get(&duty).map(|since| now.saturating_duration_since(*since))
    }

    /// Who had it until a moment ago.
    pub(super) fn given_back_by(&self, duty: Duty, within: Duration, now: Instant) -> Option<&InstanceId> {
        let (id, at) = self.former.get(&duty)?;
        (now.saturating_duration_since(*at) < within).then_some(id)
    }

    /// When somebody last gave it away; `None`: never.
    pub(super) fn changed_at(&self, duty: Duty) -> Option<Instant> {
        self.former.get(&duty).map(|(_, at)| *at)
    }

    /// The owner of a duty changed.
    pub(super) fn changed(&mut self, duty: Duty, before: Option<InstanceId>, after: bool, now: Instant) {
        if after {
            self.since.insert(duty, now);
        } else {
            self.since.remove(&duty);
        }
        if let Some(before) = before {
            self.former.insert(duty, (before, now));
        }
    }

    /// It is ours now; `lives` says whether somebody is there.
    pub(super) fn taken(&mut self, duty: Duty, me: &InstanceId, lives: impl Fn(&InstanceId) -> bool) {
        self.giving.remove(&duty);
        let from = match self.former.get(&duty) {
            Some((id, _)) if id != me && lives(id) => Former::GaveBack(id.clone()),
            Some((id, _)) if id != me => Former::Left(id.clone()),
            Some(_) | None => Former::Nobody,
        };
        self.events.push(DutyEvent::Taken { duty, from });
    }

    /// It was ours.
    pub(super) fn parted(&mut self, duty: Duty, to: Option<InstanceId>, releasing: bool) {
        let given = self.giving.remove(&duty) || releasing;
        self.events.push(if given { DutyEvent::GivenBack(duty) } else { DutyEvent::Lost { duty, to } });
    }

    /// What happened since the last time.
    pub(super) fn take_events(&mut self) -> Vec<DutyEvent> {
        std::mem::take(&mut self.events)
    }
}
