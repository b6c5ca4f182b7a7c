//! Views of the log's present moment; see [`View`].

use super::{Interest, Log};
use crate::error::Result;
use crate::planted::{Planted, planted};
use crate::state::View;

/// The beginning of an attempt of a transaction.
pub(crate) struct Reading {
    /// May show what will be rolled back; then the log's number of roll-backs changes.
    pub(crate) view: View,
    pub(crate) rollbacks: u64,
    pub(crate) interest: Interest,
}

impl Log {
    /// A view of this moment, with what is not written out yet.
    pub(crate) fn begin_reading(&self) -> Result<Reading> {
        let mut guard = self.lock();
        self.check_sound(&mut guard)?;
        let sequence = guard.last_sequence;
        Ok(Reading {
            view: View::begin(&self.state, &self.state.lock_changes(), Some(sequence)),
            rollbacks: guard.tail.rollbacks,
            interest: guard.tail.recent.begin(sequence),
        })
    }

    /// A view of this moment, of which nothing can be rolled back any more: everything acknowledged
    /// before this call is in it, and what is pending is written out first, or has failed.
    ///
    /// An error only if the store is poisoned.
    pub(crate) fn begin_view(&self) -> Result<View> {
        if planted(Planted::ViewUnwritten) {
            return Ok(self.begin_reading()?.view);
        }
        // Most of it is written without the lock. If that fails, so does what follows.
        let _ = self.flush();
        let mut guard = self.lock();
        while guard.writing {
            guard = self.commit.wait(guard);
        }
        self.check_sound(&mut guard)?;
        if self.commit.write_out_held(&mut guard).is_err() {
            // Rolled back, but for what was acknowledged, which stays; unless that has failed, too.
            self.check_sound(&mut guard)?;
        }
        let right = self.state.lock_changes();
        Ok(View::begin(&self.state, &right, Some(guard.last_sequence)))
    }
}
