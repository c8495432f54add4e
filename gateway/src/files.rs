//! How many files this process may have open: every client is one. Raised to what the system allows.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::defaults::FILES_BESIDES;

/// Raises the soft limit to the hard one and says so; warns when that is too little for all gateways of this process with
/// so many connections each: beyond it clients wait in the kernel's queue, where nobody tells them to go elsewhere.
pub fn raise(gateways: usize, connections_max: usize) {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
            tracing::info!(before = soft, now = hard, "The limit of open files is raised.");
        }
        Ok(hard)
    });
    match limit {
        Ok(limit) if limit < needed(gateways, connections_max) => tracing::warn!(
            limit,
            gateways,
            connections_max,
            "Too few files may be open for that many connections: raise the limit (LimitNOFILE, ulimits) to {} or lower connections_max.",
            needed(gateways, connections_max)
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "The limit of open files could not be raised."),
    }
}

fn needed(gateways: usize, connections_max: usize) -> u64 {
    (connections_max as u64).saturating_add(FILES_BESIDES).saturating_mul(gateways as u64)
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
            raise(1, usize::MAX);
            assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
            assert_eq!(logged("The limit of open files is raised.").len(), usize::from(hard > 256));
        }
    }

    #[test]
    fn gateways_of_one_process_share_its_limit() {
        assert_eq!(needed(1, 100_000), 102_048, "LimitNOFILE of deploy/systemd/sluice-gateway.service");
        assert_eq!(needed(2, 100_000), 204_096, "the same of deploy/systemd/sluice.service");
        assert_eq!(needed(2, usize::MAX), u64::MAX);
    }
}
