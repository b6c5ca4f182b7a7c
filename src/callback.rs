//! Whether this thread is inside a function of the program that the store has called, from where
//! the store must not be called: the store may hold a lock that such a call would wait for.

use std::cell::Cell;

use crate::planted::{Planted, planted};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs a function of the program; calls of any store by this thread are refused meanwhile, also if
/// it panics and the program catches that.
pub(crate) fn run<T>(function: impl FnOnce() -> T) -> T {
    /// Restores what was there before.
    struct Restore(bool);

    impl Drop for Restore {
        fn drop(&mut self) {
            INSIDE.set(self.0);
        }
    }

    let _restore = Restore(INSIDE.replace(true));
    function()
}

/// Whether this thread is inside such a function.
#[inline]
pub(crate) fn is_running() -> bool {
    INSIDE.get() && !planted(Planted::LetCallBack)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_panics_is_left_as_one_that_returns() {
        assert!(!is_running());
        let panicked = std::panic::catch_unwind(|| run(|| panic!("on purpose")));
        assert!(panicked.is_err());
        assert!(!is_running());
        run(|| {
            run(|| assert!(is_running()));
            assert!(is_running(), "the outer one is still running");
        });
        assert!(!is_running());
    }
}
