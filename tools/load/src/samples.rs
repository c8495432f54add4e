//! Latencies, kept as they are up to a bound, so that quantiles are exact. It knows nothing of what was timed.

use serde::{Deserialize, Serialize};

/// Latencies kept at most: a minute of 50,000 a second, 12 MB.
const SAMPLES_MAX: usize = 3_000_000;

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half of them are below.
    pub p50: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// The longest.
    pub max: f64,
    /// How many there were.
    pub count: u64,
}

/// Latencies since the last look.
#[derive(Debug, Default)]
pub struct Samples {
    /// Microseconds.
    kept: Vec<u32>,
}

impl Samples {
    /// One more.
    pub fn took(&mut self, ns: u64) {
        // The first ones stay: to draw by chance would cost more than what is measured.
        if self.kept.len() < SAMPLES_MAX {
            self.kept.push(u32::try_from(ns / 1_000).unwrap_or(u32::MAX));
        }
    }

    /// What they amount to; they are forgotten. `None` without any.
    pub fn take(&mut self) -> Option<Quantiles> {
        let mut kept = std::mem::take(&mut self.kept);
        kept.sort_unstable();
        let at = |share: f64| {
            let index = (kept.len() as f64 * share) as usize;
            Some(f64::from(*kept.get(index).or(kept.last())?) / 1_000.0)
        };
        Some(Quantiles { p50: at(0.50)?, p99: at(0.99)?, max: at(1.0)?, count: kept.len() as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_forgets() {
        let mut samples = Samples::default();
        (1..=100).for_each(|ms| samples.took(ms * 1_000_000));
        let seen = samples.take();
        assert_eq!(seen, Some(Quantiles { p50: 51.0, p99: 100.0, max: 100.0, count: 100 }));
        assert_eq!(samples.take(), None);
    }
}
