//! Log lines around an anomaly. It only helps people: what cannot be read or has no time is passed over.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::verdict::{Anomaly, Verdict};

/// How far from an anomaly a line may be.
const AROUND_US: i64 = 2_000_000;
/// Most lines of an anomaly.
const LINES_MAX: usize = 40;
/// Longest line shown, bytes.
const LINE_BYTES_MAX: usize = 400;

/// For one anomaly: lines by how far they are, then as they were read.
type Near = BTreeMap<(i64, usize), (i64, String)>;

/// Gives each anomaly that has a time the lines nearest to it, from all files of the folder and folders in it.
pub(crate) fn attach(verdict: &mut Verdict, dir: &Path, started_ms: u64) {
    let started_us = i64::try_from(started_ms).unwrap_or(i64::MAX / 1_000).saturating_mul(1_000);
    let when =
        |anomaly: &Anomaly| started_us.saturating_add(i64::try_from(anomaly.at_us).unwrap_or(i64::MAX));
    let mut moments: Vec<(i64, usize)> = Vec::new();
    for (index, anomaly) in verdict.anomalies.iter().enumerate() {
        if anomaly.at_us > 0 {
            moments.push((when(anomaly), index));
        }
    }
    if moments.is_empty() {
        return;
    }
    // In order of time: each line of the logs looks only at the anomalies around it.
    moments.sort_unstable();
    let mut near: Vec<Near> = vec![Near::new(); verdict.anomalies.len()];
    let mut read = 0;
    for path in files(dir) {
        let Ok(file) = File::open(&path) else { continue };
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
            read += 1;
            let line = String::from_utf8_lossy(&line);
            let Some(at) = time_of(&line) else { continue };
            let first = moments.partition_point(|(moment, _)| *moment < at - AROUND_US);
            for (moment, index) in &moments[first..] {
                if *moment > at + AROUND_US {
                    break;
                }
                keep(&mut near[*index], (at - moment).abs(), read, at, || {
                    format!("{name}: {}", short(&line))
                });
            }
        }
    }
    for (anomaly, near) in verdict.anomalies.iter_mut().zip(near) {
        let mut lines: Vec<((i64, usize), String)> =
            near.into_iter().map(|((_, read), (at, line))| ((at, read), line)).collect();
        lines.sort_unstable();
        anomaly.logs = lines.into_iter().map(|(_, line)| line).collect();
    }
}

fn keep(near: &mut Near, distance: i64, read: usize, at: i64, line: impl FnOnce() -> String) {
    // The nearest ones win; the text of a line is only made for those.
    if near.len() >= LINES_MAX && near.last_key_value().is_some_and(|((far, _), _)| *far <= distance) {
        return;
    }
    near.insert((distance, read), (at, line()));
    if near.len() > LINES_MAX {
        near.pop_last();
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for found in folder.read_dir().into_iter().flatten().flatten() {
            match found.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(found.path()),
                Ok(kind) if kind.is_file() => files.push(found.path()),
                Ok(_) | Err(_) => {}
            }
        }
    }
    // The system gives them in any order, and two reports of one run must be equal.
    files.sort();
    files
}

fn short(line: &str) -> &str {
    let mut end = line.len().min(LINE_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    &line[..end]
}

/// Microseconds since 1970 of the first RFC 3339 time in UTC near the beginning of a line, text or JSON, coloured or not.
fn time_of(line: &str) -> Option<i64> {
    let bytes = line.as_bytes();
    // Near the beginning only: further on a time belongs to what the line talks about.
    let head = &bytes[..bytes.len().min(200)];
    let place = head.windows(11).position(|it| {
        let digits = |range: std::ops::Range<usize>| it[range].iter().all(u8::is_ascii_digit);
        digits(0..4) && digits(5..7) && digits(8..10) && it[4] == b'-' && it[7] == b'-' && it[10] == b'T'
    })?;
    let text = &bytes[place..];
    let part = |from: usize, to: usize| -> Option<i64> {
        std::str::from_utf8(text.get(from..to)?).ok()?.parse::<u32>().ok().map(i64::from)
    };
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    let mut micros = 0;
    if text.get(19) == Some(&b'.') {
        let mut unit = 100_000;
        for digit in text[20..].iter().take_while(|byte| byte.is_ascii_digit()) {
            micros += i64::from(digit - b'0') * unit;
            unit /= 10;
        }
    }
    let days = days_before(year, month, day);
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

/// Days from 1970 to a date of the Gregorian calendar; years are counted from March, so that the leap day is the last.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leaps + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_text_and_json() {
        let at = |line| time_of(line).unwrap();
        assert_eq!(at("1970-01-01T00:00:00Z  INFO"), 0);
        assert_eq!(at("2025-11-21T18:23:04.123456Z  INFO sluice: up"), 1_763_749_384_123_456);
        assert_eq!(at("{\"timestamp\":\"2000-02-29T23:59:59.5Z\"}"), 951_868_799_500_000);
        assert_eq!(at("\u{1b}[2m2024-03-01T00:00:00.000001Z\u{1b}[0m"), 1_709_251_200_000_001);
        assert_eq!(time_of("no time here"), None);
        assert_eq!(time_of("2025-11-21T"), None);
    }
}
