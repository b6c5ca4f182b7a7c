//! Changes that depend on a key's value, queues, and deletes of ranges.

use std::ops::Bound;

use embercask::{Deleted, ErrorKind, PutOptions, Result, Update, Value};

use super::Driver;
use super::look::item_of;
use super::perform::{Answer, Done};
use super::plan::{Outcome, Plan, Stage};
use crate::model::{Item, Promise};
use crate::ops::{Change, NAMES, PREFIXES, Put, Range, Write};

impl Driver {
    pub(super) fn plan_change(&self, namespace: usize, key: usize, change: &Change) -> Plan {
        let old = self.visible(namespace, key);
        let answer = Answer::Old(old.cloned());
        let promise = self.promise(None);
        let put = |put: &Put, outcome| {
            let item = self.item(namespace, put, 0);
            self.put_one(namespace, key, item, promise, outcome)
        };
        match change {
            Change::Keep => Plan::answer(answer),
            Change::Update(what) | Change::Replace(what) => put(what, Outcome::Answer(answer)),
            Change::UpdateLike(length) => {
                let item = self.like(namespace, old, self.value(*length, 0));
                self.put_one(namespace, key, item, promise, Outcome::Answer(answer))
            }
            Change::Remove | Change::Take => self.delete_one(namespace, key, promise, answer),
            Change::Increment(by) => {
                let number = old.map_or(Some(0), |old| std::str::from_utf8(&old.value).ok()?.parse::<i64>().ok());
                let Some(sum) = number.and_then(|number| number.checked_add(*by)) else {
                    return Plan::refused(ErrorKind::InvalidInput);
                };
                let item = self.like(namespace, old, sum.to_string().as_bytes().into());
                self.put_one(namespace, key, item, promise, Outcome::Answer(Answer::Sum(sum)))
            }
            Change::PutWhen { put: what, holds: true } => put(what, Outcome::Sequence),
            Change::DeleteWhen { holds: true } => {
                self.delete_one(namespace, key, promise, Answer::Existed(old.is_some()))
            }
            Change::PutWhen { .. } | Change::DeleteWhen { .. } => Plan::conflict(old.map(|old| old.sequence)),
        }
    }

    /// This value, with expiry and metadata of the old one.
    fn like(&self, namespace: usize, old: Option<&Item>, value: std::sync::Arc<[u8]>) -> Item {
        let plain = Put {
            length: 0,
            ttl: None,
            metadata: None,
        };
        let item = old.map_or_else(|| self.item(namespace, &plain, 0), |old| self.written_again(old));
        Item { value, ..item }
    }

    pub(super) fn perform_change(&self, namespace: usize, key: usize, change: &Change) -> Result<Done> {
        let (handle, bytes) = (self.handle(namespace)?, &self.keys[key]);
        let old = |old: Option<Value>| Done::Answer(Answer::Old(old.as_ref().map(item_of)));
        let update = |how: &dyn Fn(Option<&Value>) -> Update| {
            let updated = handle.update(bytes, |value| {
                assert!(
                    handle.contains(bytes).is_err(),
                    "a call within the function of an update"
                );
                how(value)
            })?;
            Ok(old(updated.old))
        };
        let expected = self.visible(namespace, key);
        let judge = |value: Option<&Value>, holds: bool| {
            let found = value.map(item_of);
            let (found, expected) = (Answer::Old(found), Answer::Old(expected.cloned()));
            assert!(expected.is(&found), "judged was {found:?}, expected {expected:?}");
            holds
        };
        match change {
            Change::Keep => update(&|_| Update::Keep),
            Change::Update(put) => {
                let (value, options) = (self.value(put.length, 0).to_vec(), self.put_options(put));
                update(&|_| Update::Put(value.clone(), options.clone()))
            }
            Change::UpdateLike(length) => update(&|value| {
                let options = value.map_or_else(PutOptions::new, PutOptions::like);
                Update::Put(self.value(*length, 0).to_vec(), options)
            }),
            Change::Remove => update(&|_| Update::Delete),
            Change::Increment(by) => handle.increment(bytes, *by).map(|sum| Done::Answer(Answer::Sum(sum))),
            Change::Replace(put) => handle
                .replace(bytes, self.value(put.length, 0), &self.put_options(put))
                .map(old),
            Change::Take => handle.take(bytes).map(old),
            Change::PutWhen { put, holds } => {
                let (value, options) = (self.value(put.length, 0), self.put_options(put));
                handle
                    .put_when(bytes, value, &options, |value| judge(value, *holds))
                    .map(Done::Sequence)
            }
            Change::DeleteWhen { holds } => {
                let deleted: Deleted = handle.delete_when(bytes, None, |value| judge(value, *holds))?;
                Ok(Done::Answer(Answer::Existed(deleted.existed)))
            }
        }
    }

    pub(super) fn plan_pop(&self, namespace: usize, prefix: usize, last: bool) -> Plan {
        let mut keys = self.keyspace(namespace).with_prefix(PREFIXES[prefix], self.now);
        let popped = if last { keys.last() } else { keys.next() };
        let Some((key, item)) = popped else {
            return Plan::answer(Answer::Popped(None));
        };
        let number = self.keys.iter().position(|known| known == key).unwrap();
        let answer = Answer::Popped(Some((key.to_vec(), item.clone())));
        self.delete_one(namespace, number, self.promise(None), answer)
    }

    pub(super) fn perform_pop(&self, namespace: usize, prefix: usize, last: bool) -> Result<Done> {
        let (handle, prefix) = (self.handle(namespace)?, PREFIXES[prefix]);
        let popped = match last {
            true => handle.pop_last(prefix)?,
            false => handle.pop_first(prefix)?,
        };
        let popped = popped.map(|(key, value)| (key, item_of(&value)));
        Ok(Done::Answer(Answer::Popped(popped)))
    }

    /// Whether the indexes hold exactly the visible keys of a namespace.
    fn is_swept(&self, namespace: usize) -> bool {
        let is_visible = |item: &Item| item.is_visible(self.now);
        !self.wall_shifted && self.keyspace(namespace).items.values().all(is_visible)
    }

    fn is_in(&self, range: Range, key: &[u8]) -> bool {
        match range {
            Range::Prefix(prefix) => key.starts_with(PREFIXES[prefix]),
            Range::Between(one, other) => key >= &self.keys[one] && key < &self.keys[other],
        }
    }

    /// Keys that have expired but are still in the indexes count for the batches, so where a batch
    /// ends is known only if there are none.
    pub(super) fn plan_delete_range(&self, write: &Write) -> Plan {
        let Write::DeleteRange {
            namespace,
            range,
            batch_keys,
            batches,
            durability,
        } = write
        else {
            unreachable!("{write:?}")
        };
        let is_exact = self.is_swept(*namespace);
        let (promise, keyspace) = (self.promise(*durability), self.keyspace(*namespace));
        let keys = keyspace.items.keys().filter(|key| self.is_in(*range, key));
        let keys: Vec<Vec<u8>> = keys.cloned().collect();
        let mut plan = Plan::default();
        let (mut state, mut count) = (self.state().clone(), 0);
        let batch_keys = if is_exact { *batch_keys } else { 1 };
        for (number, batch) in keys.chunks(batch_keys).enumerate() {
            for key in batch {
                let visible = state.namespaces[NAMES[*namespace]].get(key, self.now);
                count += u64::from(visible.is_some());
                let logged = self.apply(&mut state, *namespace, key, None);
                plan.log.push(super::plan::Logged {
                    stage: number,
                    ..logged
                });
            }
            plan.stages.push(Stage {
                state: state.clone(),
                promise,
            });
            if is_exact && *batches == Some(number + 1) {
                plan.outcome = Outcome::Refused(ErrorKind::Cancelled);
                return plan;
            }
        }
        plan.outcome = Outcome::Answer(Answer::Count(count));
        if plan.log.iter().all(|logged| !logged.is_certain) {
            // Perhaps nothing was written.
            plan.stages
                .iter_mut()
                .for_each(|stage| stage.promise = Promise::Nothing);
        }
        plan
    }

    pub(super) fn perform_delete_range(&self, write: &Write) -> Result<Done> {
        let Write::DeleteRange {
            namespace,
            range,
            batch_keys,
            batches,
            durability,
        } = write
        else {
            unreachable!("{write:?}")
        };
        let handle = self.handle(*namespace)?;
        let bytes = |key: usize| self.keys[key].as_slice();
        let mut deletion = match range {
            Range::Prefix(prefix) => handle.delete_prefix(PREFIXES[*prefix]),
            Range::Between(one, other) => {
                handle.delete_range::<&[u8]>((Bound::Included(bytes(*one)), Bound::Excluded(bytes(*other))))
            }
        };
        if let Some(durability) = durability {
            deletion = deletion.durability(*durability);
        }
        let most = batches.filter(|_| self.exists(*namespace) && self.is_swept(*namespace));
        let mut done = 0;
        let deleted = deletion
            .batch_keys(*batch_keys)
            .on_progress(|_| {
                done += 1;
                most != Some(done)
            })
            .run()?;
        Ok(Done::Answer(Answer::Count(deleted.count)))
    }
}
