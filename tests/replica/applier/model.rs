//! What a log means, in the simplest terms: maps in memory, and every rule written out once more.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use embercask_replica::applier::Verdict;
use embercask_replica::entry::{
    Body, Conditions, Entry, Lifetime, Operation, Outcome, Tags, decode_operations, upload,
};
use embercask_replica::state::{RESERVED_ID, RESERVED_NAME};

const HOUR_MS: u64 = 3_600_000;

/// Value, metadata and expiry.
pub type Content = (Vec<u8>, Option<Vec<u8>>, Option<u64>);
pub type Keys = BTreeMap<Vec<u8>, Content>;

#[derive(Default)]
pub struct Model {
    /// In eighths of a millisecond.
    time: u128,
    last_stamp_ms: u64,
    namespaces: BTreeMap<u128, (String, Option<u64>, Keys)>,
    /// Counters that have come, and the time of the last one.
    writers: BTreeMap<u128, (BTreeSet<u64>, u64)>,
    /// Parts by index, and the time of the last one.
    uploads: BTreeMap<(u128, u64), (BTreeMap<u32, Bytes>, u64)>,
}

pub fn etag(value: &[u8], metadata: Option<&[u8]>, expiry_ms: Option<u64>) -> u128 {
    let mut hasher = DefaultHasher::new();
    (value, metadata, expiry_ms).hash(&mut hasher);
    hasher.finish().into()
}

const DONE: Outcome = Outcome::Done { expiry_ms: None };

impl Model {
    pub fn log_ms(&self) -> u64 {
        (self.time / 8) as u64
    }

    pub fn seen(&self) -> Vec<(u128, String, Option<u64>, Keys)> {
        let all = self.namespaces.iter();
        all.map(|(id, (name, ttl_ms, keys))| (*id, name.clone(), *ttl_ms, keys.clone()))
            .collect()
    }

    pub fn apply(&mut self, entry: &Entry, stamp_ms: u64) -> Verdict {
        let is_ahead = self.log_ms() > self.last_stamp_ms;
        let passed = stamp_ms.saturating_sub(self.last_stamp_ms);
        self.time += match is_ahead {
            true => u128::from(passed.min(10_000)) * 7,
            false => u128::from(passed) * 8,
        };
        self.time = self.time.max(u128::from(stamp_ms) * 8);
        self.last_stamp_ms = stamp_ms;
        let now = self.log_ms();
        let is_kept = |last: u64| now < last + 2 * HOUR_MS;
        self.writers.retain(|_, (_, last)| is_kept(*last));
        self.uploads.retain(|_, (_, last)| is_kept(*last));
        for (_, _, keys) in self.namespaces.values_mut() {
            keys.retain(|_, (_, _, expiry)| expiry.is_none_or(|expiry| expiry > now));
        }
        let header = &entry.header;
        if entry.body == Body::Genesis {
            return Verdict::Begun;
        }
        if now > header.sent_ms + HOUR_MS {
            return Verdict::Late;
        }
        let (counters, last) = self.writers.entry(header.writer).or_default();
        let is_old = counters
            .last()
            .is_some_and(|highest| highest.saturating_sub(header.counter) > 64);
        if is_old || header.counter == 0 || !counters.insert(header.counter) {
            return Verdict::Repeated;
        }
        *last = now;
        self.body(header.writer, &entry.body)
    }

    fn body(&mut self, writer: u128, body: &Body) -> Verdict {
        match body {
            Body::Operations(all) => Verdict::Done(all.iter().map(|one| self.operation(one)).collect()),
            Body::Part { upload, index, bytes } => {
                let now = self.log_ms();
                let (parts, last) = self.uploads.entry((writer, *upload)).or_default();
                parts.insert(*index, bytes.clone());
                *last = now;
                Verdict::Kept
            }
            Body::Commit {
                upload: number,
                parts: count,
                ..
            } => {
                let parts = self.uploads.remove(&(writer, *number)).unwrap_or_default().0;
                let joined: Bytes = parts.range(..count).flat_map(|(_, part)| part.to_vec()).collect();
                let claim = upload(*number, &joined).unwrap().pop();
                match decode_operations(&joined) {
                    Ok(all) if claim.as_ref() == Some(body) => {
                        Verdict::Done(all.iter().map(|one| self.operation(one)).collect())
                    }
                    _ => Verdict::Incomplete,
                }
            }
            Body::Beat { .. } => Verdict::Beat { agrees: None },
            Body::Genesis => Verdict::Begun,
        }
    }

    fn operation(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Put {
                namespace,
                key,
                value,
                metadata,
                lifetime,
                conditions,
            } => self.put(
                (*namespace, key),
                (value.to_vec(), metadata.as_ref().map(|metadata| metadata.to_vec())),
                *lifetime,
                conditions,
            ),
            Operation::Delete {
                namespace,
                key,
                conditions,
            } => match self.namespaces.get_mut(namespace) {
                None => Outcome::NoNamespace,
                Some((_, _, keys)) => met(keys, key, conditions).unwrap_or_else(|| {
                    keys.remove(&key[..]);
                    DONE
                }),
            },
            Operation::CreateNamespace { id, name } => self.create(*id, name),
            Operation::RenameNamespace { id, name } => self.rename(*id, name),
            Operation::DropNamespace { id } => match self.namespaces.remove(id) {
                Some(_) => DONE,
                None => Outcome::NoNamespace,
            },
            Operation::SetDefaultTtl { ttl_ms: Some(0), .. } => Outcome::Invalid,
            Operation::SetDefaultTtl { namespace, ttl_ms } => match self.namespaces.get_mut(namespace) {
                Some((_, default, _)) => {
                    *default = *ttl_ms;
                    DONE
                }
                None => Outcome::NoNamespace,
            },
        }
    }

    fn put(
        &mut self,
        (namespace, key): (u128, &Bytes),
        (value, metadata): (Vec<u8>, Option<Vec<u8>>),
        lifetime: Lifetime,
        conditions: &Conditions,
    ) -> Outcome {
        let (now, stamp_ms) = (self.log_ms(), self.last_stamp_ms);
        let Some((_, default, keys)) = self.namespaces.get_mut(&namespace) else {
            return Outcome::NoNamespace;
        };
        if key.is_empty() {
            return Outcome::Invalid;
        }
        let expiry_ms = match lifetime {
            Lifetime::Default => default.map(|ttl_ms| now + ttl_ms),
            Lifetime::Forever => None,
            Lifetime::After(ttl_ms) => Some(now + ttl_ms),
            Lifetime::At(at) if now == stamp_ms => Some(at.max(now)),
            Lifetime::At(at) => Some(now + at.saturating_sub(stamp_ms)),
        };
        if let Some(unmet) = met(keys, key, conditions) {
            return unmet;
        }
        if expiry_ms.is_some_and(|expiry_ms| expiry_ms <= now) {
            keys.remove(&key[..]);
        } else {
            keys.insert(key.to_vec(), (value, metadata, expiry_ms));
        }
        Outcome::Done { expiry_ms }
    }

    fn is_taken(&self, name: &str) -> bool {
        name == RESERVED_NAME || self.namespaces.values().any(|(other, ..)| other == name)
    }

    fn create(&mut self, id: u128, name: &str) -> Outcome {
        let there = self.namespaces.get(&id).map(|(there, ..)| there == name);
        if name.is_empty() {
            return Outcome::Invalid;
        }
        match there {
            Some(true) => DONE,
            Some(false) => Outcome::NameTaken,
            None if id == RESERVED_ID || self.is_taken(name) => Outcome::NameTaken,
            None => {
                self.namespaces.insert(id, (name.to_owned(), None, Keys::new()));
                DONE
            }
        }
    }

    fn rename(&mut self, id: u128, name: &str) -> Outcome {
        if name.is_empty() {
            return Outcome::Invalid;
        }
        let is_taken = self.is_taken(name);
        match self.namespaces.get_mut(&id) {
            None => Outcome::NoNamespace,
            Some((old, ..)) if old == name => DONE,
            Some(_) if is_taken => Outcome::NameTaken,
            Some((old, ..)) => {
                name.clone_into(old);
                DONE
            }
        }
    }
}

/// The outcome if the conditions do not hold.
fn met(keys: &Keys, key: &[u8], conditions: &Conditions) -> Option<Outcome> {
    let found = keys.get(key);
    let found = found.map(|(value, metadata, expiry)| etag(value, metadata.as_deref(), *expiry));
    let is_one = |tags: &Tags| match tags {
        Tags::Any => found.is_some(),
        Tags::These(tags) => tags.iter().any(|tag| Some(*tag) == found),
    };
    let is_matched = conditions.if_match.as_ref().is_none_or(is_one);
    let is_excluded = conditions.if_none_match.as_ref().is_some_and(is_one);
    (!is_matched || is_excluded).then_some(Outcome::NotMet {
        is_there: found.is_some(),
    })
}
