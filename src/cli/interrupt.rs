//! Ctrl-C and its kin: long work looks here now and then, and ends in good order.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use super::failure::{Failure, Outcome};

static REQUESTED: AtomicBool = AtomicBool::new(false);
static INSTALLED: Once = Once::new();

/// From here on a signal does not end the process, but is noted; the second one ends it at once. Work that calls this must look at
/// [`is_requested`].
pub(crate) fn expect() {
    REQUESTED.store(false, Ordering::Relaxed);
    INSTALLED.call_once(|| {
        let handler = || {
            if REQUESTED.swap(true, Ordering::Relaxed) {
                // Whoever is in such a hurry gets what a kill would do, which a store survives.
                std::process::exit(i32::from(super::failure::status::STOPPED));
            }
        };
        // If it cannot be installed, a signal ends the process as it always did.
        let _ = ctrlc::set_handler(handler);
    });
}

/// Whether the user wants an end.
pub(crate) fn is_requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// An error if the user wants an end; it says what has become of the work.
pub(crate) fn check(what: &str) -> Outcome {
    if is_requested() {
        Err(Failure::stopped(what))
    } else {
        Ok(())
    }
}
