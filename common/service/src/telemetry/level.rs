//! What passes into the log, as people write it. Pure: the environment is the caller's.
//!
//! `tracing` takes a word that is no level for the name of a target and turns everything else off, warnings included:
//! here a bare word is a level, under one of the names it commonly has, or an error.

use tracing_subscriber::EnvFilter;

/// The names that are written down.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
/// The names other systems have for them.
const OTHERS: [(&str, &str); 14] = [
    ("warning", "warn"),
    ("warnings", "warn"),
    ("err", "error"),
    ("errors", "error"),
    ("fatal", "error"),
    ("critical", "error"),
    ("information", "info"),
    ("notice", "info"),
    ("verbose", "debug"),
    ("all", "trace"),
    ("max", "trace"),
    ("none", "off"),
    ("silent", "off"),
    ("disabled", "off"),
];
/// Without a level for everything: what concerns an operator still passes. The drivers of stores say of their own
/// connections what is news to us only when it is a warning; a filter that names them wins.
const BASE: &str = "warn,async_nats=warn,sqlx=warn";
/// When nothing is said.
const USUAL: &str = "info";
/// How like a word has to be to be suggested.
const LIKE: f64 = 0.75;

/// The level or filter is not understood.
#[derive(Debug, thiserror::Error)]
#[error("{key} is {text:?}: {reason}")]
pub struct BadLevel {
    key: &'static str,
    text: String,
    reason: String,
}

/// The filter that `text` means, which was found under `key`.
///
/// # Errors
/// [`BadLevel`], with the level that was meant perhaps.
pub(super) fn filter(key: &'static str, text: &str) -> Result<EnvFilter, BadLevel> {
    let bad = |reason| BadLevel { key, text: text.to_owned(), reason };
    let directives = directives(text).map_err(bad)?;
    EnvFilter::builder().parse(format!("{BASE},{directives}")).map_err(|error| bad(error.to_string()))
}

/// As `tracing` takes it.
fn directives(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Ok(USUAL.to_owned());
    }
    if text.contains('[') {
        // Spans and their fields, where a comma does not separate: only who knows the syntax writes that.
        return Ok(text.to_owned());
    }
    let all: Result<Vec<String>, String> =
        text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(directive).collect();
    Ok(all?.join(","))
}

fn directive(one: &str) -> Result<String, String> {
    match one.split_once('=') {
        Some((target, word)) => Ok(format!("{target}={}", level(word)?)),
        // The path of a module: whoever writes it means all of it.
        None if one.contains("::") => Ok(one.to_owned()),
        None => level(one).map(ToOwned::to_owned),
    }
}

fn level(word: &str) -> Result<&str, String> {
    let lower = word.to_ascii_lowercase();
    if let Some(level) = LEVELS.into_iter().find(|level| *level == lower) {
        return Ok(level);
    }
    if let Some((_, level)) = OTHERS.into_iter().find(|(other, _)| *other == lower) {
        return Ok(level);
    }
    // Numbers are levels too, 0 = off … 5 = trace.
    if matches!(lower.as_str(), "0" | "1" | "2" | "3" | "4" | "5") {
        return Ok(word);
    }
    let known = LEVELS.into_iter().map(|level| (level, level)).chain(OTHERS);
    let near = known
        .map(|(name, level)| (strsim::jaro_winkler(&lower, name), level))
        .filter(|(like, _)| *like >= LIKE);
    let near =
        near.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, level)| format!("; did you mean `{level}`?"));
    let levels = LEVELS.join(", ");
    Err(format!(
        "`{word}` is no level{} (levels are {levels}; for one part of the program write PART=LEVEL, as in `info,sluice_gateway=debug`)",
        near.unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let mut all: Vec<String> =
            filter("log.level", text).unwrap().to_string().split(',').map(str::to_owned).collect();
        all.retain(|one| !one.starts_with("async_nats") && !one.starts_with("sqlx"));
        all.sort();
        all
    }

    #[test]
    fn levels_are_taken_under_the_names_people_know() {
        for (text, level) in [
            ("warning", "warn"),
            ("WARN", "warn"),
            ("verbose", "debug"),
            ("Information", "info"),
            ("none", "off"),
            ("", "info"),
            (" debug ", "debug"),
            ("4", "debug"),
        ] {
            assert_eq!(shown(text), [level], "{text:?}");
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_an_error_with_the_near_match() {
        for (text, near) in [
            ("debgu", "`debug`"),
            ("inof", "`info`"),
            ("wanr", "`warn`"),
            ("sluice_gateway=lodu,info", "no level"),
            ("sluice_gateway", "PART=LEVEL"),
            ("x=warnnig", "`warn`"),
        ] {
            let error = filter("RUST_LOG", text).map(drop).expect_err(text).to_string();
            assert!(error.contains(near) && error.starts_with("RUST_LOG is"), "{error}");
        }
    }

    #[test]
    fn full_filters_work_as_ever_and_warnings_pass_unless_they_are_turned_off() {
        assert_eq!(shown("sluice_gateway=debug,info"), ["info", "sluice_gateway=debug"]);
        assert_eq!(shown("sluice_gateway=verbose"), ["sluice_gateway=debug", "warn"]);
        assert_eq!(shown("off,sluice_logic::publish=trace"), ["off", "sluice_logic::publish=trace"]);
        assert_eq!(shown("sluice_logic::publish"), ["sluice_logic::publish=trace", "warn"]);
        assert!(filter("log.level", "info,[service{name=task}]=debug").is_ok());
    }
}
