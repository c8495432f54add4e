//! Numbers as people read them. Pure.

/// What stands where there is no value.
pub(super) const NONE: &str = "–";

/// `1,234,567`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut words = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            words.push(',');
        }
        words.push(digit);
    }
    words
}

/// `1 fault`, `2 faults`.
pub(super) fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// A duration with three digits at most: `850 µs`, `3.4 ms`, `340 ms`, `2.31 s`, `3 min 20 s`, `2 h 5 min`.
pub(super) fn duration(us: u64) -> String {
    let ms = us as f64 / 1e3;
    match us {
        0 => "0 ms".to_owned(),
        1..1_000 => format!("{us} µs"),
        1_000..9_950 => format!("{ms:.1} ms"),
        9_950..999_500 => format!("{ms:.0} ms"),
        999_500..9_995_000 => format!("{:.2} s", ms / 1e3),
        9_995_000..59_950_000 => format!("{:.1} s", ms / 1e3),
        _ => {
            let seconds = (us + 500_000) / 1_000_000;
            match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
                (0, minutes, 0) => format!("{minutes} min"),
                (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
                (hours, 0, _) => format!("{hours} h"),
                (hours, minutes, _) => format!("{hours} h {minutes} min"),
            }
        }
    }
}

/// The same, or a dash.
pub(super) fn duration_or_none(us: Option<u64>) -> String {
    us.map_or_else(|| NONE.to_owned(), duration)
}

/// A moment of the run's clock: `83.250 s`.
pub(super) fn moment(us: u64) -> String {
    format!("{}.{:03} s", count(us / 1_000_000), us / 1_000 % 1_000)
}

/// `2026-11-21 18:31 UTC` from milliseconds since 1970.
pub(super) fn date(ms: u64) -> String {
    let minutes = ms / 60_000;
    let mut days = minutes / 1_440;
    let mut year = 1970;
    while days >= year_days(year) {
        days -= year_days(year);
        year += 1;
    }
    let mut month = 1;
    while days >= month_days(year, month) {
        days -= month_days(year, month);
        month += 1;
    }
    format!("{year}-{month:02}-{:02} {:02}:{:02} UTC", days + 1, minutes / 60 % 24, minutes % 60)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn year_days(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

fn month_days(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The first `max` characters of one line, without what would move a terminal's cursor.
pub(super) fn line(text: &str, max: usize) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(max).collect();
    if text.chars().nth(max).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let words: Vec<_> = [0, 7, 1_000, 9_949, 9_950, 999_499, 999_500, 9_994_999, 59_900_000, 60_000_000]
            .into_iter()
            .map(duration)
            .collect();
        let wanted =
            ["0 ms", "7 µs", "1.0 ms", "9.9 ms", "10 ms", "999 ms", "1.00 s", "9.99 s", "59.9 s", "1 min"];
        assert_eq!(words, wanted);
        assert_eq!(
            (duration(200_000_000), duration(7_500_000_000)),
            ("3 min 20 s".into(), "2 h 5 min".into())
        );
    }

    #[test]
    fn dates_know_leap_years() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(1_709_164_800_000), "2024-02-29 00:00 UTC");
        assert_eq!(date(1_795_285_861_000), "2026-11-21 18:31 UTC");
    }

    #[test]
    fn counts_are_grouped_and_plurals_right() {
        assert_eq!((count(0), count(999), count(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
        assert_eq!(
            (counted(1, "fault", "faults"), counted(0, "fault", "faults")),
            ("1 fault".into(), "0 faults".into())
        );
    }

    #[test]
    fn lines_are_cut_and_harmless() {
        assert_eq!(line("a\u{1b}[2Jb\nc", 100), "a [2Jb c");
        assert_eq!(line("äöü", 2), "äö…");
    }
}
