//! Ctrl-C and SIGTERM: work that expects them looks here now and then, and ends in good order.
//! Everything else they end at once, as they would without us: what a store has acknowledged
//! survives that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::failure::{Failure, Outcome, status};
use crate::planted::{Planted, planted};

struct Flags {
    /// A signal came while it was expected.
    requested: Arc<AtomicBool>,
    /// The next signal ends the process: none is expected, or one has come already.
    ends: Arc<AtomicBool>,
}

/// None if signals cannot be handled, and then end the process.
fn flags() -> Option<&'static Flags> {
    static FLAGS: OnceLock<Option<Flags>> = OnceLock::new();
    let install = || {
        let flags = Flags {
            requested: Arc::new(AtomicBool::new(false)),
            ends: Arc::new(AtomicBool::new(true)),
        };
        for signal in [SIGINT, SIGTERM] {
            // They are called in this order: the flags that one signal sets are for the next.
            flag::register_conditional_shutdown(signal, status::STOPPED.into(), Arc::clone(&flags.ends)).ok()?;
            flag::register(signal, Arc::clone(&flags.requested)).ok()?;
            flag::register(signal, Arc::clone(&flags.ends)).ok()?;
        }
        Some(flags)
    };
    FLAGS.get_or_init(install).as_ref()
}

/// From here on a signal ends the process with the status that is documented.
pub(crate) fn install() {
    let _ = flags();
}

/// As long as this lives, the first signal is noted for [`is_requested`]; the second one ends the
/// process.
#[must_use]
pub(crate) struct Expected;

/// From here on the work must look at [`is_requested`].
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

/// Whether the user wants an end.
pub(crate) fn is_requested() -> bool {
    flags().is_some_and(|flags| flags.requested.load(Ordering::SeqCst)) && !planted(Planted::IgnoreSignals)
}

/// An error if the user wants an end; it says what has become of the work.
pub(crate) fn check(what: &str) -> Outcome {
    if is_requested() {
        Err(Failure::stopped(what))
    } else {
        Ok(())
    }
}
