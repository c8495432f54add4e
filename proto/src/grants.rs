//! What grants cover: exact room names, or prefixes ending in `*`. One rule for clients and for who calls the API.
//!
//! A room that addresses one user (`@…`) needs a grant that says so: `*` is for the rooms that people share.

/// Whether one of the patterns covers a room.
pub fn cover<T: AsRef<str>>(patterns: &[T], room: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.as_ref().strip_suffix('*') {
        Some("") => !room.starts_with('@'),
        Some(prefix) => room.starts_with(prefix),
        None => room == pattern.as_ref(),
    })
}

/// Whether one of the patterns covers rooms of every name that begins like this, those of single users aside where
/// the pattern is `*`.
pub fn cover_prefix<T: AsRef<str>>(patterns: &[T], prefix: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.as_ref().strip_suffix('*') {
        Some("") => !prefix.starts_with('@'),
        Some(stem) => prefix.starts_with(stem),
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_the_rest_of_a_name_and_for_nobody() {
        for (pattern, room, covered) in [
            ("news", "news", true),
            ("news", "newst", false),
            ("news.*", "news.a", true),
            ("news.*", "news", false),
            ("*", "a@b", true),
            ("*", "@ann", false),
            ("@*", "@ann", true),
            ("@ann", "@ann", true),
        ] {
            assert_eq!(cover(&[pattern], room), covered, "{pattern} {room}");
        }
        assert!(!cover::<&str>(&[], "news"));
    }

    #[test]
    fn a_prefix_is_covered_by_a_shorter_one() {
        for (pattern, prefix, covered) in [
            ("*", "", true),
            ("*", "news", true),
            ("*", "@", false),
            ("@*", "@a", true),
            ("news.*", "news.", true),
            ("news.*", "news.a", true),
            ("news.*", "news", false),
            ("news.a", "news.a", false),
        ] {
            assert_eq!(cover_prefix(&[pattern], prefix), covered, "{pattern} {prefix}");
        }
    }
}
