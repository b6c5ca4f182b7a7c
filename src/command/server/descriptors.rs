//! File descriptors: as many as the system gives, and some of them for the store.

use crate::common::failure::{Failure, Outcome};

/// The store's part, at least: segments, hints and what it writes.
const STORE_MIN: u64 = 128;
/// The store's part, at most.
const STORE_MAX: u64 = 4096;

/// Raises the limit of this process to what it may be; returns it. None for no limit.
#[cfg(unix)]
pub(super) fn raise() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of file descriptors could not be raised");
            limit.current
        }
    }
}

#[cfg(not(unix))]
pub(super) fn raise() -> Option<u64> {
    None
}

/// How many connections each of so many listeners may have, with `spare` more each, so that some
/// descriptors are left for the store. An error if there are too few for any.
pub(super) fn connections(limit: Option<u64>, wanted: usize, (listeners, spare): (usize, usize)) -> Outcome<usize> {
    let Some(limit) = limit else {
        return Ok(wanted);
    };
    let store = (limit / 4).clamp(STORE_MIN, STORE_MAX);
    let each = usize::try_from(limit.saturating_sub(store)).unwrap_or(usize::MAX) / listeners.max(1);
    match each.saturating_sub(spare) {
        0 => Err(Failure::usage(
            format!("{limit} file descriptors are too few for {listeners} listeners and a store"),
            "raise the limit: `ulimit -n` in a shell, LimitNOFILE= in a unit of systemd",
        )),
        each if each < wanted => {
            tracing::warn!(
                "{limit} file descriptors allow {each} connections for each listener, not {wanted}: raise the limit \
                 (`ulimit -n`, LimitNOFILE= of systemd), or lower --max-connections"
            );
            Ok(each)
        }
        _ => Ok(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_store() {
        let connections = |limit, wanted| connections(limit, wanted, (2, 32)).ok();
        assert_eq!(connections(None, 5_000_000), Some(5_000_000));
        assert_eq!(connections(Some(1 << 20), 1024), Some(1024));
        assert_eq!(connections(Some(1024), 1024), Some((1024 - 256) / 2 - 32));
        assert_eq!(connections(Some(1024), 100), Some(100));
        assert_eq!(connections(Some(1 << 20), 1 << 20), Some(((1 << 20) - 4096) / 2 - 32));
        for too_few in [0, 10, 128, 192] {
            assert_eq!(connections(Some(too_few), 1), None, "{too_few}");
        }
    }
}
