//! Conditions that a function of the program judges by the value.
//!
//! The function first runs outside the writer lock, on the value that a get finds: a value that is
//! read from a device then delays no writer. Under the lock its verdict counts if that value is
//! still the newest. Otherwise it runs again there, on the newest value, which was written a moment
//! ago and is in memory.

use std::cell::{Cell, RefCell};

use crate::callback;
use crate::error::{Error, Result};
use crate::planted::{Planted, planted};
use crate::segment::Value;

/// The program's condition on a value; None if the key is absent.
pub(crate) type Holds<'a> = dyn FnMut(Option<&Value>) -> bool + 'a;

/// A condition, and what it was last judged by.
pub(crate) struct Verdict<'a> {
    holds: RefCell<&'a mut Holds<'a>>,
    /// Sequence of the value, if the key was there, and the verdict.
    last: Cell<(Option<u64>, bool)>,
}

impl<'a> Verdict<'a> {
    /// Judges the value that was found. The caller holds no lock.
    pub(crate) fn of(holds: &'a mut Holds<'a>, found: Option<&Value>) -> Verdict<'a> {
        let verdict = callback::run(|| holds(found));
        Verdict {
            holds: RefCell::new(holds),
            last: Cell::new((found.map(Value::sequence), verdict)),
        }
    }

    /// An error if the condition does not hold for the live record with this sequence, or for an
    /// absent key. `read` reads the value, if another one was judged.
    pub(super) fn check(&self, found: Option<u64>, read: impl FnOnce() -> Result<Option<Value>>) -> Result<()> {
        let (judged, _) = self.last.get();
        if judged != found && !planted(Planted::JudgeBeforeLock) {
            let value = read()?;
            let mut holds = self.holds.try_borrow_mut().map_err(|_| Error::in_callback())?;
            self.last.set((found, callback::run(|| holds(value.as_ref()))));
        }
        match self.last.get() {
            (_, true) => Ok(()),
            (_, false) => Err(Error::Conflict { found }),
        }
    }
}
