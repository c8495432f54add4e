//! How many files this process may have open: every client is one. Raised to what the system allows.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::defaults::FILES_BESIDES;

/// Raises the soft limit to the hard one and says so; warns when that is too little for so many
/// connections: beyond it clients wait in the kernel's queue, where nobody tells them to go elsewhere.
pub fn raise(connections_max: usize) {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
            tracing::info!(before = soft, now = hard, "The limit of open files is raised.");
        }
        Ok(hard)
    });
    match limit {
        Ok(limit) if limit < needed(connections_max) => tracing::warn!(
            limit,
            connections_max,
            "Too few files may be open for that many connections: raise the limit (LimitNOFILE, ulimits) to {} or lower connections_max.",
            needed(connections_max)
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "The limit of open files could not be raised."),
    }
}

fn needed(connections_max: usize) -> u64 {
    (connections_max as u64).saturating_add(FILES_BESIDES)
}

#[cfg(test)]
mod tests {
    use sluice_testing::{keep_log, logged};

    use super::*;

    #[test]
    fn all_that_the_system_allows_is_used_and_only_a_change_is_said() {
        keep_log();
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(256), hard).unwrap();
        for _ in 0..2 {
            raise(usize::MAX);
            assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
            assert_eq!(logged("The limit of open files is raised.").len(), usize::from(hard > 256));
        }
    }
}
