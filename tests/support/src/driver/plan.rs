//! The outcome that the rules require of a write.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use embercask::{Condition, Durability, Error, ErrorKind, Result};

use super::Driver;
use super::perform::{Answer, Done};
use crate::model::{Item, Keyspace, Promise, State};
use crate::ops::{BatchItem, FOREVER, Guard, NAMES, Put, Write};

/// What a write must do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The states that it leads through, each whole; the last is the one that it leads to. None if
    /// nothing is written. Sequences of 0 are filled in afterwards.
    pub(super) stages: Vec<Stage>,
    /// The records that it adds to the log, in this order.
    pub(super) log: Vec<Logged>,
    /// Keys of namespaces that it drops.
    pub(super) dropped: u64,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) state: State,
    /// What it survives once the write has been acknowledged.
    pub(super) promise: Promise,
}

/// A record in the log.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    /// The first stage that shows it.
    pub(super) stage: usize,
    /// Of the namespace.
    pub(super) id: u128,
    pub(super) key: Vec<u8>,
    /// None deletes.
    pub(super) item: Option<Item>,
    /// Whether it is written for certain: the delete of a key that has expired may find nothing.
    pub(super) is_certain: bool,
}

/// How the call must end.
#[derive(Debug, Default)]
pub(super) enum Outcome {
    /// The records have sequences next to each other; the last is returned.
    Sequence,
    Answer(Answer),
    /// A transaction is committed after so many attempts.
    Committed(RangeInclusive<u32>),
    Conflict(Option<u64>),
    Refused(ErrorKind),
    /// What happened beside it has failed, so it is not known.
    #[default]
    Unknown,
}

impl Outcome {
    pub(super) fn agrees(&self, done: &Result<Done>) -> bool {
        match (self, done) {
            (Outcome::Sequence, Ok(Done::Sequence(_))) => true,
            (Outcome::Answer(expected), Ok(Done::Answer(found))) => expected.is(found),
            (Outcome::Committed(expected), Ok(Done::Committed { attempts, .. })) => expected.contains(attempts),
            (Outcome::Conflict(expected), Err(Error::Conflict { found })) => expected == found,
            (Outcome::Refused(kind), Err(error)) => error.kind() == *kind,
            (Outcome::Unknown, Ok(_)) => true,
            _ => false,
        }
    }
}

impl Plan {
    pub(super) fn refused(kind: ErrorKind) -> Plan {
        Plan {
            outcome: Outcome::Refused(kind),
            ..Plan::default()
        }
    }

    pub(super) fn conflict(found: Option<u64>) -> Plan {
        Plan {
            outcome: Outcome::Conflict(found),
            ..Plan::default()
        }
    }

    /// Nothing is written.
    pub(super) fn answer(answer: Answer) -> Plan {
        Plan {
            outcome: Outcome::Answer(answer),
            ..Plan::default()
        }
    }

    pub(super) fn one(state: State, promise: Promise, log: Vec<Logged>, outcome: Outcome) -> Plan {
        Plan {
            stages: vec![Stage { state, promise }],
            log,
            dropped: 0,
            outcome,
        }
    }
}

impl Driver {
    pub(super) fn promise(&self, own: Option<Durability>) -> Promise {
        match own.unwrap_or(self.settings.durability) {
            Durability::Buffered => Promise::Nothing,
            Durability::Os => Promise::Kill,
            Durability::Sync => Promise::PowerCut,
        }
    }

    /// The required outcome of this write.
    pub(super) fn plan(&self, write: &Write) -> Plan {
        match write {
            Write::Put { namespace, .. }
            | Write::Delete { namespace, .. }
            | Write::SetTtl { namespace, .. }
            | Write::RemoveExpiry { namespace, .. }
            | Write::SetMetadata { namespace, .. }
            | Write::Change { namespace, .. }
            | Write::Pop { namespace, .. }
            | Write::DeleteRange { namespace, .. }
            | Write::SetDefaultTtl { namespace, .. }
                if !self.exists(*namespace) =>
            {
                Plan::refused(ErrorKind::NotFound)
            }
            Write::Put {
                namespace,
                key,
                put,
                guard,
                durability,
            } => self.conflict(*guard, *namespace, *key).unwrap_or_else(|| {
                let item = self.item(*namespace, put, 0);
                self.put_one(*namespace, *key, item, self.promise(*durability), Outcome::Sequence)
            }),
            Write::Delete {
                namespace,
                key,
                guard,
                durability,
            } => self.conflict(*guard, *namespace, *key).unwrap_or_else(|| {
                let existed = Answer::Existed(self.visible(*namespace, *key).is_some());
                self.delete_one(*namespace, *key, self.promise(*durability), existed)
            }),
            Write::Batch { items, durability } => self.plan_batch(items, self.promise(*durability)),
            Write::SetTtl { namespace, key, .. }
            | Write::RemoveExpiry { namespace, key }
            | Write::SetMetadata { namespace, key, .. } => {
                let Some(item) = self.visible(*namespace, *key) else {
                    return Plan::answer(Answer::Existed(false));
                };
                let mut item = self.written_again(item);
                match write {
                    Write::SetTtl { ttl, .. } => item.expiry = Some(self.now + ttl),
                    Write::SetMetadata { metadata, .. } => item.metadata = metadata.map(|length| self.metadata(length)),
                    _ => item.expiry = None,
                }
                let existed = Outcome::Answer(Answer::Existed(true));
                self.put_one(*namespace, *key, item, self.promise(None), existed)
            }
            Write::Change { namespace, key, change } => self.plan_change(*namespace, *key, change),
            Write::Pop {
                namespace,
                prefix,
                last,
            } => self.plan_pop(*namespace, *prefix, *last),
            Write::DeleteRange { .. } => self.plan_delete_range(write),
            Write::Transaction(transaction) => self.plan_transaction(transaction),
            Write::SetDefaultTtl { .. }
            | Write::CreateNamespace { .. }
            | Write::RenameNamespace { .. }
            | Write::DropNamespace { .. } => self.plan_namespace(write),
        }
    }

    fn plan_batch(&self, items: &[BatchItem], promise: Promise) -> Plan {
        for item in self.batch_items(items) {
            if !self.exists(item.namespace) {
                return Plan::refused(ErrorKind::NotFound);
            }
            if let Some(conflict) = self.conflict(item.guard, item.namespace, item.key) {
                return conflict;
            }
        }
        let (mut state, mut log) = (self.state().clone(), Vec::new());
        for (part, item) in self.batch_items(items).enumerate() {
            let put = item.put.as_ref().map(|put| self.item(item.namespace, put, part));
            log.push(self.apply(&mut state, item.namespace, &self.keys[item.key], put));
        }
        // A batch deletes what is absent, too.
        log.iter_mut().for_each(|logged| logged.is_certain = true);
        Plan::one(state, promise, log, Outcome::Sequence)
    }

    /// Writes of a namespace itself.
    fn plan_namespace(&self, write: &Write) -> Plan {
        let (mut state, mut dropped) = (self.state().clone(), 0);
        let mut promise = Promise::PowerCut;
        match write {
            Write::CreateNamespace { name } => {
                if self.exists(*name) {
                    return Plan::refused(ErrorKind::AlreadyExists);
                }
                let keyspace = Keyspace {
                    id: self.new_id(),
                    default_ttl: None,
                    items: BTreeMap::new(),
                };
                state.namespaces.insert(NAMES[*name].to_owned(), keyspace);
            }
            Write::RenameNamespace { from, to } => {
                if !self.exists(*from) {
                    return Plan::refused(ErrorKind::NotFound);
                }
                if from == to {
                    // Nothing is written, so nothing more is durable.
                    promise = Promise::Nothing;
                } else if self.exists(*to) {
                    return Plan::refused(ErrorKind::AlreadyExists);
                }
                let keyspace = state.namespaces.remove(NAMES[*from]).unwrap();
                state.namespaces.insert(NAMES[*to].to_owned(), keyspace);
            }
            Write::SetDefaultTtl { namespace, ttl } => {
                state.namespaces.get_mut(NAMES[*namespace]).unwrap().default_ttl = *ttl;
            }
            Write::DropNamespace { name } => match state.namespaces.remove(NAMES[*name]) {
                None => return Plan::refused(ErrorKind::NotFound),
                Some(keyspace) => dropped = keyspace.items.len() as u64,
            },
            write => unreachable!("{write:?}"),
        }
        Plan {
            dropped,
            ..Plan::one(state, promise, Vec::new(), Outcome::Answer(Answer::Nothing))
        }
    }

    /// A put of one key.
    pub(super) fn put_one(&self, namespace: usize, key: usize, item: Item, promise: Promise, outcome: Outcome) -> Plan {
        let mut state = self.state().clone();
        let logged = self.apply(&mut state, namespace, &self.keys[key], Some(item));
        Plan::one(state, promise, vec![logged], outcome)
    }

    /// A delete of one key, which may be absent.
    pub(super) fn delete_one(&self, namespace: usize, key: usize, promise: Promise, answer: Answer) -> Plan {
        let mut state = self.state().clone();
        let is_there = self.keyspace(namespace).items.contains_key(&self.keys[key]);
        let logged = self.apply(&mut state, namespace, &self.keys[key], None);
        let log = if is_there { vec![logged] } else { Vec::new() };
        Plan::one(state, promise, log, Outcome::Answer(answer))
    }

    /// Puts or deletes a key in a state.
    pub(super) fn apply(&self, state: &mut State, namespace: usize, key: &[u8], item: Option<Item>) -> Logged {
        let keyspace = state.namespaces.get_mut(NAMES[namespace]).unwrap();
        let was_visible = keyspace.get(key, self.now).is_some();
        match &item {
            Some(item) => keyspace.items.insert(key.to_vec(), item.clone()),
            None => keyspace.items.remove(key),
        };
        Logged {
            stage: 0,
            id: keyspace.id,
            key: key.to_vec(),
            is_certain: was_visible || item.is_some(),
            item,
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
        (!holds).then_some(Plan::conflict(found))
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

    pub(super) fn visible(&self, namespace: usize, key: usize) -> Option<&Item> {
        self.state()
            .namespaces
            .get(NAMES[namespace])?
            .get(&self.keys[key], self.now)
    }

    pub(super) fn exists(&self, namespace: usize) -> bool {
        self.state().namespaces.contains_key(NAMES[namespace])
    }

    /// An existing namespace.
    pub(super) fn keyspace(&self, namespace: usize) -> &Keyspace {
        &self.state().namespaces[NAMES[namespace]]
    }

    /// What a put into an existing namespace stores now.
    pub(super) fn item(&self, namespace: usize, put: &Put, part: usize) -> Item {
        self.item_at(self.now, self.keyspace(namespace).default_ttl, put, part)
    }

    pub(super) fn item_at(&self, now: u64, default_ttl: Option<u64>, put: &Put, part: usize) -> Item {
        let ttl = match put.ttl {
            Some(FOREVER) => None,
            ttl => ttl.or(default_ttl),
        };
        Item {
            value: self.value(put.length, part),
            metadata: put.metadata.map(|length| self.metadata(length)),
            expiry: ttl.map(|ttl| now + ttl),
            sequence: 0,
            seen: now,
        }
    }

    /// As it is, in a record written now.
    pub(super) fn written_again(&self, item: &Item) -> Item {
        Item {
            sequence: 0,
            seen: self.now,
            ..item.clone()
        }
    }

    pub(super) fn value(&self, length: usize, part: usize) -> Arc<[u8]> {
        let text = format!("{}.{part} ", self.step);
        text.bytes().cycle().take(length).collect()
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
