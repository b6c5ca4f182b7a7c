//! The keys of a group in order, for listings.

use std::ops::{Bound, RangeBounds};

use super::{Group, State};
use crate::index::namespaces::NamespaceState;
use crate::index::order::KeyPage;
use crate::planted::{Planted, planted};

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl Group {
    /// Passes namespace and key of a record to `look`.
    fn with_key<T>(&self, number: u32, look: impl FnOnce(u32, &[u8]) -> T) -> Option<T> {
        let offset = *self.offsets.get(number as usize)?;
        let mut scratch = Vec::new();
        let record = self.segment.record(offset, &mut scratch).ok()?;
        Some(look(record.header.namespace, record.key()))
    }

    /// At most `limit` keys of this namespace between the bounds, in order and each once.
    fn keys_between(&self, namespace: u32, bounds: Bounds<'_>, reverse: bool, limit: usize) -> Vec<Box<[u8]>> {
        if self.plan.by_key.is_empty() {
            return self.visit(namespace, bounds, reverse, limit);
        }
        let is_before = |number: &u32| {
            self.with_key(*number, |of, key| {
                (of, (bounds.0, Bound::Unbounded).contains(key)) < (namespace, true)
            })
        };
        let is_within = |number: &u32| {
            self.with_key(*number, |of, key| {
                of < namespace || of == namespace && (Bound::Unbounded, bounds.1).contains(key)
            })
        };
        let numbers = &self.plan.by_key;
        let start = numbers.partition_point(|number| is_before(number).unwrap_or(false));
        let end = numbers.partition_point(|number| is_within(number).unwrap_or(false));
        let within = numbers.get(start..end).unwrap_or_default().iter();
        let mut keys: Vec<Box<[u8]>> = Vec::new();
        let mut add = |number: &u32| {
            self.with_key(*number, |_, key| {
                if keys.last().is_none_or(|last| **last != *key) {
                    keys.push(key.into());
                }
            });
            keys.len() < limit
        };
        if reverse {
            within.rev().all(&mut add);
        } else {
            within.into_iter().all(&mut add);
        }
        keys
    }

    /// The same, by visiting all records.
    fn visit(&self, namespace: u32, bounds: Bounds<'_>, reverse: bool, limit: usize) -> Vec<Box<[u8]>> {
        let mut keys: Vec<Box<[u8]>> = Vec::new();
        for number in 0..self.offsets.len() as u32 {
            self.with_key(number, |of, key| {
                if of == namespace && bounds.contains(key) {
                    keys.push(key.into());
                }
            });
        }
        keys.sort_unstable();
        keys.dedup();
        if reverse {
            keys.reverse();
        }
        keys.truncate(limit);
        keys
    }
}

impl State {
    /// The keys of a namespace between the bounds, expired ones included, at most `limit`; and
    /// whether the flags are right and all of them are there. They may not be while a group has
    /// keys among them.
    pub(crate) fn keys_between(
        &self,
        namespace: &NamespaceState,
        bounds: Bounds<'_>,
        reverse: bool,
        limit: usize,
    ) -> (KeyPage, bool) {
        let mut next = if self.is_changing() { self.published() } else { None };
        let mut keys = namespace.order.page(bounds.0, bounds.1, reverse, limit);
        let mut has_all = true;
        while let Some(group) = next.filter(|_| !planted(Planted::ListWithoutGroup)) {
            let own = group.keys_between(namespace.number, bounds, reverse, limit);
            if !own.is_empty() {
                keys = keys.merged(&own, reverse, limit);
                has_all = false;
            }
            next = group.older();
        }
        (keys, has_all)
    }

    /// The number of keys between the bounds, expired ones included; None while a group has keys
    /// among them.
    pub(crate) fn count_between(&self, namespace: &NamespaceState, bounds: Bounds<'_>) -> Option<u64> {
        let mut next = if self.is_changing() { self.published() } else { None };
        let count = namespace.order.count(bounds.0, bounds.1);
        while let Some(group) = next.filter(|_| !planted(Planted::ListWithoutGroup)) {
            if !group.keys_between(namespace.number, bounds, false, 1).is_empty() {
                return None;
            }
            next = group.older();
        }
        Some(count)
    }
}
