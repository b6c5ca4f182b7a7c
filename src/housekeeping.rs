//! Background work on the state: expired keys and the keys of dropped namespaces are removed from
//! memory, and queued changes are merged into the key orders.
//!
//! Only one thread at a time does any of this, and none while the index file is written, so none of
//! them sees another's half-done work. Each is long, and stops between steps when the store is
//! closing; closing waits for that.
//!
//! Removing keys needs the writer lock. Their records are read before it is taken, and it is held
//! for short [`turns`], between which writers have it.

mod turns;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use crate::context::Context;
use crate::error::Result;
use crate::index::namespaces::NamespaceState;
use crate::index::order::KeyOrder;
use crate::log::Log;
use crate::planted::{Planted, planted};
use crate::report::Level;
use crate::state::State;
use crate::sync::lock;

use self::turns::Turns;

/// Steps of a sweep after which key orders are merged. Otherwise changes would pile up in them, for
/// a writer to merge.
const STEPS_BEFORE_MERGE: usize = 64;

/// Keys of a sweep that is worth a message.
const SWEEP_SAID_MIN: u64 = 10_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Housekeeping {
    context: Arc<Context>,
    state: Arc<State>,
    log: Arc<Log>,
    busy: Mutex<()>,
}

impl Housekeeping {
    pub(crate) fn new(context: Arc<Context>, state: Arc<State>, log: Arc<Log>) -> Housekeeping {
        Housekeeping {
            context,
            state,
            log,
            busy: Mutex::new(()),
        }
    }

    /// Blocks all of it. Work in progress finishes, or stops at its next step if the store was
    /// closed.
    pub(crate) fn keep_out(&self) -> MutexGuard<'_, ()> {
        lock(&self.busy)
    }

    /// Whether a thread is doing any of it.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self.busy.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Merges all queued changes into the key orders.
    pub(crate) fn merge_orders(&self) {
        let _busy = self.keep_out();
        self.state.merge_orders(|_| true);
    }

    /// Merges queued changes into the key orders where that pays.
    pub(crate) fn merge_due_orders(&self) {
        let _busy = self.keep_out();
        self.state.merge_orders(KeyOrder::is_merge_due);
    }

    /// Called by a writer that has changed keys of this namespace: merges some changes, or wakes
    /// the maintenance thread, if too many are queued.
    #[inline]
    pub(crate) fn relieve_order(&self, namespace: &NamespaceState) {
        if namespace.order.relieve() {
            self.context.maintenance_wake.wake();
        }
    }

    /// Removes all expired keys from the indexes; their records stay as shadows until compaction
    /// drops them. For a while after a jump of the clock they are only hidden, so that nothing is
    /// lost if the clock is set right.
    pub(crate) fn sweep_expired(&self) {
        let _busy = self.keep_out();
        let time = &self.context.time;
        let settled_ms = if planted(Planted::SweepAtOnce) {
            Some(time.now().wall_ms())
        } else {
            time.settled_ms(self.context.grace_ms())
        };
        let Some(due_ms) = settled_ms else { return };
        let expired = || self.context.events.expired.load(Ordering::Relaxed);
        let before = expired();
        self.sweep_due(due_ms);
        let swept = expired() - before;
        if swept >= SWEEP_SAID_MIN {
            self.context.events.report.note(Level::Debug, || {
                format!(
                    "removed {swept} expired keys from memory: {}",
                    self.context.path().display()
                )
            });
        }
    }

    /// Removes the keys that were due by this time.
    fn sweep_due(&self, mut due_ms: u64) {
        let time = &self.context.time;
        let mut turns = self.turns();
        for step in 1.. {
            let taken = self.state.take_due(due_ms);
            if taken.is_empty() {
                break;
            }
            let due = self.state.read_due(&taken);
            let (mut rest, mut left) = (due.iter(), Vec::new());
            let is_done = turns.take(|right, turn| {
                // Under the lock: the clock may have been set back since, and keys put then must
                // stay.
                let now = time.now();
                due_ms = due_ms.min(now.wall_ms());
                let again = self
                    .state
                    .expire_some(right, &mut rest, (due_ms, &now), || turn.is_over());
                left.extend(again);
                rest.len() == 0
            });
            self.state.end_take(is_done.then_some(left));
            if !is_done {
                return;
            }
            if step % STEPS_BEFORE_MERGE == 0 {
                self.state.merge_orders(KeyOrder::is_merge_due);
            }
        }
    }

    fn turns(&self) -> Turns<'_> {
        Turns::new(&self.context, &self.state, &self.log)
    }

    /// Gives back the memory of keys that have left the indexes, and of segments that was not
    /// needed for this many milliseconds.
    pub(crate) fn shrink(&self, kept_ms: u64) {
        let _busy = self.keep_out();
        self.state.shrink();
        self.log.shrink(kept_ms);
    }

    /// Drops stale entries of the expiry queue, once there may be many.
    pub(crate) fn clean_expiry_queue(&self) {
        let _busy = self.keep_out();
        self.state.clean_expiry_queue();
    }

    /// Removes the keys of dropped namespaces from the indexes, in small steps.
    pub(crate) fn empty_dropped_namespaces(&self) -> Result<()> {
        let _busy = self.keep_out();
        let mut turns = self.turns();
        for namespace in self.state.namespaces.dropped() {
            loop {
                if self.context.check_closing().is_err() {
                    return Ok(());
                }
                let keys = self.state.some_keys(&namespace);
                if keys.is_empty() {
                    break;
                }
                let (dropped, read) = self.state.read_all_dropped(&namespace, &keys);
                let mut rest = dropped.iter();
                let is_done = turns.take(|right, turn| {
                    self.state
                        .remove_some_dropped(right, &namespace, &mut rest, || turn.is_over());
                    rest.len() == 0
                });
                if !is_done {
                    return Ok(());
                }
                read?;
            }
            // Not if a batch that could not be settled before has come in since.
            let _unchanging = self.state.lock_changes();
            if self.state.some_keys(&namespace).is_empty() {
                self.state.namespaces.forget_number(namespace.number);
            }
        }
        Ok(())
    }
}
