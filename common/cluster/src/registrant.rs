//! Who this process is, as others are to see it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use sluice_proto::ids::InstanceId;

use crate::{Instance, InstanceState, Registration};

pub(crate) struct Registrant {
    registration: Registration,
    host: String,
    started_ms: i64,
    /// How many more clients it would take, and what the others were last told; [`UNSAID`] = nothing.
    headroom: AtomicU64,
    told: AtomicU64,
}

/// Above every headroom.
const UNSAID: u64 = u64::MAX;

impl Registrant {
    pub(crate) fn new(registration: Registration) -> Self {
        let (headroom, told) = (AtomicU64::new(UNSAID), AtomicU64::new(UNSAID));
        Self { registration, host: host(), started_ms: now_ms(), headroom, told }
    }

    /// Another id than ever before.
    pub(crate) fn fresh_id(&self) -> InstanceId {
        InstanceId::fresh(self.registration.service.as_str(), &self.host)
    }

    pub(crate) fn instance(&self, id: InstanceId, state: InstanceState) -> Instance {
        let Registration { service, address, url, version } = self.registration.clone();
        let headroom = self.headroom.load(Ordering::Relaxed);
        self.told.store(headroom, Ordering::Relaxed);
        let headroom = u32::try_from(headroom).ok();
        Instance { id, service, address, url, version, started_ms: self.started_ms, state, headroom }
    }

    pub(crate) fn set_headroom(&self, clients: u32) {
        self.headroom.store(clients.into(), Ordering::Relaxed);
    }

    /// Whether the others know a headroom that is an eighth off: smaller changes are not worth a write.
    pub(crate) fn headroom_is_stale(&self) -> bool {
        let (now, told) = (self.headroom.load(Ordering::Relaxed), self.told.load(Ordering::Relaxed));
        now.abs_diff(told) > now.max(told) / 8
    }
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
