//! The pace of publishing. It is open: what answers late does not slow it.

use std::time::Duration;

use tokio::time::{Instant, Interval, interval_at};

/// When behaviour begins, seconds: soon, so that a short run has all of them.
pub(super) const FIRST_S: std::ops::Range<f64> = 1.0..5.0;

/// Ticks of so many a second, the first after this part of the time between two; a late one is not left out. `None` =
/// never.
pub(super) fn pace(rate_per_s: f64, phase: f64) -> Option<Interval> {
    let between = Duration::try_from_secs_f64(1.0 / rate_per_s).ok().filter(|between| !between.is_zero())?;
    Some(interval_at(Instant::now() + between.mul_f64(phase), between))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn late_ticks_are_made_up_for() {
        assert!(pace(0.0, 0.5).is_none());
        let mut ticks = pace(10.0, 0.5).unwrap();
        let start = Instant::now();
        ticks.tick().await;
        assert_eq!(start.elapsed(), Duration::from_millis(50));
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..10 {
            ticks.tick().await;
        }
        assert!(start.elapsed() < Duration::from_millis(1_060), "ten at once: {:?}", start.elapsed());
    }
}
