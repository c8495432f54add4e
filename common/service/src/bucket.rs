//! A token bucket as one number (GCRA): the time at which it is full again. Eight bytes each, as every user and address
//! has several; the library for it keeps its rate and a clock in each. Pure: time is an argument.

use std::sync::atomic::{AtomicU64, Ordering};

/// Microseconds since some beginning, the same for all that are asked about a bucket.
pub type Micros = u64;

/// How fast buckets refill, and how much they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Between two tokens; 0 = no limit.
    pub every: Micros,
    /// What a full bucket is worth.
    pub burst: Micros,
}

impl Rate {
    /// `per_s` tokens a second, 0 = no limit; a full bucket holds those of `burst_s` seconds.
    #[must_use]
    pub fn new(per_s: u32, burst_s: u64) -> Self {
        Self::with_burst_ms(per_s, burst_s.saturating_mul(1_000))
    }

    /// The same with those of `burst_ms` milliseconds, one at least: who has done nothing for long waits for nobody.
    #[must_use]
    pub fn with_burst_ms(per_s: u32, burst_ms: u64) -> Self {
        let every = if per_s == 0 { 0 } else { (1_000_000 / u64::from(per_s)).max(1) };
        Self { every, burst: burst_ms.saturating_mul(1_000).max(every) }
    }
}

/// A bucket.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// Takes a token, whether or not there is one: how long until what was taken is paid back.
    pub fn charge(&self, rate: Rate, now: Micros) -> Micros {
        if rate.every == 0 {
            return 0;
        }
        self.spend(rate.every, now).saturating_sub(rate.burst)
    }

    /// Takes what refills in `time`, whether or not it is there: how long until the bucket is full again.
    pub fn spend(&self, time: Micros, now: Micros) -> Micros {
        // From now at the earliest: time that passed while it was full is not saved up.
        let spent = |full_at: Micros| full_at.max(now).saturating_add(time);
        let before =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| Some(spent(full_at)));
        spent(before.unwrap_or_else(|same| same)).saturating_sub(now)
    }

    /// Whether anything is left of what a full bucket is worth.
    #[must_use]
    pub fn has_any(&self, burst: Micros, now: Micros) -> bool {
        self.0.load(Ordering::Relaxed).saturating_sub(now) < burst
    }

    /// Takes a token if there is one.
    ///
    /// # Errors
    /// How long until there is one.
    pub fn take(&self, rate: Rate, now: Micros) -> Result<(), Micros> {
        if rate.every == 0 {
            return Ok(());
        }
        let lacks = |full_at: Micros| {
            (full_at.max(now).saturating_add(rate.every)).saturating_sub(now).saturating_sub(rate.burst)
        };
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            // Nothing is taken in vain: whoever asks again and again must not push its own turn further away.
            (lacks(full_at) == 0).then(|| full_at.max(now).saturating_add(rate.every))
        });
        taken.map(drop).map_err(lacks)
    }

    /// Whether it is full: then nothing has to be remembered of it.
    #[must_use]
    pub fn is_full(&self, now: Micros) -> bool {
        self.0.load(Ordering::Relaxed) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_bucket_is_a_burst_and_then_the_rate_holds() {
        let (rate, bucket) = (Rate::new(10, 2), Bucket::default());
        assert!((0..20).all(|_| bucket.take(rate, 0).is_ok()));
        assert_eq!(bucket.take(rate, 0), Err(100_000));
        assert_eq!(bucket.take(rate, 99_999), Err(1));
        assert_eq!(bucket.take(rate, 100_000), Ok(()));
        assert!(!bucket.is_full(2_000_000) && bucket.is_full(2_100_000));
        assert_eq!(Bucket::default().take(Rate::new(0, 1), 0), Ok(()), "0 is no limit");
    }

    #[test]
    fn a_short_burst_holds_one_at_least() {
        assert_eq!(Rate::with_burst_ms(10, 250).burst, 250_000);
        assert_eq!(Rate::with_burst_ms(2, 250).burst, 500_000);
        assert_eq!(Bucket::default().charge(Rate::with_burst_ms(2, 250), 0), 0);
    }

    #[test]
    fn what_differs_in_size_is_taken_whole_and_paid_back() {
        let (burst, bucket) = (1_000_000, Bucket::default());
        assert!(bucket.has_any(burst, 0));
        assert_eq!([bucket.spend(400_000, 0), bucket.spend(3_000_000, 0)], [400_000, 3_400_000]);
        assert!(!bucket.has_any(burst, 2_400_000) && bucket.has_any(burst, 2_400_001));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(steps in prop::collection::vec(0_u64..300_000, 1..300)) {
            let (rate, bucket) = (Rate::new(10, 1), Bucket::default());
            let (mut now, mut taken) = (0, 0);
            for step in steps {
                now += step;
                taken += u64::from(bucket.take(rate, now).is_ok());
                prop_assert!(taken <= 10 + now / 100_000 + 1, "{taken} at {now}");
            }
        }

        #[test]
        fn whoever_waits_as_told_is_never_above_the_rate(frames in 1_u64..200) {
            let (rate, bucket) = (Rate::new(10, 1), Bucket::default());
            let mut now = 0;
            for _ in 0..frames {
                now += bucket.charge(rate, now);
            }
            prop_assert!(now >= (frames.saturating_sub(10)) * 100_000, "{frames} until {now}");
        }
    }
}
