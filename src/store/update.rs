//! Changes of one key that depend on its value: updates, counters, get-and-set, and conditions that
//! the program judges itself.

use std::borrow::Cow;

use super::checks::checked_put;
use super::{Deleted, Namespace};
use crate::callback;
use crate::engine::operation::{Action, Operation, Written};
use crate::engine::verdict::{Holds, Verdict};
use crate::error::{Error, Result};
use crate::options::{Condition, Durability, PutOptions};
use crate::planted::{Planted, planted};
use crate::segment::Value;

/// Attempts of a read-modify-write before it gives up on a key that other writes keep changing.
pub(super) const UPDATE_ATTEMPTS_MAX: usize = 1000;

/// What [`Namespace::update`] does to a key.
#[derive(Clone, Debug)]
pub enum Update {
    /// Leave it as it is.
    Keep,
    /// Put this value with these options. A condition among them is checked as well.
    Put(Vec<u8>, PutOptions),
    /// Delete it; nothing happens if it is absent.
    Delete,
}

/// What [`Namespace::update`] did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Updated {
    /// The value before; `None` if the key was absent.
    pub old: Option<Value>,
    /// Sequence of the put or delete; `None` if nothing was written.
    pub sequence: Option<u64>,
}

/// As [`Update`], of what the caller may keep.
enum Change<'a> {
    Keep,
    Put(Cow<'a, [u8]>, PutOptions),
    Delete,
}

/// Decides by the value that was found.
type Decide<'f, 'a> = &'f mut dyn FnMut(Option<&Value>) -> Result<Change<'a>>;

impl Namespace {
    /// Reads a key, calls the function with its value (`None` if the key is absent or has expired),
    /// and does what it returns, as one step: if another write of the key comes in between, all of
    /// it is done again. So the function may run several times, on this thread. It must not call
    /// the store, and should be quick, since a key that others write often changes meanwhile.
    ///
    /// A put replaces expiry and metadata too; [`PutOptions::like`] keeps those of the old value.
    ///
    /// # Errors
    ///
    /// Those of [`Namespace::get`] and [`Namespace::put_with`]; [`Error::TooManyConflicts`] after
    /// 1,000 attempts; [`Error::InvalidInput`] for calls of the store by the function.
    pub fn update(&self, key: impl AsRef<[u8]>, mut function: impl FnMut(Option<&Value>) -> Update) -> Result<Updated> {
        self.modify(key.as_ref(), &mut |old| {
            Ok(match callback::run(|| function(old)) {
                Update::Keep => Change::Keep,
                Update::Put(value, options) => Change::Put(Cow::Owned(value), options),
                Update::Delete => Change::Delete,
            })
        })
    }

    /// Adds to a number and returns the sum. The value is text, an integer in decimal digits that
    /// fits an `i64`; an absent key counts as 0. Expiry and metadata are unchanged. Threads that
    /// increment one key at the same time lose nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] if the value is not such a number, [`Error::InvalidInput`] if the sum
    /// would not fit: then nothing was written. Otherwise as [`Namespace::update`].
    pub fn increment(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64> {
        let mut sum = 0;
        self.modify(key.as_ref(), &mut |old| {
            let number = old.map_or(Ok(0), number_of)?;
            sum = match number.checked_add(by) {
                _ if planted(Planted::IncrementUnchecked) => number.wrapping_add(by),
                Some(sum) => sum,
                None => {
                    return Err(Error::invalid(format!(
                        "{number} and {by} add up to more than 64 bits hold; add less, or put a smaller number"
                    )));
                }
            };
            let options = old.map_or_else(PutOptions::new, PutOptions::like);
            Ok(Change::Put(Cow::Owned(sum.to_string().into_bytes()), options))
        })?;
        Ok(sum)
    }

    /// Puts a value and returns the one that it replaced, in one step. `None` if the key was
    /// absent. Fails like [`Namespace::put_with`], and like [`Namespace::get`] before anything is
    /// written.
    pub fn replace(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &PutOptions,
    ) -> Result<Option<Value>> {
        let value = value.as_ref();
        let put = || Ok(Change::Put(Cow::Borrowed(value), options.clone()));
        Ok(self.modify(key.as_ref(), &mut |_| put())?.old)
    }

    /// Deletes a key and returns its value, in one step: of several calls at the same time exactly
    /// one gets it. `None` if the key is absent. A value that is damaged is an error, and stays.
    pub fn take(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        Ok(self.modify(key.as_ref(), &mut |_| Ok(Change::Delete))?.old)
    }

    /// Puts a value if the function returns true for the value before (`None` if the key is absent
    /// or has expired); else fails with [`Error::Conflict`]. Returns the sequence of the write.
    ///
    /// What the function has judged is the newest value at the moment of the write. It runs once
    /// before, and once more under the store's writer lock if the key has changed since: so it runs
    /// twice at most unless a full disk makes the write begin again, all writers wait for it in
    /// that case, and it must not call any store. A condition among the options must hold as well.
    ///
    /// # Errors
    ///
    /// Those of [`Namespace::put_with`] and [`Namespace::get`]; [`Error::InvalidInput`] for calls
    /// of a store by the function.
    pub fn put_when(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &PutOptions,
        mut holds: impl FnMut(Option<&Value>) -> bool,
    ) -> Result<u64> {
        let (key, value) = (key.as_ref(), value.as_ref());
        let action = Action::Put {
            value,
            metadata: options.metadata.as_deref(),
            expiry: checked_put(self.writer()?, &self.state, [key, value], options)
                .map_err(|error| self.refusal(error))?,
        };
        let operation = self.operation(key, action, options.condition);
        Ok(self.write_when(&operation, options.durability, &mut holds)?.sequence)
    }

    /// Deletes a key if the function returns true for its value, as [`Namespace::put_when`] has it;
    /// else fails with [`Error::Conflict`]. No error if the key is absent and the function accepts
    /// that.
    pub fn delete_when(
        &self,
        key: impl AsRef<[u8]>,
        durability: Option<Durability>,
        mut holds: impl FnMut(Option<&Value>) -> bool,
    ) -> Result<Deleted> {
        let key = key.as_ref();
        if !self.writer()?.context.options.limits.may_be_there(key) {
            self.check()?;
            return match callback::run(|| holds(None)) {
                true => Ok(Deleted::default()),
                false => Err(Error::Conflict { found: None }),
            };
        }
        let operation = self.operation(key, Action::Delete, None);
        let written = self.write_when(&operation, durability, &mut holds)?;
        Ok(Deleted::of(&written))
    }

    fn operation<'a>(&'a self, key: &'a [u8], action: Action<'a>, condition: Option<Condition>) -> Operation<'a> {
        Operation {
            namespace: &self.state,
            key,
            action,
            condition,
        }
    }

    fn write_when(
        &self,
        operation: &Operation<'_>,
        durability: Option<Durability>,
        holds: &mut Holds<'_>,
    ) -> Result<Written> {
        let engine = self.writer()?;
        let found = self.get(operation.key)?;
        let verdict = Verdict::of(holds, found.as_ref());
        let written = engine.write_when(operation, engine.durability(durability), Some(&verdict))?;
        engine.housekeeping.relieve_order(&self.state);
        Ok(written)
    }

    /// Reads a key and writes what `decide` returns, on the condition that the key is still as it
    /// was read; else does so again. Whenever one call fails here another write has succeeded.
    fn modify(&self, key: &[u8], decide: Decide<'_, '_>) -> Result<Updated> {
        for attempt in 0..UPDATE_ATTEMPTS_MAX {
            let old = self.get(key)?;
            let found = old.as_ref().map(Value::sequence);
            let unchanged = match planted(Planted::TakeTwice) {
                true => None,
                false => Some(found.map_or(Condition::Absent, Condition::Sequence)),
            };
            let written = match decide(old.as_ref())? {
                Change::Keep => return Ok(Updated { old, sequence: None }),
                Change::Put(value, options) => {
                    if let Some(condition) = options.condition {
                        condition.check(found)?;
                    }
                    let options = PutOptions {
                        condition: unchanged,
                        ..options
                    };
                    self.put_with(key, value, options).map(Some)
                }
                Change::Delete => self.delete_found(key, unchanged, found.is_some()),
            };
            match written {
                Ok(sequence) => return Ok(Updated { old, sequence }),
                Err(Error::Conflict { .. }) => yield_after(attempt),
                Err(error) => return Err(error),
            }
        }
        Err(Error::TooManyConflicts {
            attempts: UPDATE_ATTEMPTS_MAX,
        })
    }

    /// Deletes a key on a condition, and returns the sequence of the delete if the key was there.
    /// If it was not, this waits until that is as durable as a delete would be.
    pub(super) fn delete_found(&self, key: &[u8], condition: Option<Condition>, is_there: bool) -> Result<Option<u64>> {
        let engine = self.writer()?;
        if !engine.context.options.limits.may_be_there(key) {
            return Ok(None);
        }
        let operation = self.operation(key, Action::Delete, condition);
        let written = engine.write(&operation, engine.durability(None))?;
        engine.housekeeping.relieve_order(&self.state);
        Ok(is_there.then_some(written.sequence))
    }
}

/// Lets other threads finish what they have begun, once a few attempts have failed.
fn yield_after(attempt: usize) {
    if attempt >= 8 {
        std::thread::yield_now();
    }
}

fn number_of(value: &Value) -> Result<i64> {
    value.as_str()?.parse().map_err(|error| Error::Decode {
        expected: "an integer of 64 bits in decimal digits",
        cause: format!("{error}"),
    })
}
