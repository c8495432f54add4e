//! Everything random of a run comes from one number: each user of chance has its own stream, named, so that adding one
//! does not move the others. It never asks the system for randomness.

use rand::SeedableRng;
use rand::rngs::SmallRng;
use sluice_judge::record::hash_of;

/// The number a run can be repeated with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// The stream of this name and number; the same seed gives the same stream.
    #[must_use]
    pub fn stream(self, name: &str, number: u32) -> SmallRng {
        SmallRng::seed_from_u64(hash_of(format!("{}/{name}/{number}", self.0).as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;

    #[test]
    fn streams_repeat_and_differ() {
        let draw = |seed: u64, name: &str, number| Seed(seed).stream(name, number).random::<u64>();
        assert_eq!(draw(1, "sends", 3), draw(1, "sends", 3));
        assert_ne!(draw(1, "sends", 3), draw(1, "sends", 4));
        assert_ne!(draw(1, "sends", 3), draw(1, "habits", 3));
        assert_ne!(draw(1, "sends", 3), draw(2, "sends", 3));
    }
}
