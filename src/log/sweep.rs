//! What leaves memory by itself: expired keys, the keys of dropped namespaces, queued changes of the key order.

use std::sync::MutexGuard;

use super::Engine;
use crate::error::Result;
use crate::index::namespaces::NamespaceState;
use crate::index::order::KeyOrder;
use crate::planted::{Planted, planted};
use crate::sync::lock;

impl Engine {
    /// One round of all work that needs no caller: everything that is due is done when it returns.
    pub(crate) fn maintain(&self) -> Result<()> {
        self.flush_if_open()?;
        self.renew_hints()?;
        self.seal_all()?;
        self.sweep_expired();
        self.clean_expiry_queue();
        self.empty_dropped_namespaces()?;
        self.merge_orders();
        Ok(())
    }

    fn flush_if_open(&self) -> Result<()> {
        self.context.check_open()?;
        self.flush()
    }

    /// Held by the one who takes things out of the indexes by itself, merges key orders, or writes the index file: none of
    /// these sees another half done. They are long, and stop between steps when the store is closed, which waits for them.
    pub(crate) fn housekeeping(&self) -> MutexGuard<'_, ()> {
        lock(&self.housekeeping)
    }

    /// Folds all queued changes into the key orders.
    pub(crate) fn merge_orders(&self) {
        self.merge_orders_that(|_| true);
    }

    /// Folds queued changes into the key orders where that pays.
    pub(crate) fn merge_due_orders(&self) {
        self.merge_orders_that(KeyOrder::is_merge_due);
    }

    /// Looks at the orders that have queued changes, and at no others: there may be very many namespaces.
    fn merge_orders_that(&self, are_due: impl Fn(&KeyOrder) -> bool) {
        let _housekeeping = self.housekeeping();
        self.state.merge_orders(are_due);
    }

    /// A writer has changed keys of this namespace: it helps, or asks for help, if too many changes wait for their place in the order.
    pub(crate) fn relieve_order(&self, namespace: &NamespaceState) {
        if namespace.order.relieve() {
            self.context.maintenance_wake.wake();
        }
    }

    /// Removes all expired keys from the indexes; their records stay as shadows until compaction drops them. While a jump of the
    /// clock is fresh they are only hidden, so that nothing is lost if it is put right.
    pub(crate) fn sweep_expired(&self) {
        let _housekeeping = self.housekeeping();
        let settled_ms = if planted(Planted::SweepAtOnce) {
            Some(self.context.time.now().wall_ms())
        } else {
            self.context.time.settled_ms(self.context.grace_ms())
        };
        let Some(mut due_ms) = settled_ms else { return };
        while !self.context.is_closed() {
            let due = self.state.take_due(due_ms);
            if due.is_empty() {
                return;
            }
            let writer = self.lock_writer();
            // Under the lock: the clock may have been set back since, and what was put then is not to go.
            let now = self.context.time.now();
            due_ms = due_ms.min(now.wall_ms());
            self.state.expire_all(&writer.right, &due, due_ms, &now);
        }
    }

    /// Drops stale entries of the expiry queue, once there may be many.
    pub(crate) fn clean_expiry_queue(&self) {
        let _housekeeping = self.housekeeping();
        self.state.clean_expiry_queue();
    }

    /// Takes the keys of dropped namespaces out of the indexes, in small steps.
    pub(crate) fn empty_dropped_namespaces(&self) -> Result<()> {
        let _housekeeping = self.housekeeping();
        for namespace in self.state.namespaces.dropped() {
            loop {
                if self.context.is_closed() {
                    return Ok(());
                }
                let keys = self.state.some_keys(&namespace);
                if keys.is_empty() {
                    break;
                }
                let writer = self.lock_writer();
                self.state.remove_all_dropped(&writer.right, &namespace, &keys)?;
            }
            self.state.namespaces.forget_number(namespace.number);
        }
        Ok(())
    }
}
