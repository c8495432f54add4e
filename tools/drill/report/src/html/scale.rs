//! Where a value is on an axis, as a share of its length, and where its ticks are. Pure.

use crate::words::{count, duration};

/// Ticks of an axis: where, and what stands there.
pub(super) type Ticks = Vec<(f64, String)>;

/// Steps of a time axis, in seconds.
const STEPS_S: [u64; 17] =
    [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 14_400, 28_800, 86_400];

/// Ticks of a time axis at most.
const TICKS_MAX: u64 = 6;

/// Share of `part` in `whole`, 0..=1.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).clamp(0.0, 1.0) }
}

/// `12.34%`.
pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Ticks of `0..=length_us`.
pub(super) fn time_ticks(length_us: u64) -> Ticks {
    let seconds = length_us.div_ceil(1_000_000).max(1);
    let step = STEPS_S.into_iter().find(|step| seconds / step <= TICKS_MAX);
    let step = step.unwrap_or_else(|| seconds.div_ceil(TICKS_MAX));
    (0..=length_us / 1_000_000)
        .step_by(step as usize)
        .map(|at| {
            let text = match at {
                0 => "0".to_owned(),
                1..60 => format!("{at} s"),
                _ => duration(at * 1_000_000),
            };
            (share(at * 1_000_000, length_us), text)
        })
        .collect()
}

/// The end of an axis from 0 that holds `max`, and its ticks.
pub(super) fn even(max: u64) -> (u64, Ticks) {
    let magnitude = 10_u64.pow(max.max(1).ilog10());
    let steps = [1, 2, 5, 10, 20].map(|tenths| (tenths * magnitude / 10).max(1));
    let step = steps.into_iter().find(|step| max.div_ceil(*step) <= 5).unwrap_or(magnitude * 5);
    let end = max.max(1).div_ceil(step) * step;
    (end, (0..=end / step).map(|i| (share(i * step, end), count(i * step))).collect())
}

/// An axis of durations by decades.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decades {
    low: u32,
    high: u32,
}

impl Decades {
    /// The decades that hold all of `values_us`, at least one.
    pub(super) fn of(values_us: impl Iterator<Item = u64>) -> Self {
        let (mut low, mut high) = (u64::MAX, 0);
        for value in values_us {
            low = low.min(value.max(100));
            high = high.max(value);
        }
        let low = if low == u64::MAX { 3 } else { low.ilog10() };
        let high = high.max(1).ilog10() + u32::from(!is_decade(high));
        Self { low, high: high.max(low + 1) }
    }

    /// Where a value is; what is less than the axis shows is at its beginning.
    pub(super) fn share(self, us: u64) -> f64 {
        let at = (us.max(1) as f64).log10();
        ((at - f64::from(self.low)) / f64::from(self.high - self.low)).clamp(0.0, 1.0)
    }

    pub(super) fn ticks(self) -> Ticks {
        let text = |us: u64| match us {
            1_000_000.. => format!("{} s", us / 1_000_000),
            1_000.. => format!("{} ms", us / 1_000),
            _ => format!("{us} µs"),
        };
        (self.low..=self.high).map(|decade| 10_u64.pow(decade)).map(|us| (self.share(us), text(us))).collect()
    }
}

fn is_decade(us: u64) -> bool {
    us > 0 && 10_u64.pow(us.ilog10()) == us
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_their_values_and_have_few_ticks() {
        for (max, end) in [(0, 1), (1, 1), (7, 8), (10, 10), (1_999, 2_000), (2_100, 2_500), (500, 500)] {
            let (top, ticks) = even(max);
            assert!(top >= max && ticks.len() <= 6, "{max}: {ticks:?}");
            assert_eq!(top, end, "{max}: {ticks:?}");
        }
        let texts = |us| time_ticks(us).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(texts(25_000_000), ["0", "5 s", "10 s", "15 s", "20 s", "25 s"]);
        assert!(texts(24 * 3_600_000_000).len() <= 7);
    }

    #[test]
    fn decades_hold_their_values() {
        let axis = Decades::of([1_500, 2_000_000].into_iter());
        let texts: Vec<_> = axis.ticks().into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["1 ms", "10 ms", "100 ms", "1 s", "10 s"]);
        assert!((axis.share(100_000) - 0.5).abs() < 1e-9);
        assert_eq!((axis.share(0), axis.share(u64::MAX)), (0.0, 1.0));
    }

    #[test]
    fn percents_are_short() {
        assert_eq!(
            (percent(0.5), percent(1.0 / 3.0), percent(0.0)),
            ("50%".into(), "33.33%".into(), "0%".into())
        );
    }
}
