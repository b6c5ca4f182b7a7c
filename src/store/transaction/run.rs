//! Running a transaction: attempt after attempt, until one is committed.

use std::cell::Cell;
use std::sync::{Arc, MutexGuard};

use super::Transaction;
use super::shared::{Shared, operations};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::store::Store;
use crate::sync::lock;

/// Attempts unless the options say otherwise.
const ATTEMPTS_DEFAULT: u32 = 64;

/// Attempts before the transactions of a store that meet conflicts take turns.
const ATTEMPTS_BEFORE_TURNS: u32 = 4;

thread_local! {
    /// Transactions whose closures this thread is in.
    static WITHIN: Cell<u32> = const { Cell::new(0) };
}

/// Options of a transaction.
#[derive(Clone, Debug)]
pub struct TransactionOptions {
    durability: Option<Durability>,
    attempts: u32,
}

impl Default for TransactionOptions {
    fn default() -> TransactionOptions {
        TransactionOptions {
            durability: None,
            attempts: ATTEMPTS_DEFAULT,
        }
    }
}

impl TransactionOptions {
    /// The store's durability, and 64 attempts.
    pub fn new() -> TransactionOptions {
        TransactionOptions::default()
    }

    /// Overrides the store's durability.
    pub fn durability(mut self, durability: Durability) -> TransactionOptions {
        self.durability = Some(durability);
        self
    }

    /// Most attempts, at least one. Default: 64.
    pub fn attempts(mut self, attempts: u32) -> TransactionOptions {
        self.attempts = attempts.max(1);
        self
    }
}

/// A transaction that was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed<T> {
    /// What its closure returned.
    pub value: T,
    /// Sequence of its last write; without writes, that of the newest write that it could see. Of
    /// two transactions that depend on each other, the one that comes first has the lower one.
    pub sequence: u64,
    /// Attempts that it took.
    pub attempts: u32,
}

impl Store {
    /// Runs reads and writes as a transaction: serializable, so as if no other write came between
    /// its reads and its writes, which are one batch.
    ///
    /// The closure runs without a lock, on the store as it is when it begins, and sees its own
    /// writes. When it returns, what it has read (keys, and ranges that it has listed, with those
    /// absent there) is checked again: if others have written it, or any of it has expired, nothing
    /// is written and **the closure runs again**; so it must do nothing that may not be done twice.
    /// After a few conflicts transactions take turns, so that each gets through; other writes never
    /// wait. An error of the closure ends the transaction, and nothing is written.
    ///
    /// Without writes it is a consistent read, and what it has seen can no longer be rolled back
    /// when this returns. For a single key [`Namespace::put_if`](crate::Namespace::put_if) does
    /// with less, and to read only, a [`Store::snapshot`] does without checks.
    ///
    /// # Errors
    ///
    /// Those of the closure; those of [`Batch::commit`](crate::Batch::commit).
    /// [`Error::TransactionConflict`] after 64 attempts (see [`TransactionOptions::attempts`]).
    /// [`Error::TransactionTooOld`] if it has listed keys and more than 4 MiB of keys were written
    /// by others since it began.
    pub fn transaction<T>(&self, run: impl FnMut(&mut Transaction) -> Result<T>) -> Result<T> {
        let committed = self.transaction_with(&TransactionOptions::new(), run)?;
        Ok(committed.value)
    }

    /// As [`Store::transaction`], with these options, and told what it took.
    pub fn transaction_with<T>(
        &self,
        options: &TransactionOptions,
        mut run: impl FnMut(&mut Transaction) -> Result<T>,
    ) -> Result<Committed<T>> {
        let engine = self.writer()?;
        let mut turn = None;
        let mut was_full = false;
        for attempt in 1..=options.attempts {
            if attempt > ATTEMPTS_BEFORE_TURNS && turn.is_none() {
                turn = take_turn(engine);
            }
            let shared = Arc::new(Shared::new(engine.clone(), engine.begin_attempt()?));
            let mut transaction = Transaction {
                shared: shared.clone(),
                attempt,
            };
            let answer = within(|| run(&mut transaction));
            if let Some((value, sequence)) = end(&shared, options.durability, answer, &mut was_full)? {
                return Ok(Committed {
                    value,
                    sequence,
                    attempts: attempt,
                });
            }
        }
        Err(Error::TransactionConflict {
            attempts: options.attempts,
        })
    }
}

/// Excludes other transactions that have met conflicts. None within the closure of another
/// transaction, which may have the turn.
fn take_turn(engine: &Engine) -> Option<MutexGuard<'_, ()>> {
    (WITHIN.get() == 0).then(|| lock(&engine.transactions))
}

/// Runs the closure of a transaction.
fn within<T>(run: impl FnOnce() -> T) -> T {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            WITHIN.set(WITHIN.get() - 1);
        }
    }
    WITHIN.set(WITHIN.get() + 1);
    let _leave = Leave;
    run()
}

/// Commits what the closure has written, if its answer is no error. None if there is a conflict;
/// one that is the answer of the closure is of another transaction, and an error like any other.
/// Also None if the disk was too full, and another attempt may use what was freed since.
fn end<T>(
    shared: &Shared,
    durability: Option<Durability>,
    answer: Result<T>,
    was_full: &mut bool,
) -> Result<Option<(T, u64)>> {
    let engine = &*shared.engine;
    let (reads, writes) = shared.end().ok_or(Error::Closed)?;
    let value = match answer {
        // What it has seen may be the reason.
        Err(_) if engine.is_rolled_back(&reads) => return Ok(None),
        answer => answer?,
    };
    let durability = engine.durability(durability);
    let operations = operations(&writes);
    let committed = match operations.is_empty() {
        true => engine.confirm_reads(&reads, durability),
        false => engine.write_checked(&operations, &reads, durability),
    };
    let sequence = match committed {
        Err(Error::TransactionConflict { .. }) => return Ok(None),
        // First the reserve has been released, and then compaction may make room.
        Err(error @ Error::NoSpace { .. }) if engine.is_rolled_back(&reads) => {
            return match std::mem::replace(was_full, true) && !engine.makes_room_for(&operations) {
                true => Err(error),
                false => Ok(None),
            };
        }
        committed => committed?,
    };
    for operation in &operations {
        engine.housekeeping.relieve_order(operation.namespace);
    }
    Ok(Some((value, sequence)))
}
