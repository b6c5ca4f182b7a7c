//! Compares what the store shows with the model, through every read.

use std::path::Path;

use embercask::{Error, List, Namespace, Result, Snapshot, Value};

use super::{DIRECTORY, Driver};
use crate::model::{Item, Keyspace};
use crate::ops::{NAMES, PREFIXES};

/// Number of values held across everything that happens.
const HELD_MAX: usize = 6;

/// What a namespace shows, now or at a moment that a snapshot holds.
#[derive(Clone, Copy)]
pub(super) enum Reader<'a> {
    Now(&'a Namespace),
    Past(&'a Snapshot, &'a Namespace),
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reader::Now(namespace) => write!(f, "{}", namespace.name()),
            Reader::Past(snapshot, namespace) => write!(f, "{} at {}", namespace.name(), snapshot.sequence()),
        }
    }
}

impl Reader<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        match self {
            Reader::Now(namespace) => namespace.get(key),
            Reader::Past(snapshot, namespace) => snapshot.get(namespace, key),
        }
    }

    fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Value>>> {
        match self {
            Reader::Now(namespace) => namespace.get_many(keys),
            Reader::Past(snapshot, namespace) => snapshot.get_many(namespace, keys),
        }
    }

    fn contains(&self, key: &[u8]) -> Result<bool> {
        match self {
            Reader::Now(namespace) => namespace.contains(key),
            Reader::Past(snapshot, namespace) => snapshot.contains(namespace, key),
        }
    }

    fn count(&self) -> Result<u64> {
        match self {
            Reader::Now(namespace) => namespace.count(),
            Reader::Past(snapshot, namespace) => snapshot.count(namespace),
        }
    }

    fn list(&self) -> Result<List> {
        match self {
            Reader::Now(namespace) => Ok(namespace.list()),
            Reader::Past(snapshot, namespace) => snapshot.list(namespace),
        }
    }
}

impl Driver {
    /// Compares everything the store shows with the model.
    pub fn check(&mut self) {
        let state = self.history.now();
        let keys = &self.keys;
        let infos: Vec<_> = self
            .store
            .namespaces()
            .unwrap()
            .into_iter()
            .map(|info| (info.name, info.id))
            .collect();
        let expected: Vec<_> = state
            .namespaces
            .iter()
            .map(|(name, keyspace)| (name.clone(), keyspace.id))
            .collect();
        assert_eq!(infos, expected, "namespaces");
        for (name, keyspace) in &state.namespaces {
            let handle = &self.handles[name];
            assert_eq!((handle.name(), handle.id()), (name.clone(), keyspace.id));
            assert_eq!(
                handle.default_ttl().map(|ttl| ttl.as_millis() as u64),
                keyspace.default_ttl,
                "default lifetime in {name}"
            );
            let many = self.check_keyspace(Reader::Now(handle), keyspace);
            let found = many.into_iter().flatten().nth(self.step % keys.len());
            if let Some(value) = found {
                let bytes = value.as_bytes().into();
                let slot = self.step % HELD_MAX;
                if slot < self.held.len() {
                    self.held[slot] = (value, bytes)
                } else {
                    self.held.push((value, bytes))
                }
            }
        }
        for (name, handle) in &self.stale {
            let answer = handle.get(&keys[0]);
            assert!(
                matches!(answer, Err(Error::NamespaceNotFound { .. })),
                "{}: {answer:?}",
                NAMES[*name]
            );
        }
        for (value, bytes) in &self.held {
            assert_eq!(value.as_bytes(), &**bytes, "a held value changed");
        }
        self.check_stats();
        self.check_some_snapshot();
        self.take_some_events();
    }

    /// Compares all that is shown of a namespace. Returns the values of the keys.
    pub(super) fn check_keyspace(&self, reader: Reader<'_>, keyspace: &Keyspace) -> Vec<Option<Value>> {
        let (now, keys) = (self.now, &self.keys);
        let many = reader.get_many(keys).unwrap();
        for (key, from_many) in keys.iter().zip(&many) {
            let (item, value) = (keyspace.get(key, now), reader.get(key).unwrap());
            let what = || format!("{reader:?}/{}", key[..key.len().min(12)].escape_ascii());
            assert_eq!(reader.contains(key).unwrap(), item.is_some(), "contains {}", what());
            for value in [&value, from_many] {
                assert_eq!(
                    value.is_some(),
                    item.is_some(),
                    "{}: found {value:?}, expected {item:?}",
                    what()
                );
                if let (Some(value), Some(item)) = (value, item) {
                    assert_eq!(value.as_bytes(), &*item.value, "value of {}", what());
                    assert_eq!(value.metadata(), item.metadata.as_deref(), "metadata of {}", what());
                    assert_eq!(value.expiry_ms(), item.expiry, "expiry of {}", what());
                    assert_eq!(value.sequence(), item.sequence, "sequence of {}", what());
                }
            }
        }
        self.check_listing(reader, keyspace);
        many
    }

    fn check_listing(&self, reader: Reader<'_>, keyspace: &Keyspace) {
        let (keys, step) = (&self.keys, self.step);
        let expected: Vec<_> = keyspace
            .visible(self.now)
            .map(|(key, item)| (key.to_vec(), item))
            .collect();
        assert_eq!(reader.count().unwrap(), expected.len() as u64, "count of {reader:?}");
        // Each step lists another part of the keys, with another page size.
        let prefix = PREFIXES[step % PREFIXES.len()];
        let (low, high) = (&keys[step % keys.len()], &keys[(step / 3) % keys.len()]);
        let (with_start, after_start, with_end) = (step % 5 == 1, step % 5 == 2, step % 5 >= 3);
        let reverse = step.is_multiple_of(2);
        let mut list = reader.list().unwrap().page_size(1 + step % 4).prefix(prefix);
        if with_start {
            list = list.start(low);
        }
        if after_start {
            list = list.start_after(low);
        }
        if with_end {
            list = list.end(high);
        }
        let mut part: Vec<_> = expected
            .iter()
            .filter(|(key, _)| {
                key.starts_with(prefix)
                    && (!with_start || key >= low)
                    && (!after_start || key > low)
                    && (!with_end || key < high)
            })
            .collect();
        assert_eq!(list.count().unwrap(), part.len() as u64, "count of {list:?}");
        if reverse {
            part.reverse();
            list = list.reverse();
        }
        if step.is_multiple_of(3) {
            list = list.with_values();
        }
        let most = step % 6;
        let walked: Vec<_> = (list.clone().limit(most as u64).into_iter())
            .map(|entry| entry.unwrap().key().to_vec())
            .collect();
        let wanted: Vec<_> = part.iter().take(most).map(|(key, _)| key.clone()).collect();
        assert_eq!(walked, wanted, "the first {most} of {list:?}");
        // From both ends in turns.
        let mut walk = list.clone().into_iter();
        let mut left = part.iter().map(|(key, _)| key.clone());
        for turn in 0..=part.len() {
            let (found, expected) = match (turn + step) % 3 {
                0 => (walk.next_back(), left.next_back()),
                _ => (walk.next(), left.next()),
            };
            assert_eq!(
                found.map(|entry| entry.unwrap().key().to_vec()),
                expected,
                "both ends of {list:?}"
            );
        }
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let is_first = cursor.is_empty();
            let page = list.clone().cursor(cursor).page().unwrap();
            assert!(
                is_first || !page.is_empty(),
                "only a last page comes before nothing: {list:?}"
            );
            for entry in page.iter() {
                let value = entry.value().map(|value| value.as_bytes().to_vec());
                found.push((
                    entry.key().to_vec(),
                    entry.expiry_ms(),
                    entry.metadata().map(<[u8]>::to_vec),
                    value,
                ));
            }
            match page.cursor() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        let seen: Vec<_> = found
            .iter()
            .map(|(key, expiry, metadata, _)| (key.clone(), *expiry, metadata.clone()))
            .collect();
        let wanted: Vec<_> = part
            .iter()
            .map(|(key, item)| (key.clone(), item.expiry, item.metadata.as_deref().map(<[u8]>::to_vec)))
            .collect();
        assert_eq!(seen, wanted, "{list:?}");
        if step.is_multiple_of(3) {
            let values: Vec<_> = found.iter().map(|(_, _, _, value)| value.as_deref()).collect();
            let wanted: Vec<_> = part.iter().map(|(_, item)| Some(&*item.value)).collect();
            assert_eq!(values, wanted, "values of {list:?}");
        }
    }

    fn check_stats(&self) {
        let (state, stats) = (self.state(), self.store.stats());
        let (fewest, most) = (state.visible_keys(self.now), state.keys() + self.dropped_keys);
        assert!(
            (fewest..=most).contains(&stats.keys),
            "{} keys, not {fewest} to {most}",
            stats.keys
        );
        assert_eq!(stats.namespaces, state.namespaces.len() as u64);
        let live: u64 = stats.segments.iter().map(|segment| segment.live_records).sum();
        assert_eq!(
            live,
            stats.keys + stats.namespaces,
            "segments and the index disagree about live records: {stats:?}"
        );
        assert_eq!((&stats.poisoned, &stats.background_error), (&None, &None));
        assert!(stats.durable_sequence <= stats.last_sequence, "{stats:?}");
        // No stray files remain on the disk.
        let listed: Vec<_> = stats
            .segments
            .iter()
            .map(|segment| format!("{:016x}.segment", segment.id))
            .collect();
        let mut there: Vec<_> = self
            .disk
            .files(DIRECTORY)
            .iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
            .filter_map(|path| Path::file_name(path).map(|name| name.to_string_lossy().into_owned()))
            .collect();
        there.sort();
        assert_eq!(there, listed, "segments on the disk");
    }

    /// Counters are exact once everything is swept.
    pub(super) fn check_exact_counts(&self) {
        let (state, stats) = (self.state(), self.store.stats());
        assert_eq!(
            stats.keys,
            state.visible_keys(self.now),
            "keys once everything is swept"
        );
        let names = state.namespaces.iter().map(|(name, keyspace)| {
            // Settings are metadata: their length, a tag, a length and the lifetime.
            let settings = keyspace.default_ttl.map_or(0, |_| 4 + 1 + 1 + 8);
            (24u64 + 4 + settings + 16 + name.len() as u64).next_multiple_of(8)
        });
        let records = state
            .namespaces
            .values()
            .flat_map(|keyspace| &keyspace.items)
            .map(|(key, item)| record_bytes(key.len(), item));
        assert_eq!(
            stats.live_bytes,
            names.chain(records).sum::<u64>(),
            "live bytes once everything is swept: {stats:?}"
        );
    }
}

/// Size of a put's record in the log, see `docs/format.md`.
fn record_bytes(key: usize, item: &Item) -> u64 {
    let optional = if item.expiry.is_some() { 8 } else { 0 } + if item.metadata.is_some() { 4 } else { 0 };
    let metadata = item.metadata.as_ref().map_or(0, |metadata| metadata.len());
    (24 + optional + key + metadata + item.value.len()).next_multiple_of(8) as u64
}
