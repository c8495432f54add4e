//! What subscribers of a shard get, counted for the metrics: how late one of so many messages was, who resumed, what was
//! skipped, who catches up. Costs a message an addition, and its subscribers nothing.

use sluice_proto::ids::Seq;
use sluice_proto::wire::codec;

use crate::defaults::DELIVERIES_PER_SAMPLE;
use crate::room::link::Run;
use crate::session::outbound::payload;

/// Sums since the last tick, and who catches up now.
#[derive(Debug, Default)]
pub struct Deliveries {
    /// Messages to pass until one is measured.
    until_sample: usize,
    /// When those that are measured were stored, by the store's clock: milliseconds since 1970. Taken when this turn's
    /// bytes have gone to the sockets.
    samples: Vec<i64>,
    told: Told,
    catching_up: usize,
}

/// What subscribers were told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Who asked to go on from a position went on from there.
    pub recovered: u64,
    /// Or did not.
    pub not_recovered: u64,
    /// Times that messages were said not to come.
    pub skips: u64,
    /// How many these were.
    pub skipped: u64,
}

impl Deliveries {
    /// Live subscribers get a run.
    pub fn passed(&mut self, run: &Run) {
        // One of so many whatever the length of runs: one of each run would leave the bursts out.
        while let Some(frame) = run.frames.get(self.until_sample) {
            self.samples.extend(codec::at_of(payload(&frame.bytes)));
            self.until_sample += DELIVERIES_PER_SAMPLE;
        }
        self.until_sample -= run.frames.len();
    }

    /// A subscriber went on from the position it asked for, or did not.
    pub fn resumed(&mut self, recovered: bool) {
        let count = if recovered { &mut self.told.recovered } else { &mut self.told.not_recovered };
        *count += 1;
    }

    /// A subscriber was told that these will not come.
    pub fn skipped(&mut self, from: Seq, to: Seq) {
        self.told.skips += 1;
        self.told.skipped += to.saturating_sub(from).saturating_add(1);
    }

    /// A subscription began or ceased to catch up.
    pub fn behind(&mut self, began: bool) {
        self.catching_up = self.catching_up.saturating_add_signed(if began { 1 } else { -1 });
    }

    /// When the messages were stored that are measured and have been delivered by now.
    pub fn take_samples(&mut self) -> impl Iterator<Item = i64> {
        // Kept as it is: the next turn's are as many.
        self.samples.drain(..)
    }

    /// What was told since last asked.
    pub fn take_told(&mut self) -> Told {
        std::mem::take(&mut self.told)
    }

    /// Subscriptions that catch up now.
    #[must_use]
    pub const fn catching_up(&self) -> usize {
        self.catching_up
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sluice_proto::grpc::Message;
    use sluice_proto::ids::{Epoch, RoomId};

    use super::*;
    use crate::home::encode;
    use crate::room::link::Frame;

    /// Each is stored at the time of its position.
    fn run(seqs: std::ops::RangeInclusive<Seq>) -> Run {
        let room = RoomId::parse("news").unwrap();
        let frame = |seq: Seq| {
            let data = Bytes::from_static(b"1");
            let (sender, key) = ("ann".to_owned(), "~k".to_owned());
            let message = Message { seq, sender, key, at_ms: i64::try_from(seq).unwrap(), data };
            Frame::new(seq, encode(&room, &message))
        };
        let frames = seqs.map(frame).collect::<Vec<_>>().into();
        Run { epoch: Epoch(1), frames, spans: sluice_trace::Spans::default() }
    }

    #[test]
    fn one_of_so_many_messages_is_measured_however_they_come() {
        let every = DELIVERIES_PER_SAMPLE as u64;
        let mut deliveries = Deliveries::default();
        let samples = |deliveries: &mut Deliveries| deliveries.take_samples().collect::<Vec<_>>();
        let due: Vec<i64> = (0..4).map(|n| i64::try_from(1 + n * every).unwrap()).collect();
        deliveries.passed(&run(1..=1));
        assert_eq!(samples(&mut deliveries), [due[0]], "the first one too: a quiet gateway shows something");
        for seq in 2..=every + 1 {
            deliveries.passed(&run(seq..=seq));
        }
        assert_eq!(samples(&mut deliveries), [due[1]]);
        deliveries.passed(&run(every + 2..=3 * every + 1));
        assert_eq!(samples(&mut deliveries), due[2..]);
        deliveries.passed(&run(3 * every + 2..=4 * every));
        assert!(samples(&mut deliveries).is_empty());
    }

    #[test]
    fn what_is_told_is_counted_once() {
        let mut deliveries = Deliveries::default();
        [true, false, true].into_iter().for_each(|recovered| deliveries.resumed(recovered));
        deliveries.skipped(5, 5);
        deliveries.skipped(6, 8);
        let told = Told { recovered: 2, not_recovered: 1, skips: 2, skipped: 4 };
        assert_eq!((deliveries.take_told(), deliveries.take_told()), (told, Told::default()));
        [true, true, false].into_iter().for_each(|began| deliveries.behind(began));
        assert_eq!(deliveries.catching_up(), 1);
    }
}
