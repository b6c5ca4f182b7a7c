//! Ctrl-C and SIGTERM. Work that expects them polls this module and stops in good order. At any
//! other time they end the process at once, as they do by default; acknowledged writes survive
//! that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::failure::{Failure, Outcome, status};
use crate::planted::{Planted, planted};

struct Flags {
    /// An expected signal has arrived.
    requested: Arc<AtomicBool>,
    /// The next signal ends the process: none is expected, or one has arrived already.
    ends: Arc<AtomicBool>,
}

/// None if handlers cannot be installed; then signals end the process.
fn flags() -> Option<&'static Flags> {
    static FLAGS: OnceLock<Option<Flags>> = OnceLock::new();
    let install = || {
        let flags = Flags {
            requested: Arc::new(AtomicBool::new(false)),
            ends: Arc::new(AtomicBool::new(true)),
        };
        for signal in [SIGINT, SIGTERM] {
            // Called in this order: a flag set by one signal takes effect at the next.
            flag::register_conditional_shutdown(signal, status::STOPPED.into(), Arc::clone(&flags.ends)).ok()?;
            flag::register(signal, Arc::clone(&flags.requested)).ok()?;
            flag::register(signal, Arc::clone(&flags.ends)).ok()?;
        }
        Some(flags)
    };
    FLAGS.get_or_init(install).as_ref()
}

/// From now on a signal ends the process with the documented status.
pub(crate) fn install() {
    let _ = flags();
}

/// While this lives, the first signal makes [`is_requested`] true; the second one ends the process.
#[must_use]
pub(crate) struct Expected;

/// From now on the work must poll [`is_requested`].
pub(crate) fn expect() -> Expected {
    if let Some(flags) = flags() {
        if !planted(Planted::RememberSignal) {
            flags.requested.store(false, Ordering::SeqCst);
        }
        flags.ends.store(false, Ordering::SeqCst);
    }
    Expected
}

impl Drop for Expected {
    fn drop(&mut self) {
        if let Some(flags) = flags() {
            flags.ends.store(true, Ordering::SeqCst);
            if !planted(Planted::RememberSignal) {
                flags.requested.store(false, Ordering::SeqCst);
            }
        }
    }
}

/// Whether the user asked to stop.
pub(crate) fn is_requested() -> bool {
    flags().is_some_and(|flags| flags.requested.load(Ordering::SeqCst)) && !planted(Planted::IgnoreSignals)
}

/// An error if the user asked to stop; `what` says how much was done.
pub(crate) fn check(what: &str) -> Outcome {
    if is_requested() {
        Err(Failure::stopped(what))
    } else {
        Ok(())
    }
}
