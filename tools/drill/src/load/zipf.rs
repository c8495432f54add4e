//! Popularity: the place k of a list is chosen in proportion to 1/k^s. Pure.

use rand::RngExt;
use rand::rngs::SmallRng;

/// Chooses places 0…n−1, the first most often.
#[derive(Debug, Clone)]
pub struct Zipf {
    /// Share of all places up to each, the last is 1.
    up_to: Vec<f64>,
}

impl Zipf {
    /// Of `places` (at least one), with exponent `s`: 0 = all alike.
    #[must_use]
    pub fn new(places: u32, s: f64) -> Self {
        let weights: Vec<f64> = (1..=places.max(1)).map(|place| f64::from(place).powf(-s)).collect();
        let total: f64 = weights.iter().sum();
        let up_to = weights.iter().scan(0.0, |sum, weight| {
            *sum += weight / total;
            Some(*sum)
        });
        Self { up_to: up_to.collect() }
    }

    /// One place.
    pub fn pick(&self, rng: &mut SmallRng) -> usize {
        let drawn = rng.random::<f64>();
        // The last share may be a rounding below 1, and what is drawn above it.
        self.up_to.partition_point(|share| *share <= drawn).min(self.up_to.len() - 1)
    }

    /// How many places.
    #[must_use]
    pub fn places(&self) -> usize {
        self.up_to.len()
    }

    /// Share of a place.
    #[must_use]
    pub fn share(&self, place: usize) -> f64 {
        let before = place.checked_sub(1).and_then(|before| self.up_to.get(before)).copied();
        self.up_to.get(place).map_or(0.0, |share| share - before.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn places_are_chosen_by_their_share() {
        let zipf = Zipf::new(50, 1.0);
        assert!((zipf.share(0) / zipf.share(1) - 2.0).abs() < 1e-9);
        assert!(((0..50).map(|place| zipf.share(place)).sum::<f64>() - 1.0).abs() < 1e-9);
        let (mut rng, mut seen) = (Seed(1).stream("zipf", 0), vec![0_u32; 50]);
        for _ in 0..100_000 {
            seen[zipf.pick(&mut rng)] += 1;
        }
        for place in [0, 1, 9] {
            let (is, due) = (f64::from(seen[place]), 100_000.0 * zipf.share(place));
            assert!((is - due).abs() < due * 0.1, "place {place}: {is}, {due} expected");
        }
        assert!(seen.iter().all(|times| *times > 0));
        assert_eq!(Zipf::new(1, 1.0).pick(&mut rng), 0);
    }
}
