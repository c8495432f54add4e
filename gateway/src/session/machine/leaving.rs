//! How a session leaves: the first reason stands, `bye` is said once, and after the outcomes of what was accepted where
//! there is time for them.

use sluice_proto::wire::Bye;
use sluice_service::seeded::{self, Bug};

use super::{Session, SessionPhase};
use crate::ending::Ending;

impl Session {
    /// Starts leaving; the first reason stands. `reconnect_ms` counts for endings after which clients come
    /// back.
    pub fn end(&mut self, ending: Ending, reconnect_ms: u64) {
        // The verdict on the token is no longer waited for; whoever is unknown is refused from here on.
        if self.phase == SessionPhase::Checking {
            self.take_asking();
            self.phase = if self.identity.is_some() { SessionPhase::Open } else { SessionPhase::Anyone };
        }
        // The first reason stands: later ones follow from it.
        if self.ending.is_none() {
            self.ending = Some(Box::new((ending, reconnect_ms)));
        }
    }

    /// Leaves without `bye`, as it is answered in another way.
    pub fn leave(&mut self) {
        self.phase = SessionPhase::Left;
    }

    /// Whether `bye` was said.
    pub fn has_left(&self) -> bool {
        self.phase == SessionPhase::Left
    }

    /// The `bye` to say now, once: as soon as the session leaves and everything accepted has its outcome.
    /// `resend_ms` is the time to stay away if the fence is the reason.
    pub fn take_bye(&mut self, resend_ms: u64) -> Option<(Ending, Bye)> {
        let owing = self.unanswered > 0 && !seeded::is(Bug::DrainDropsOutcomes);
        if self.phase == SessionPhase::Left || owing {
            return None;
        }
        // Only now that all have their outcome: then the client knows exactly what to send again (A5).
        if self.ending.is_none() && self.link.fenced() {
            self.ending = Some(Box::new((Ending::Resend, resend_ms)));
        }
        let (ending, reconnect_ms) = *self.ending.take()?;
        self.phase = SessionPhase::Left;
        let bye = ending.bye(reconnect_ms);
        Some((ending, bye))
    }

    /// The `bye` to say when there is no time left to wait for outcomes: whatever has none is fenced, so that the client
    /// may send it again. `None`: it was said.
    pub fn take_last_bye(&mut self, ending: Ending, reconnect_ms: u64) -> Option<Bye> {
        if self.phase == SessionPhase::Left {
            return None;
        }
        self.link.fence();
        self.phase = SessionPhase::Left;
        let (ending, reconnect_ms) = self.ending.take().map_or((ending, reconnect_ms), |ending| *ending);
        Some(ending.bye(reconnect_ms))
    }
}
