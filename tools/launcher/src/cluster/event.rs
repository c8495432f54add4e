//! What happens in a cluster, in the words of `sluice cluster --json`.

use serde::{Serialize, Serializer};

use crate::node::Addresses;
use crate::service::Service;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A process has ended, for whatever reason.
    Exit {
        /// What it was.
        service: Service,
        /// Its pid.
        pid: u32,
        /// Exit code; `None` when a signal ended it.
        code: Option<i32>,
        /// The signal that ended it.
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
    },
    /// A replacement is ready.
    Start {
        /// What it is.
        service: Service,
        /// Its name: `logic-1` is the first logic.
        name: String,
        /// Its place in the list of its service; in JSON as names count, from 1.
        #[serde(serialize_with = "from_one")]
        index: usize,
        /// Its pid.
        pid: u32,
        /// Where it listens.
        #[serde(flatten)]
        addresses: Addresses,
    },
    /// A replacement could not be started.
    Failed {
        /// What was to be started.
        service: Service,
        /// Why not.
        error: String,
    },
}

fn from_one<S: Serializer>(index: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    (index + 1).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_written_as_promised() {
        let json = |event: &Event| serde_json::to_string(event).unwrap();
        let exit = Event::Exit { service: Service::Logic, pid: 1, code: Some(0), signal: None };
        assert_eq!(json(&exit), r#"{"event":"exit","service":"logic","pid":1,"code":0}"#);
        let killed = Event::Exit { service: Service::Logic, pid: 1, code: None, signal: Some(9) };
        assert_eq!(json(&killed), r#"{"event":"exit","service":"logic","pid":1,"code":null,"signal":9}"#);
        let addresses =
            Addresses { admin: Some("http://a".into()), api: Some("b".into()), ..Addresses::default() };
        let start =
            Event::Start { service: Service::Logic, name: "logic-1".into(), index: 0, pid: 2, addresses };
        let text = r#"{"event":"start","service":"logic","name":"logic-1","index":1,"pid":2,"admin":"http://a","api":"b"}"#;
        assert_eq!(json(&start), text);
    }
}
