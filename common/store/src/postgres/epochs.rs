//! Which history the store's connections stand for, and that they all stand for the same.
//!
//! Each new connection reads the epoch. When one reads another epoch than the known one, the generation
//! grows, and every connection of an older generation is dropped before it serves again. No I/O here.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sluice_proto::ids::Epoch;
use xxhash_rust::xxh3::xxh3_64;

/// The parts of an epoch: `meta.epoch`, the cluster's system identifier, the WAL timeline.
///
/// A restore of a dump changes the second, a promotion or point-in-time recovery the third,
/// `sluice store new-epoch` the first.
///
/// `copied` is the epoch of a store that was copied here, and the parts that it stands for: it is in force while they are.
pub(super) fn epoch_of(meta: &str, system: &str, timeline: &str, copied: Option<(&str, &str)>) -> Epoch {
    let parts = format!("{meta}/{system}/{timeline}");
    let copied = copied.filter(|(_, into)| *into == parts).and_then(|(epoch, _)| Epoch::parse(epoch));
    // 0 stands for "not known" on the wire.
    copied.unwrap_or_else(|| Epoch(xxh3_64(parts.as_bytes()).max(1)))
}

/// What a connection learned from its first reading.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EpochReading {
    /// Serve as a connection of this generation.
    Generation(u64),
    /// Another connection found a new epoch in the meantime, this reading may be the older: read again.
    ReadAgain,
}

/// The known epoch of all connections of one store.
#[derive(Debug, Default)]
pub(super) struct Epochs(Mutex<KnownEpoch>);

#[derive(Debug, Default, Clone, Copy)]
struct KnownEpoch {
    epoch: Option<Epoch>,
    generation: u64,
}

impl Epochs {
    fn known(&self) -> MutexGuard<'_, KnownEpoch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The generation that may serve.
    pub(super) fn generation(&self) -> u64 {
        self.known().generation
    }

    /// Takes an epoch read by a new connection; `before` is the generation when the reading began.
    pub(super) fn observe(&self, before: u64, epoch: Epoch) -> EpochReading {
        let mut known = self.known();
        if known.epoch == Some(epoch) {
            return EpochReading::Generation(known.generation);
        }
        // Two connections read at once and one of them saw the older history: nobody can say which,
        // so it reads again.
        if known.generation != before {
            return EpochReading::ReadAgain;
        }
        if let Some(old) = known.epoch {
            tracing::warn!(%old, new = %epoch, "the store's epoch changed: all connections are made anew");
        }
        *known = KnownEpoch { epoch: Some(epoch), generation: before + 1 };
        EpochReading::Generation(known.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_reading_wins() {
        let epochs = Epochs::default();
        assert_eq!(epochs.observe(epochs.generation(), Epoch(1)), EpochReading::Generation(1));
        assert_eq!(epochs.observe(epochs.generation(), Epoch(1)), EpochReading::Generation(1));

        // Two connections read at generation 1: one before the change, one after it.
        assert_eq!(epochs.observe(1, Epoch(2)), EpochReading::Generation(2));
        assert_eq!(epochs.observe(1, Epoch(1)), EpochReading::ReadAgain);
        assert_eq!(epochs.observe(2, Epoch(2)), EpochReading::Generation(2));
        assert_eq!(epochs.generation(), 2);
    }

    #[test]
    fn each_part_counts() {
        let one = epoch_of("m", "s", "00000001", None);
        assert_eq!(one, epoch_of("m", "s", "00000001", None));
        assert_ne!(one, epoch_of("n", "s", "00000001", None));
        assert_ne!(one, epoch_of("m", "t", "00000001", None));
        assert_ne!(one, epoch_of("m", "s", "00000002", None));
    }

    #[test]
    fn a_copied_epoch_stands_for_the_history_it_was_copied_into_alone() {
        let copied = Some(("00000000000000ab", "m/s/00000001"));
        assert_eq!(epoch_of("m", "s", "00000001", copied), Epoch(0xab));
        for (meta, system, timeline) in
            [("n", "s", "00000001"), ("m", "t", "00000001"), ("m", "s", "00000002")]
        {
            assert_eq!(
                epoch_of(meta, system, timeline, copied),
                epoch_of(meta, system, timeline, None),
                "after a new epoch, a restored dump and a promotion it is another one"
            );
        }
    }
}
