//! Percentiles: exact ones of values that are kept, near ones of values that are only counted. Knows no units but µs.

use serde::{Deserialize, Serialize};

/// Values kept of a spread for drawing it.
const DRAWN_MAX: usize = 120;

/// Counting buckets per doubling: 64 make every percentile right to 0.8 %.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// How values are spread.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// How many.
    pub n: u64,
    /// Median.
    pub p50_us: u64,
    /// 99th percentile: 99 of 100 are not greater.
    pub p99_us: u64,
    /// Greatest.
    pub max_us: u64,
    /// Some of them in ascending order, at even ranks, the least and the greatest among them; empty when only counted.
    pub drawn_us: Vec<u64>,
}

impl Spread {
    /// The spread of `values`; `None` of nothing.
    pub(super) fn of(mut values: Vec<u64>) -> Option<Self> {
        values.sort_unstable();
        let max_us = *values.last()?;
        let last = values.len() - 1;
        let drawn_us = if values.len() <= DRAWN_MAX {
            values.clone()
        } else {
            (0..DRAWN_MAX).filter_map(|i| values.get(i * last / (DRAWN_MAX - 1)).copied()).collect()
        };
        let at = |percent| values.get(rank(values.len() as u64, percent) as usize).copied().unwrap_or(max_us);
        Some(Self { n: values.len() as u64, p50_us: at(50), p99_us: at(99), max_us, drawn_us })
    }
}

/// Position, from 0, of a percentile among `n` values in ascending order: the nearest rank.
fn rank(n: u64, percent: u64) -> u64 {
    (n * percent).div_ceil(100).saturating_sub(1)
}

/// Counts values instead of keeping them: any number in a few kilobytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Counted {
    buckets: Vec<u32>,
    n: u64,
    max: u64,
}

impl Counted {
    pub(super) fn add(&mut self, value: u64) {
        let bucket = bucket_of(value);
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        self.n += 1;
        self.max = self.max.max(value);
    }

    pub(super) fn n(&self) -> u64 {
        self.n
    }

    pub(super) fn max(&self) -> u64 {
        self.max
    }

    pub(super) fn percentile(&self, percent: u64) -> u64 {
        let mut below = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            below += u64::from(*count);
            if below > rank(self.n, percent) {
                return middle_of(bucket).min(self.max);
            }
        }
        self.max
    }

    pub(super) fn spread(&self) -> Option<Spread> {
        (self.n > 0).then(|| Spread {
            n: self.n,
            p50_us: self.percentile(50),
            p99_us: self.percentile(99),
            max_us: self.max,
            drawn_us: Vec::new(),
        })
    }
}

/// Values below `STEPS` have a bucket each; above, each doubling has `STEPS`.
fn bucket_of(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let doubling = value.ilog2() - STEP_BITS;
    (u64::from(doubling) * STEPS + (value >> doubling)) as usize
}

fn middle_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * STEPS {
        return bucket;
    }
    let doubling = bucket / STEPS - 1;
    let low = (bucket - doubling * STEPS) << doubling;
    low + (1 << (doubling - 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let spread = Spread::of((1..=200).rev().collect()).unwrap();
        assert_eq!((spread.n, spread.p50_us, spread.p99_us, spread.max_us), (200, 100, 198, 200));
        assert_eq!(spread.drawn_us.len(), DRAWN_MAX);
        assert_eq!((spread.drawn_us[0], spread.drawn_us[DRAWN_MAX - 1]), (1, 200));
        let one = Spread::of(vec![7]).unwrap();
        assert_eq!((one.p50_us, one.p99_us, one.max_us), (7, 7, 7));
        assert_eq!(Spread::of(Vec::new()), None);
    }

    proptest! {
        #[test]
        fn counting_is_as_good_as_keeping(values in proptest::collection::vec(0_u64..100_000_000, 1..300)) {
            let exact = Spread::of(values.clone()).unwrap();
            let mut counted = Counted::default();
            values.iter().for_each(|value| counted.add(*value));
            let near = counted.spread().unwrap();
            prop_assert_eq!((near.n, near.max_us), (exact.n, exact.max_us));
            for (seen, truth) in [(near.p50_us, exact.p50_us), (near.p99_us, exact.p99_us)] {
                prop_assert!(seen.abs_diff(truth) <= truth / 100 + 1, "{} for {}", seen, truth);
            }
        }
    }
}
