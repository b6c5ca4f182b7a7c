//! Performs a write and compares it with its plan.

use embercask::{Error, Result};

use super::Driver;
use super::perform::Done;
use super::plan::Plan;
use crate::ops::Write;

impl Driver {
    pub(super) fn write(&mut self, write: &Write) {
        let plan = self.plan(write);
        if let Plan::Change { state, .. } = &plan {
            self.observer.begins(state);
        }
        let done = self.perform(write);
        self.settle_write(write, plan, done);
    }

    /// Checks that the write ended as planned.
    pub(super) fn settle_write(&mut self, write: &Write, plan: Plan, done: Result<Done>) {
        match (plan, done) {
            (
                Plan::Change {
                    mut state,
                    existed,
                    written,
                    promise,
                    dropped,
                },
                Ok(done),
            ) => {
                match done {
                    Done::Sequence(last) => {
                        let first = last + 1 - written.len() as u64;
                        assert!(
                            written.is_empty() || first > self.last_sequence,
                            "{write:?}: sequence {first} after {}",
                            self.last_sequence
                        );
                        for ((name, key), sequence) in written.iter().zip(first..) {
                            let item = state
                                .namespaces
                                .get_mut(name)
                                .and_then(|keyspace| keyspace.items.get_mut(key));
                            // A later write of the same batch may have deleted it.
                            item.into_iter().for_each(|item| item.sequence = sequence);
                        }
                        self.last_sequence = self.last_sequence.max(last);
                    }
                    Done::Existed(found) => {
                        assert_eq!(Some(found), existed, "{write:?}: whether the key existed");
                        for (name, key) in written {
                            let value = self.handles[&name].get(&key).unwrap().expect("it was written just now");
                            assert!(value.sequence() > self.last_sequence, "{write:?}: sequence");
                            self.last_sequence = value.sequence();
                            let keyspace = state.namespaces.get_mut(&name).unwrap();
                            keyspace.items.get_mut(&key).unwrap().sequence = value.sequence();
                        }
                    }
                    Done::Nothing => {}
                }
                self.dropped_keys += dropped;
                self.observer.changed(&state);
                self.history.push(state);
                self.acknowledge(promise);
            }
            (Plan::Conflict(expected), Err(Error::Conflict { found })) => {
                assert_eq!(found, expected, "{write:?}: the sequence in the conflict");
            }
            (Plan::NotFound, Err(Error::NamespaceNotFound { .. })) => {}
            (Plan::Exists, Err(Error::NamespaceExists { .. })) => {}
            (plan, done) => panic!("{write:?} returned {done:?}, expected {plan:?}"),
        }
    }
}
