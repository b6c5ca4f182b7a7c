//! Performs a write and compares it with its plan.

use embercask::Result;

use super::Driver;
use super::perform::Done;
use super::plan::{Outcome, Plan, Stage};
use super::transactions::Intruded;
use crate::model::State;
use crate::ops::{Change, Intrusion, Transaction, Write};

impl Driver {
    pub(super) fn write(&mut self, write: &Write) {
        let plan = self.plan(write);
        if !plan.stages.is_empty() {
            self.observer.begins(&states(&plan.stages));
        }
        let (plan, done) = self.perform_planned(write, plan);
        self.settle_write(write, plan, done);
    }

    /// Performs a write. Returns its plan too: another one if the intrusion into a transaction has
    /// failed.
    pub(super) fn perform_planned(&mut self, write: &Write, mut plan: Plan) -> (Plan, Result<Done>) {
        self.intruded = Intruded::No;
        let without = match write {
            Write::Transaction(transaction) if transaction.intrusion.is_some() => {
                Some(self.plan_transaction(&Transaction {
                    intrusion: None,
                    ..transaction.clone()
                }))
            }
            _ => None,
        };
        let done = self.perform(write);
        if let (Some(without), Intruded::Failed) = (without, self.intruded) {
            plan.stages.extend(without.stages);
            plan.log.extend(without.log);
            plan.outcome = Outcome::Unknown;
        }
        // A transaction may have moved the clock.
        self.now = embercask::Clock::wall_ms(&self.clock);
        self.highest = self.highest.max(self.now);
        (plan, done)
    }

    /// Checks that the write ended as planned.
    pub(super) fn settle_write(&mut self, write: &Write, plan: Plan, done: Result<Done>) {
        assert!(
            plan.outcome.agrees(&done),
            "{write:?} returned {done:?}, expected {:?}",
            plan.outcome
        );
        self.note(write, &plan, &done);
        let Plan {
            mut stages,
            mut log,
            dropped,
            ..
        } = plan;
        let before = self.last_sequence;
        if let Ok(Done::Sequence(last)) = &done {
            let first = last + 1 - log.len() as u64;
            assert!(
                log.is_empty() || first > before,
                "{write:?}: sequence {first} after {before}"
            );
            for (logged, sequence) in log.iter_mut().zip(first..) {
                logged.item.iter_mut().for_each(|item| item.sequence = sequence);
            }
            self.last_sequence = self.last_sequence.max(*last);
        } else {
            for logged in &mut log {
                let Some(item) = &mut logged.item else { continue };
                item.sequence = match self.intruded {
                    Intruded::Done(Some(sequence)) if logged.stage == 0 && stages.len() > 1 => sequence,
                    Intruded::Done(Some(sequence)) if !matches!(done, Ok(Done::Committed { .. })) => sequence,
                    _ => {
                        let handle = self.handles.values().find(|handle| handle.id() == logged.id);
                        let value = handle.and_then(|handle| handle.get(&logged.key).unwrap());
                        // Unless it has expired by now, without having been seen.
                        assert_eq!(
                            value.is_some(),
                            item.is_visible(self.now),
                            "{write:?}: it was just written"
                        );
                        value.map_or(0, |value| value.sequence())
                    }
                };
                assert!(
                    item.sequence == 0 || item.sequence > before,
                    "{write:?}: sequence {} after {before}",
                    item.sequence
                );
                self.last_sequence = self.last_sequence.max(item.sequence);
            }
        }
        if let Ok(Done::Committed { sequence, .. }) = &done {
            let beside = match self.intruded {
                Intruded::Done(sequence) => sequence,
                _ => None,
            };
            let puts = log.iter().filter_map(|logged| logged.item.as_ref());
            let own = puts
                .map(|item| item.sequence)
                .filter(|sequence| Some(*sequence) != beside);
            let last = own.max().unwrap_or(0);
            assert!(*sequence >= last, "{write:?}: committed at {sequence} before {last}");
        }
        // The later of two puts of a key first.
        for logged in log.iter().rev() {
            let Some(sequence) = logged.item.as_ref().map(|item| item.sequence) else {
                continue;
            };
            for stage in &mut stages[logged.stage..] {
                let mut keyspaces = stage.state.namespaces.values_mut();
                let keyspace = keyspaces.find(|keyspace| keyspace.id == logged.id);
                // A later write of the same batch may have deleted it.
                let item = keyspace.and_then(|keyspace| keyspace.items.get_mut(&logged.key));
                item.filter(|item| item.sequence == 0)
                    .into_iter()
                    .for_each(|item| item.sequence = sequence);
            }
        }
        self.dropped_keys += dropped;
        self.expect_told(&log, before, true);
        self.expect_drop(write);
        if stages.is_empty() {
            return;
        }
        self.observer.changed(&states(&stages));
        let last = stages.len() - 1;
        for (number, Stage { state, promise }) in stages.into_iter().enumerate() {
            self.history.push(state);
            self.history.acknowledge(promise);
            if number == last {
                // To observers the whole write is one.
                self.observer.acknowledged(promise);
            }
        }
    }

    /// Counts what has happened.
    fn note(&mut self, write: &Write, plan: &Plan, done: &Result<Done>) {
        let what = match (write, done) {
            (Write::Transaction(_), Ok(Done::Committed { attempts, .. })) => {
                if plan
                    .log
                    .iter()
                    .filter(|logged| logged.stage + 1 == plan.stages.len())
                    .count()
                    > 1
                {
                    self.visited.note("transactions with several writes");
                }
                if *attempts == 1 {
                    "transactions that ran once"
                } else {
                    match self.intruded {
                        Intruded::Done(None) => "transactions that ran twice without a put beside them",
                        _ => "transactions that ran twice",
                    }
                }
            }
            (Write::Transaction(_), Err(error)) if error.kind() == embercask::ErrorKind::Cancelled => {
                "transactions whose closure failed"
            }
            (Write::Transaction(transaction), Err(_)) => match transaction.intrusion {
                Some((_, Intrusion::DropNamespace { .. })) => "transactions refused after a drop",
                _ => "transactions refused",
            },
            (Write::Change { change, .. }, Ok(_)) => match change {
                Change::Keep | Change::Update(_) | Change::UpdateLike(_) | Change::Remove => "updates",
                Change::Increment(_) => "increments",
                Change::Replace(_) => "values replaced",
                Change::Take => "values taken",
                Change::PutWhen { .. } => "puts on a judgement",
                Change::DeleteWhen { .. } => "deletes on a judgement",
            },
            (Write::Change { .. }, Err(_)) => "changes refused",
            (Write::Pop { .. }, Ok(_)) if !plan.stages.is_empty() => "keys popped",
            (Write::DeleteRange { .. }, Ok(_)) if plan.stages.len() > 1 => "ranges deleted in several batches",
            (Write::DeleteRange { .. }, Ok(_)) if !plan.stages.is_empty() => "ranges deleted in one batch",
            (Write::DeleteRange { .. }, Err(error)) if error.kind() == embercask::ErrorKind::Cancelled => {
                "deletes of a range cancelled"
            }
            (Write::SetDefaultTtl { .. }, Ok(_)) => "default lifetimes set",
            (Write::DropNamespace { .. }, Ok(_)) if !self.snapshots.is_empty() => {
                "namespaces dropped beside a snapshot"
            }
            _ => return,
        };
        self.visited.note(what);
    }
}

fn states(stages: &[Stage]) -> Vec<State> {
    stages.iter().map(|stage| stage.state.clone()).collect()
}
