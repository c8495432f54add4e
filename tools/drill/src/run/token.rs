//! Tokens for whoever connects in a run: clients and their bad neighbours. It asks nobody.

use std::time::Duration;

use sluice_launcher::token::{Grants, mint};

/// Longer than any part lasts.
const VALID: Duration = Duration::from_secs(24 * 3600);

/// A token that may read and write everything.
pub(crate) fn token(secret: &str, user: &str) -> Option<String> {
    let all = || vec!["*".to_owned()];
    mint(secret, user, Grants { sub: all(), publish: all() }, VALID).ok()
}
