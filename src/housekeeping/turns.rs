//! Turns at the writer lock, for work that needs it for long beside writers that need it at once.
//!
//! * **A turn is short**: the work is told when it is over, and may go on in the next.
//! * **Writers get as much**: after a turn they have the lock for at least as long as the turn
//!   took, if there are any. Otherwise it would rarely change hands, since the thread that releases
//!   it is awake and those that wait for it are not.
//! * **Without writers there are no waits**: one turn follows the other.
//!
//! Time decides only when a turn ends, never what is done.

use std::time::{Duration, Instant};

use crate::context::Context;
use crate::log::Log;
use crate::state::State;
use crate::sync::ChangeRight;

/// Longest turn: several times what it costs to wake a thread that waits for the lock.
const TURN_MAX: Duration = Duration::from_micros(200);

/// How many times longer writers get the lock after a turn than it took. The first of them loses
/// some of that to waking up.
const WRITERS_SHARE: u32 = 2;

/// See the module.
pub(super) struct Turns<'a> {
    context: &'a Context,
    state: &'a State,
    log: &'a Log,
    /// Sequence of the next record when the last turn ended.
    next_sequence: Option<u64>,
    /// Until then the lock is the writers'.
    theirs_until: Option<Instant>,
}

/// A turn that has begun.
pub(super) struct Turn {
    began: Instant,
}

impl Turn {
    /// Whether the work should stop.
    pub(super) fn is_over(&self) -> bool {
        self.began.elapsed() >= TURN_MAX
    }
}

impl<'a> Turns<'a> {
    pub(super) fn new(context: &'a Context, state: &'a State, log: &'a Log) -> Turns<'a> {
        Turns {
            context,
            state,
            log,
            next_sequence: None,
            theirs_until: None,
        }
    }

    /// Runs the work under the writer lock, turn after turn, until it returns true. False if the
    /// store is closing: then it may not be done.
    pub(super) fn take(&mut self, mut work: impl FnMut(&ChangeRight, &Turn) -> bool) -> bool {
        loop {
            self.give_way();
            if self.context.check_closing().is_err() {
                return false;
            }
            let mut guard = self.log.lock();
            let turn = Turn { began: Instant::now() };
            let before = self.next_sequence.replace(guard.next_sequence);
            let is_done = work(&self.state.lock_changes(), &turn);
            self.log.tell_expired(&mut guard);
            let has_written = before.is_some_and(|before| before != guard.next_sequence);
            let is_wanted = self.log.is_wanted();
            drop(guard);
            self.theirs_until =
                writers_time(has_written || is_wanted, turn.began.elapsed()).map(|time| Instant::now() + time);
            if is_done {
                return true;
            }
        }
    }

    /// Waits until the writers' time is over.
    fn give_way(&mut self) {
        if let Some(until) = self.theirs_until.take() {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                std::thread::sleep(left);
            }
        }
    }
}

/// How long writers, if there are any, get the lock after a turn that took so long.
fn writers_time(are_any: bool, turn: Duration) -> Option<Duration> {
    are_any.then(|| turn * WRITERS_SHARE)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::MemStorage;
    use crate::testing::until;
    use crate::{Maintenance, Store};

    #[test]
    fn writers_get_the_lock_for_longer_than_a_turn_and_nobody_waits_where_there_are_none() {
        for turn in [Duration::ZERO, Duration::from_micros(7), TURN_MAX] {
            assert!(writers_time(true, turn).unwrap() >= turn);
            assert_eq!(writers_time(false, turn), None);
        }
    }
    #[test]
    fn work_goes_on_in_turns_until_it_is_done_or_the_store_closes_and_others_write_in_between() {
        let store = Store::options()
            .maintenance(Maintenance::Manual)
            .storage(Arc::new(MemStorage::new()))
            .open("/store")
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        let engine = store.engine();
        let mut turns = Turns::new(&engine.context, &engine.state, &engine.log);
        std::thread::scope(|scope| {
            let mut begun = 0;
            let is_done = turns.take(|_, _| {
                begun += 1;
                if begun < 5 {
                    let namespace = &namespace;
                    scope.spawn(move || namespace.put(format!("{begun}"), "value").unwrap());
                    until("the writer wants the lock", || engine.log.is_wanted());
                }
                begun == 5
            });
            assert_eq!((is_done, begun), (true, 5));
        });
        assert_eq!(namespace.count().unwrap(), 4);
        engine.context.begin_closing();
        assert!(!turns.take(|_, _| unreachable!("a turn of a store that is closing")));
    }
}
