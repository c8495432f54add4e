//! Who this process is, as others are to see it.

use std::time::SystemTime;

use sluice_proto::ids::InstanceId;

use crate::{Instance, InstanceState, Registration};

pub(crate) struct Registrant {
    registration: Registration,
    host: String,
    started_ms: i64,
}

impl Registrant {
    pub(crate) fn new(registration: Registration) -> Self {
        Self { registration, host: host(), started_ms: now_ms() }
    }

    /// Another id than ever before.
    pub(crate) fn fresh_id(&self) -> InstanceId {
        InstanceId::fresh(self.registration.service.as_str(), &self.host)
    }

    pub(crate) fn instance(&self, id: InstanceId, state: InstanceState) -> Instance {
        let Registration { service, address, url, version } = self.registration.clone();
        Instance { id, service, address, url, version, started_ms: self.started_ms, state, headroom: None }
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
