//! Values over time, never more than can be drawn. Pure.

use super::{
    folder::RunFolder,
    measures::{ConnectionCounts, Latency, POINTS_MAX},
    spread::Counted,
};

const SECOND_US: u64 = 1_000_000;

/// Latencies in stretches of equal length.
pub(super) struct Timeline {
    step_us: u64,
    stretches: Vec<Counted>,
}

impl Timeline {
    /// For runs of `length_us` together: a second each, or as many whole seconds as bound the number of stretches.
    pub(super) fn new(length_us: u64) -> Self {
        let step_us = length_us.div_ceil(SECOND_US).div_ceil(POINTS_MAX as u64).max(1) * SECOND_US;
        let stretches = usize::try_from(length_us.div_ceil(step_us)).unwrap_or(POINTS_MAX).max(1);
        Self { step_us, stretches: vec![Counted::default(); stretches] }
    }

    pub(super) fn step_us(&self) -> u64 {
        self.step_us
    }

    pub(super) fn add(&mut self, at_us: u64, took_us: u64) {
        let last = self.stretches.len() - 1;
        let stretch = usize::try_from(at_us / self.step_us).unwrap_or(last).min(last);
        if let Some(counted) = self.stretches.get_mut(stretch) {
            counted.add(took_us);
        }
    }

    pub(super) fn finish(self) -> Vec<Latency> {
        let step_us = self.step_us;
        let latencies = (0..).step_by(step_us as usize).zip(&self.stretches).filter(|(_, one)| one.n() > 0);
        latencies
            .map(|(at_us, counted)| Latency {
                at_us,
                n: counted.n(),
                p50_us: counted.percentile(50),
                p99_us: counted.percentile(99),
                max_us: counted.max(),
            })
            .collect()
    }
}

/// The connections of every gateway in every run, each run at its offset.
pub(super) fn connections(parts: &[RunFolder], offsets: &[u64]) -> Vec<ConnectionCounts> {
    let mut gateways: Vec<&String> =
        parts.iter().flat_map(|part| &part.samples).flat_map(|sample| sample.connections.keys()).collect();
    gateways.sort_unstable();
    gateways.dedup();
    let points_max = POINTS_MAX / parts.len().max(1);
    let of = |gateway: &String| {
        let runs = parts.iter().zip(offsets).map(|(part, offset)| {
            let points = part
                .samples
                .iter()
                .map(|sample| (offset + sample.at_us, sample.connections.get(gateway).copied().unwrap_or(0)));
            thin(&points.collect::<Vec<_>>(), points_max)
        });
        ConnectionCounts { gateway: gateway.clone(), runs: runs.collect() }
    };
    gateways.into_iter().map(of).collect()
}

/// At most `max` of the points: of each stretch the lowest and the highest, so that no dip is lost.
fn thin(points: &[(u64, u64)], max: usize) -> Vec<(u64, u64)> {
    if points.len() <= max {
        return points.to_vec();
    }
    let stretches = (max / 2).max(1);
    let mut kept = Vec::with_capacity(max);
    for stretch in points.chunks(points.len().div_ceil(stretches)) {
        let low = stretch.iter().min_by_key(|(_, value)| *value);
        let high = stretch.iter().max_by_key(|(_, value)| *value);
        let mut both: Vec<_> = low.into_iter().chain(high).copied().collect();
        both.sort_unstable();
        both.dedup();
        kept.extend(both);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_dips() {
        let mut points: Vec<(u64, u64)> = (0..10_000).map(|at| (at, 500)).collect();
        points[7_777].1 = 0;
        let kept = thin(&points, 1_000);
        assert!(kept.len() <= 1_000);
        assert!(kept.contains(&(7_777, 0)));
        assert!(kept.is_sorted());
    }

    #[test]
    fn a_long_run_has_no_more_stretches_than_a_short_one() {
        let mut short = Timeline::new(3_000_000);
        for (at, took) in [(0, 5), (999_999, 7), (2_500_000, 9), (99_000_000, 11)] {
            short.add(at, took);
        }
        let seen: Vec<_> = short.finish().iter().map(|one| (one.at_us, one.n, one.max_us)).collect();
        assert_eq!(seen, [(0, 2, 7), (2_000_000, 2, 11)]);
        let long = Timeline::new(24 * 3_600 * SECOND_US);
        assert_eq!(long.step_us(), 87 * SECOND_US);
        assert!(long.stretches.len() <= POINTS_MAX);
    }
}
