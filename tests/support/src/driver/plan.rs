//! The outcome that the rules require of a write.

use std::collections::BTreeMap;
use std::sync::Arc;

use embercask::{Condition, Durability};

use super::Driver;
use crate::model::{Item, Keyspace, Promise, State};
use crate::ops::{BatchItem, Guard, NAMES, Put, Write};

/// The required outcome of a write.
#[derive(Debug)]
pub(super) enum Plan {
    /// It succeeds and leads to this state. Sequences of 0 are filled in afterwards.
    Change {
        state: State,
        existed: Option<bool>,
        written: Vec<(String, Vec<u8>)>,
        promise: Promise,
        dropped: u64,
    },
    Conflict(Option<u64>),
    NotFound,
    Exists,
}

impl Driver {
    fn promise(&self, own: Option<Durability>) -> Promise {
        match own.unwrap_or(self.settings.durability) {
            Durability::Buffered => Promise::Nothing,
            Durability::Os => Promise::Kill,
            Durability::Sync => Promise::PowerCut,
        }
    }

    /// The required outcome of this write.
    pub(super) fn plan(&self, write: &Write) -> Plan {
        let mut state = self.state().clone();
        let (mut existed, mut written, mut dropped) = (None, Vec::new(), 0);
        let mut promise = Promise::PowerCut;
        let mut change = |state: &mut State, namespace: usize, key: usize, item: Option<Item>| {
            let (name, key) = (NAMES[namespace].to_owned(), self.keys[key].clone());
            let items = &mut state.namespaces.get_mut(&name).unwrap().items;
            match item {
                Some(item) => items.insert(key.clone(), item),
                None => items.remove(&key),
            };
            written.push((name, key));
        };
        match write {
            Write::Put { namespace, .. }
            | Write::Delete { namespace, .. }
            | Write::SetTtl { namespace, .. }
            | Write::RemoveExpiry { namespace, .. }
            | Write::SetMetadata { namespace, .. }
                if !self.exists(*namespace) =>
            {
                return Plan::NotFound;
            }
            Write::Put {
                namespace,
                key,
                put: what,
                guard,
                durability,
            } => {
                if let Some(conflict) = self.conflict(*guard, *namespace, *key) {
                    return conflict;
                }
                change(&mut state, *namespace, *key, Some(self.item(what, 0)));
                promise = self.promise(*durability);
            }
            Write::Delete {
                namespace,
                key,
                guard,
                durability,
            } => {
                if let Some(conflict) = self.conflict(*guard, *namespace, *key) {
                    return conflict;
                }
                existed = Some(self.visible(*namespace, *key).is_some());
                state
                    .namespaces
                    .get_mut(NAMES[*namespace])
                    .unwrap()
                    .items
                    .remove(&self.keys[*key]);
                promise = self.promise(*durability);
            }
            Write::Batch { items, durability } => {
                for item in self.batch_items(items) {
                    if !self.exists(item.namespace) {
                        return Plan::NotFound;
                    }
                    if let Some(conflict) = self.conflict(item.guard, item.namespace, item.key) {
                        return conflict;
                    }
                }
                for (part, item) in self.batch_items(items).enumerate() {
                    let put = item.put.as_ref().map(|what| self.item(what, part));
                    change(&mut state, item.namespace, item.key, put);
                }
                promise = self.promise(*durability);
            }
            Write::SetTtl { namespace, key, .. }
            | Write::RemoveExpiry { namespace, key }
            | Write::SetMetadata { namespace, key, .. } => {
                let Some(item) = self.visible(*namespace, *key) else {
                    return Plan::Change {
                        state,
                        existed: Some(false),
                        written,
                        promise: Promise::Nothing,
                        dropped,
                    };
                };
                let mut item = Item {
                    seen: self.now,
                    ..item.clone()
                };
                match write {
                    Write::SetTtl { ttl, .. } => item.expiry = Some(self.now + ttl),
                    Write::SetMetadata { metadata, .. } => item.metadata = metadata.map(|length| self.metadata(length)),
                    _ => item.expiry = None,
                }
                change(&mut state, *namespace, *key, Some(item));
                existed = Some(true);
                promise = self.promise(None);
            }
            Write::CreateNamespace { name } => {
                if self.exists(*name) {
                    return Plan::Exists;
                }
                let keyspace = Keyspace {
                    id: self.new_id(),
                    items: BTreeMap::new(),
                };
                state.namespaces.insert(NAMES[*name].to_owned(), keyspace);
            }
            Write::RenameNamespace { from, to } => {
                if !self.exists(*from) {
                    return Plan::NotFound;
                }
                if from == to {
                    // Nothing is written, so nothing more is durable.
                    promise = Promise::Nothing;
                } else if self.exists(*to) {
                    return Plan::Exists;
                }
                let keyspace = state.namespaces.remove(NAMES[*from]).unwrap();
                state.namespaces.insert(NAMES[*to].to_owned(), keyspace);
            }
            Write::DropNamespace { name } => match state.namespaces.remove(NAMES[*name]) {
                None => return Plan::NotFound,
                Some(keyspace) => dropped = keyspace.items.len() as u64,
            },
        }
        Plan::Change {
            state,
            existed,
            written,
            promise,
            dropped,
        }
    }

    /// The conflict that a guard must cause.
    fn conflict(&self, guard: Option<Guard>, namespace: usize, key: usize) -> Option<Plan> {
        let found = self.visible(namespace, key).map(|item| item.sequence);
        let holds = match guard? {
            Guard::Absent => found.is_none(),
            Guard::Present | Guard::Current => found.is_some(),
            Guard::Stale => false,
        };
        (!holds).then_some(Plan::Conflict(found))
    }

    pub(super) fn condition(&self, guard: Guard, namespace: usize, key: usize) -> Condition {
        let sequence = self.visible(namespace, key).map(|item| item.sequence);
        match guard {
            Guard::Absent => Condition::Absent,
            Guard::Present => Condition::Present,
            Guard::Current => Condition::Sequence(sequence.unwrap_or(1)),
            Guard::Stale => Condition::Sequence(sequence.map_or(self.last_sequence, |sequence| sequence - 1)),
        }
    }

    fn visible(&self, namespace: usize, key: usize) -> Option<&Item> {
        self.state()
            .namespaces
            .get(NAMES[namespace])?
            .get(&self.keys[key], self.now)
    }

    fn exists(&self, namespace: usize) -> bool {
        self.state().namespaces.contains_key(NAMES[namespace])
    }

    fn item(&self, put: &Put, part: usize) -> Item {
        Item {
            value: self.value(put, part),
            metadata: put.metadata.map(|length| self.metadata(length)),
            expiry: put.ttl.map(|ttl| self.now + ttl),
            sequence: 0,
            seen: self.now,
        }
    }

    pub(super) fn value(&self, put: &Put, part: usize) -> Arc<[u8]> {
        let text = format!("{}.{part} ", self.step);
        text.bytes().cycle().take(put.length).collect()
    }

    pub(super) fn metadata(&self, length: usize) -> Arc<[u8]> {
        format!("meta {} ", self.step).bytes().cycle().take(length).collect()
    }

    /// Skips writes to namespaces that never existed, for which there is no handle.
    pub(super) fn batch_items<'a>(&self, items: &'a [BatchItem]) -> impl Iterator<Item = &'a BatchItem> {
        let known: Vec<bool> = (0..NAMES.len())
            .map(|name| self.exists(name) || self.stale.contains_key(&name))
            .collect();
        items.iter().filter(move |item| known[item.namespace])
    }

    pub(super) fn new_id(&self) -> u128 {
        self.step as u128 * 100 + self.handles.len() as u128 + 1
    }
}
