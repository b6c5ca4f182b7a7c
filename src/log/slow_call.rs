//! A call to the device that takes as long as a test wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::storage::{Call, Interposer, Operation};
use crate::testing::until;

/// Makes one call for a segment, and holds its return until released.
#[derive(Debug)]
pub(super) struct SlowCall {
    operation: Operation,
    state: AtomicU8,
}

impl SlowCall {
    pub(super) const WANTED: u8 = 1;
    pub(super) const MADE: u8 = 2;
    pub(super) const MAY_GO: u8 = 3;

    pub(super) fn new(operation: Operation) -> Arc<SlowCall> {
        Arc::new(SlowCall {
            operation,
            state: AtomicU8::new(0),
        })
    }

    pub(super) fn set(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
    }

    pub(super) fn wait_for(&self, state: u8) {
        until("the call has come so far", || {
            self.state.load(Ordering::SeqCst) >= state
        });
    }
}

impl Interposer for SlowCall {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> std::io::Result<()>) -> std::io::Result<()> {
        make()?;
        let is_it = call.operation == self.operation && call.path.extension().is_some_and(|name| name == "segment");
        let (wanted, made) = (SlowCall::WANTED, SlowCall::MADE);
        let is_wanted = |state: &AtomicU8| state.compare_exchange(wanted, made, Ordering::SeqCst, Ordering::SeqCst);
        if is_it && is_wanted(&self.state).is_ok() {
            self.wait_for(SlowCall::MAY_GO);
        }
        Ok(())
    }
}
