//! Times as platforms write them: `12`, `10s`, `1m30s`, `1min 30s`, `infinity`. Pure.

use std::time::Duration;

/// A time, or `Some(None)`: for ever. A number alone is seconds.
pub(super) fn duration(text: &str) -> Option<Option<Duration>> {
    if text == "infinity" {
        return Some(None);
    }
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        let behind = behind.trim_start();
        let letters = behind.find(|c: char| !c.is_alphabetic()).unwrap_or(behind.len());
        let (unit, next) = behind.split_at(letters);
        let seconds = number.parse::<f64>().ok()? * unit_seconds(unit)?;
        sum = sum.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = next.trim_start();
    }
    // systemd takes nothing for ever; to the others it is no time at all, which is shorter than any stop.
    Some(Some(sum))
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "us" | "usec" => 0.000_001,
        "ms" | "msec" => 0.001,
        "" | "s" | "sec" | "second" | "seconds" => 1.0,
        "m" | "min" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hour" | "hours" => 3_600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_platforms_write_them() {
        let cases = [
            ("12", 12_000),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1min 30s", 90_000),
            ("500ms", 500),
            ("1.5s", 1_500),
            ("1h 1ms", 3_600_001),
        ];
        for (text, ms) in cases {
            assert_eq!(duration(text), Some(Some(Duration::from_millis(ms))), "{text}");
        }
        assert_eq!(duration("infinity"), Some(None));
        for text in ["", "s", "10x", "{{ .Values.grace }}", "1..2s", "-1s", "99999999999999999999d"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
