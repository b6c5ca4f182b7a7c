//! What the log means, said again as simply as can be: maps, and no batches, groups or stores.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use embercask_replica::applier::{Applied, Verdict};
use embercask_replica::clock::LogTime;
use embercask_replica::entry::{Body, Entry, Lifetime, Operation, Outcome, decode_operations};
use embercask_replica::log::Delivery;
use embercask_replica::writers::{FORGET_MS, LATE_MS};

use super::cluster::etag;

/// How far below the highest counter of a writer an entry may come.
const WINDOW: u64 = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub value: Bytes,
    pub metadata: Option<Bytes>,
    pub expiry_ms: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyspace {
    pub name: String,
    pub default_ttl_ms: Option<u64>,
    pub items: BTreeMap<Bytes, Item>,
}

#[derive(Default)]
struct Heard {
    highest: u64,
    seen: BTreeSet<u64>,
    last_ms: u64,
}

#[derive(Default)]
pub struct Model {
    pub position: u64,
    pub time: LogTime,
    pub namespaces: BTreeMap<u128, Keyspace>,
    /// Of each position the operations that were applied there, with their outcomes.
    pub applied: Vec<Vec<(Operation, Outcome)>>,
    pub repeated: u64,
    pub late: u64,
    pub uploaded: u64,
    writers: HashMap<u128, Heard>,
    parts: HashMap<(u128, u64), (u64, BTreeMap<u32, Bytes>)>,
}

impl Model {
    pub fn apply(&mut self, delivery: &Delivery) {
        self.position += 1;
        assert_eq!(delivery.position, self.position);
        self.time = self.time.after(delivery.stamp_ms);
        let now_ms = self.time.ms();
        self.writers.retain(|_, heard| now_ms - heard.last_ms < FORGET_MS);
        self.parts.retain(|_, (last_ms, _)| now_ms - *last_ms < FORGET_MS);
        let entry = Entry::decode(&delivery.bytes).expect("the log is sound");
        let operations = self.accept(entry);
        let applied = operations.into_iter().map(|operation| {
            let outcome = self.operate(&operation);
            (operation, outcome)
        });
        let applied = applied.collect();
        self.applied.push(applied);
    }

    /// The operations that an entry has applied.
    fn accept(&mut self, entry: Entry) -> Vec<Operation> {
        let now_ms = self.time.ms();
        let header = entry.header;
        if entry.body == Body::Genesis {
            return Vec::new();
        }
        if now_ms.saturating_sub(header.sent_ms) > LATE_MS {
            self.late += 1;
            return Vec::new();
        }
        let heard = self.writers.entry(header.writer).or_default();
        if header.counter + WINDOW < heard.highest || !heard.seen.insert(header.counter) {
            self.repeated += 1;
            return Vec::new();
        }
        heard.highest = heard.highest.max(header.counter);
        heard.last_ms = now_ms;
        match entry.body {
            Body::Operations(all) => all,
            Body::Part { upload, index, bytes } => {
                let parts = self.parts.entry((header.writer, upload)).or_default();
                parts.0 = now_ms;
                parts.1.insert(index, bytes);
                Vec::new()
            }
            Body::Commit {
                upload, parts, length, ..
            } => {
                let (_, found) = self.parts.remove(&(header.writer, upload)).unwrap_or_default();
                let number = found.len();
                let whole: Vec<u8> = found.into_values().flatten().collect();
                // The second also of those that tell that an upload is given up.
                if number != parts as usize || whole.len() as u64 != length {
                    return Vec::new();
                }
                self.uploaded += 1;
                decode_operations(&whole.into()).expect("parts are joined as they were cut")
            }
            Body::Beat { .. } | Body::Genesis => Vec::new(),
        }
    }

    fn operate(&mut self, operation: &Operation) -> Outcome {
        let done = Outcome::Done { expiry_ms: None };
        let is_taken = |name: &str| self.namespaces.values().any(|keyspace| keyspace.name == name);
        match operation {
            Operation::Put { .. } | Operation::Delete { .. } => self.change_key(operation),
            Operation::CreateNamespace { id, name } => {
                if let Some(there) = self.namespaces.get(id) {
                    return if there.name == *name { done } else { Outcome::NameTaken };
                }
                if is_taken(name) {
                    return Outcome::NameTaken;
                }
                let name = name.clone();
                self.namespaces.insert(
                    *id,
                    Keyspace {
                        name,
                        ..Keyspace::default()
                    },
                );
                done
            }
            Operation::RenameNamespace { id, name } => {
                let is_taken = is_taken(name);
                match self.namespaces.get_mut(id) {
                    None => Outcome::NoNamespace,
                    Some(keyspace) if keyspace.name == *name => done,
                    Some(_) if is_taken => Outcome::NameTaken,
                    Some(keyspace) => {
                        keyspace.name.clone_from(name);
                        done
                    }
                }
            }
            Operation::DropNamespace { id } => match self.namespaces.remove(id) {
                Some(_) => done,
                None => Outcome::NoNamespace,
            },
            Operation::SetDefaultTtl { namespace, ttl_ms } => match self.namespaces.get_mut(namespace) {
                Some(keyspace) => {
                    keyspace.default_ttl_ms = *ttl_ms;
                    done
                }
                None => Outcome::NoNamespace,
            },
        }
    }

    fn change_key(&mut self, operation: &Operation) -> Outcome {
        let time = self.time;
        let (Operation::Put {
            namespace,
            key,
            conditions,
            ..
        }
        | Operation::Delete {
            namespace,
            key,
            conditions,
        }) = operation
        else {
            unreachable!("{operation:?}");
        };
        let Some(keyspace) = self.namespaces.get_mut(namespace) else {
            return Outcome::NoNamespace;
        };
        let is_there = |item: &&Item| item.expiry_ms.is_none_or(|expiry_ms| expiry_ms > time.ms());
        let found = keyspace.items.get(key).filter(is_there);
        let tag = found.map(|item| etag(&item.value, item.metadata.as_deref(), item.expiry_ms));
        if !conditions.hold(tag) {
            return Outcome::NotMet {
                is_there: tag.is_some(),
            };
        }
        let Operation::Put {
            value,
            metadata,
            lifetime,
            ..
        } = operation
        else {
            keyspace.items.remove(key);
            return Outcome::Done { expiry_ms: None };
        };
        let expiry_ms = match *lifetime {
            Lifetime::Default => keyspace.default_ttl_ms.map(|ttl_ms| time.ms() + ttl_ms),
            Lifetime::Forever => None,
            Lifetime::After(ttl_ms) => Some(time.ms() + ttl_ms),
            Lifetime::At(at_ms) => Some(time.ms() + at_ms.saturating_sub(time.last_stamp_ms())),
        };
        let (value, metadata) = (value.clone(), metadata.clone());
        keyspace.items.insert(
            key.clone(),
            Item {
                value,
                metadata,
                expiry_ms,
            },
        );
        Outcome::Done { expiry_ms }
    }

    /// A replica must have found what this has.
    pub fn check(&self, applied: &Applied) {
        let expected: Vec<_> = self.applied[applied.position as usize - 1]
            .iter()
            .map(|(_, outcome)| *outcome)
            .collect();
        let found = match &applied.verdict {
            Verdict::Done(outcomes) => &outcomes[..],
            Verdict::Late | Verdict::Repeated | Verdict::Incomplete | Verdict::Kept => &[],
            Verdict::Beat { .. } | Verdict::Begun => &[],
        };
        assert_eq!(found, expected, "at {}", applied.position);
    }

    /// What clients find now.
    pub fn visible(&self) -> BTreeMap<u128, Keyspace> {
        let mut visible = self.namespaces.clone();
        let now_ms = self.time.ms();
        for keyspace in visible.values_mut() {
            let items = &mut keyspace.items;
            items.retain(|_, item| item.expiry_ms.is_none_or(|expiry_ms| expiry_ms > now_ms));
        }
        visible
    }
}
