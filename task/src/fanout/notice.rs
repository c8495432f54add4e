//! A notice as task needs it: which rooms, and the bytes to pass on. Checks the messages, never copies them.

use bytes::Bytes;
use prost::Message as _;
use sluice_proto::grpc::{MessageTrace, RoomRun};
use sluice_proto::ids::{InvalidName, RoomId};
use sluice_proto::limits::BATCH_BYTES_MAX;
use sluice_trace::Spans;

/// Why a payload is no notice. It would never become one, so it is not asked for again.
#[derive(Debug, thiserror::Error)]
pub enum BadNotice {
    /// Not what `fanout.proto` says.
    #[error("it cannot be decoded: {0}")]
    Encoding(#[from] prost::DecodeError),
    /// A room with an impossible name.
    #[error("a room in it is wrong: {0}")]
    Room(#[from] InvalidName),
    /// It would not fit into a push.
    #[error("it has {0} bytes, at most {BATCH_BYTES_MAX} are allowed")]
    TooLarge(usize),
}

/// What one commit group made known.
#[derive(Debug)]
pub struct Notice {
    /// Epoch of the store.
    pub epoch: u64,
    /// In the order of the group.
    pub runs: Vec<EncodedRun>,
}

/// The messages of one room, as encoded by logic: a `RoomRun`.
#[derive(Debug, Clone)]
pub struct EncodedRun {
    /// The room.
    pub room: RoomId,
    /// To be passed on.
    pub bytes: Bytes,
    /// What its messages are a part of.
    pub traces: Vec<MessageTrace>,
    /// Of its messages, by their seq.
    pub spans: Spans,
}

/// `Notice` on the wire, with its runs left as they are: a nested message and bytes look the same there.
#[derive(Clone, PartialEq, prost::Message)]
struct RawNotice {
    #[prost(fixed64, tag = "1")]
    epoch: u64,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    runs: Vec<Bytes>,
}

impl Notice {
    /// Reads a payload; its runs share the payload's memory.
    ///
    /// # Errors
    /// [`BadNotice`] when a gateway could not read it either.
    pub fn read(payload: Bytes) -> Result<Self, BadNotice> {
        if payload.len() > BATCH_BYTES_MAX {
            return Err(BadNotice::TooLarge(payload.len()));
        }
        let RawNotice { epoch, runs } = RawNotice::decode(payload)?;
        let runs = runs.into_iter().map(|bytes| {
            // Decoded only to judge it: what a gateway cannot read would end its stream.
            let run = RoomRun::decode(bytes.clone())?;
            let room = RoomId::parse(&run.room)?;
            Ok::<_, BadNotice>(EncodedRun { room, bytes, traces: run.traces, spans: Spans::default() })
        });
        Ok(Self { epoch, runs: runs.collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::grpc;

    use super::*;

    fn run(room: &str) -> RoomRun {
        let message = grpc::Message { seq: 7, sender: "ann".into(), data: "{}".into(), ..Default::default() };
        RoomRun { room: room.into(), first: 7, last: 7, messages: vec![message], ..RoomRun::default() }
    }

    #[test]
    fn a_notice_is_read_without_changing_its_runs() {
        let runs = vec![run("news"), run("a")];
        let payload = grpc::Notice { epoch: 5, runs: runs.clone() }.encode_to_vec();
        let notice = Notice::read(payload.into()).expect("valid");
        assert_eq!(notice.epoch, 5);
        for (run, sent) in notice.runs.iter().zip(&runs) {
            assert_eq!(run.room.as_str(), sent.room);
            assert_eq!(RoomRun::decode(run.bytes.clone()).as_ref(), Ok(sent));
        }
    }

    #[test]
    fn what_a_gateway_could_not_read_is_refused() {
        let no_room = grpc::Notice { epoch: 5, runs: vec![run("")] }.encode_to_vec();
        assert!(matches!(Notice::read(no_room.into()), Err(BadNotice::Room(_))));
        assert!(matches!(Notice::read("junk".into()), Err(BadNotice::Encoding(_))));
        let inner = RawNotice { epoch: 1, runs: vec!["junk".into()] }.encode_to_vec();
        assert!(matches!(Notice::read(inner.into()), Err(BadNotice::Encoding(_))));
        let huge = vec![0; BATCH_BYTES_MAX + 1];
        assert!(matches!(Notice::read(huge.into()), Err(BadNotice::TooLarge(_))));
    }
}
