//! Which build a program is: its version, the commit it was made from, the features that were built in.

/// The version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit, as far as the build was told or could find out.
#[must_use]
pub fn commit() -> Option<&'static str> {
    Some(env!("SLUICE_BUILD_COMMIT")).filter(|commit| !commit.is_empty())
}

/// `0.1.0 (commit 1a2b3c4d5e6f, release build, features: dev servers)`
#[must_use]
pub fn describe(features: &[(&str, bool)]) -> String {
    text(commit(), env!("SLUICE_BUILD_KIND"), features)
}

fn text(commit: Option<&str>, kind: &str, features: &[(&str, bool)]) -> String {
    let built_in: Vec<&str> =
        features.iter().filter(|(_, built_in)| *built_in).map(|(name, _)| *name).collect();
    let features = if built_in.is_empty() { "none".to_owned() } else { built_in.join(" ") };
    format!("{VERSION} (commit {}, {kind} build, features: {features})", commit.unwrap_or("unknown"))
}

/// Names features of the calling crate, for [`describe`].
#[macro_export]
macro_rules! features {
    ($($name:literal),* $(,)?) => { &[$(($name, cfg!(feature = $name))),*] };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_described() {
        let features = [("dev", true), ("store", false), ("servers", true)];
        let said = text(Some("1a2b3c4d5e6f"), "release", &features);
        assert_eq!(said, format!("{VERSION} (commit 1a2b3c4d5e6f, release build, features: dev servers)"));
        let said = text(None, "debug", &features[1..2]);
        assert_eq!(said, format!("{VERSION} (commit unknown, debug build, features: none)"));
    }
}
