//! Who this process is, as others are to see it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sluice_proto::ids::InstanceId;

use crate::{Headroom, Instance, InstanceState, Registration};

pub(crate) struct Registrant {
    registration: Registration,
    host: String,
    started_ms: i64,
    headroom: Mutex<Said>,
}

/// How much more it would take, and what the others were last told.
#[derive(Default)]
struct Said {
    now: Option<Headroom>,
    told: Option<Headroom>,
}

impl Registrant {
    pub(crate) fn new(registration: Registration) -> Self {
        Self { registration, host: host(), started_ms: now_ms(), headroom: Mutex::default() }
    }

    /// Another id than ever before.
    pub(crate) fn fresh_id(&self) -> InstanceId {
        InstanceId::fresh(self.registration.service.as_str(), &self.host)
    }

    pub(crate) fn instance(&self, id: InstanceId, state: InstanceState) -> Instance {
        let Registration { service, address, url, version } = self.registration.clone();
        let headroom = {
            let mut said = self.said();
            said.told = said.now;
            said.now
        };
        Instance { id, service, address, url, version, started_ms: self.started_ms, state, headroom }
    }

    pub(crate) fn set_headroom(&self, headroom: Headroom) {
        self.said().now = Some(headroom);
    }

    /// Whether the others know a headroom that is an eighth off: smaller changes are not worth a write.
    pub(crate) fn headroom_is_stale(&self) -> bool {
        let said = self.said();
        match (said.now, said.told) {
            (Some(now), Some(told)) => {
                is_off(now.connections, told.connections)
                    || match (now.handshakes_per_s, told.handshakes_per_s) {
                        (Some(now), Some(told)) => is_off(now, told),
                        (now, told) => now != told,
                    }
            }
            (now, told) => now != told,
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.headroom.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_off(now: u32, told: u32) -> bool {
    now.abs_diff(told) > now.max(told) / 8
}

fn host() -> String {
    // Read once per process and only for people: two hosts of one name still get different ids.
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let short = name.trim().split('.').next().unwrap_or_default();
    if short.is_empty() { "host".into() } else { short.into() }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Service;

    #[test]
    fn a_headroom_is_told_again_when_either_part_has_changed_much() {
        let (service, address, version) = (Service::Gateway, "a:1".to_owned(), String::new());
        let registrant = Registrant::new(Registration { service, address, url: None, version });
        let says = |connections, handshakes_per_s| {
            registrant.set_headroom(Headroom { connections, handshakes_per_s });
            let stale = registrant.headroom_is_stale();
            if stale {
                registrant.instance(registrant.fresh_id(), InstanceState::Serving);
            }
            stale
        };
        assert!(!registrant.headroom_is_stale(), "nothing was said");
        assert!(says(1_000, Some(1_000)));
        assert!(!says(900, Some(1_100)), "no eighth");
        assert!(says(500, Some(1_000)));
        assert!(says(500, Some(400)), "so many come now");
        assert!(says(500, None), "its limit is off");
        assert!(!says(500, None));
    }
}
