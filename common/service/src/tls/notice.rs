//! What is said of a certificate that ends: each day of its last thirty, and each hour of the last one. Pure.

use std::time::Duration;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// Before its end a certificate is worth a warning for so long.
pub(super) const SOON: Duration = Duration::from_secs(30 * DAY);

/// What is left, as it is said: in days, on the last one in hours. The same words for the same warning, so that it is
/// said once; `None`: long enough.
pub(super) fn notice(left: Duration) -> Option<String> {
    let seconds = left.as_secs();
    match seconds {
        0 => Some("has expired".to_owned()),
        _ if left >= SOON => None,
        _ if seconds >= DAY => Some(format!("expires within {} days", seconds / DAY + 1)),
        _ if seconds >= HOUR => Some(format!("expires within {} hours", seconds / HOUR + 1)),
        _ => Some("expires within the hour".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_each_day_and_on_the_last_one_each_hour() {
        let said = |seconds: u64| notice(Duration::from_secs(seconds));
        assert_eq!([said(30 * DAY), said(400 * DAY)], [None, None]);
        assert_eq!(said(30 * DAY - 1).as_deref(), Some("expires within 30 days"));
        assert_eq!(said(DAY).as_deref(), Some("expires within 2 days"));
        assert_eq!(said(DAY - 1).as_deref(), Some("expires within 24 hours"));
        assert_eq!(
            (said(1).as_deref(), said(0).as_deref()),
            (Some("expires within the hour"), Some("has expired"))
        );
    }
}
