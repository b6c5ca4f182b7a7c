//! Snapshots: the whole store as it was at one moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::list::{Moment, Source};
use super::{Inner, List, Namespace, NamespaceInfo, Store};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::index::namespaces::NamespaceState;
use crate::segment::Value;
use crate::state::{HashedKey, View};
use crate::sync::lock;

/// The store as it was at one moment, across namespaces, beside writers and compaction. Made by
/// [`Store::snapshot`].
///
/// It shows exactly the writes up to its [sequence](Snapshot::sequence), and of those only what can
/// no longer be rolled back, whatever fails later. Only expiry goes on: a key whose time comes
/// while the snapshot is held is absent from then on.
///
/// A read costs what it costs without a snapshot, unless the key has been written since: then up to
/// as much again. No call waits for a snapshot. What is replaced while it is held is kept for it:
/// 60 to 70 bytes of memory for each record, as much again with its length for each deleted key,
/// and the space on disk of the segments that they are in; see [`Stats::snapshots`](super::Stats).
/// All of it is given back when the last clone is dropped, and a crash forgets it.
///
/// Cheap to clone, and usable from any thread. It does not keep the store open: once that is
/// closed, reads return [`Error::Closed`].
#[derive(Clone, Debug)]
pub struct Snapshot {
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    engine: Arc<Engine>,
    store: Weak<Inner>,
    view: View,
    /// The namespaces of that moment, by the names that they had.
    namespaces: BTreeMap<Arc<str>, Arc<NamespaceState>>,
    id: u64,
    begun_ms: u64,
}

/// An open snapshot, as [`Store::snapshots`] lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// Sequence of the newest write that it shows.
    pub sequence: u64,
    /// How long it has been held.
    pub age: Duration,
}

/// The open snapshots of a store: when each began, and its sequence.
#[derive(Debug, Default)]
pub(super) struct OpenSnapshots(Mutex<Opened>);

#[derive(Debug, Default)]
struct Opened {
    /// Sequence and beginning of each, by number.
    by_id: BTreeMap<u64, (u64, u64)>,
    next_id: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(store) = self.store.upgrade() {
            lock(&store.snapshots.0).by_id.remove(&self.id);
        }
    }
}

impl OpenSnapshots {
    fn add(&self, sequence: u64, begun_ms: u64) -> u64 {
        let mut opened = lock(&self.0);
        opened.next_id += 1;
        let id = opened.next_id;
        opened.by_id.insert(id, (sequence, begun_ms));
        id
    }

    /// The oldest first.
    pub(super) fn all(&self, now_ms: u64) -> Vec<SnapshotInfo> {
        let opened = lock(&self.0);
        let infos = opened.by_id.values().map(|(sequence, begun_ms)| SnapshotInfo {
            sequence: *sequence,
            age: Duration::from_millis(now_ms.saturating_sub(*begun_ms)),
        });
        infos.collect()
    }
}

impl Store {
    /// A snapshot of this moment: it shows everything that was acknowledged before this call.
    ///
    /// Waits for a namespace that is being created, renamed or dropped, and writes out what is
    /// pending: at most 4 MiB that were put with
    /// [`Durability::Buffered`](crate::Durability::Buffered). Where a full disk refuses that, what
    /// was acknowledged is in the snapshot all the same.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`] once the store refuses writes, and [`Error::Closed`].
    pub fn snapshot(&self) -> Result<Snapshot> {
        let engine = self.engine_now();
        engine.context.check_open()?;
        let names_stand = lock(&engine.namespace_changes);
        let view = match self.is_read_only() {
            // Nothing is pending, and nothing will change.
            true => engine.log.begin_reading()?.view,
            false => engine.log.begin_view()?,
        };
        let namespaces = engine.state.namespaces.all();
        drop(names_stand);
        let begun_ms = engine.context.options.clock.monotonic_ms();
        Ok(Snapshot {
            held: Arc::new(Held {
                engine: engine.clone(),
                store: Arc::downgrade(&self.inner),
                id: self.inner.snapshots.add(view.sequence(), begun_ms),
                view,
                namespaces: namespaces.into_iter().map(|state| (state.name(), state)).collect(),
                begun_ms,
            }),
        })
    }

    /// The open snapshots, the oldest first.
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        let context = &self.inner.context;
        context.check_open()?;
        Ok(self.inner.snapshots.all(context.options.clock.monotonic_ms()))
    }
}

impl Snapshot {
    /// Sequence of the newest write that it shows.
    pub fn sequence(&self) -> u64 {
        self.held.view.sequence()
    }

    /// How long it has been held.
    pub fn age(&self) -> Duration {
        let now_ms = self.held.engine.context.options.clock.monotonic_ms();
        Duration::from_millis(now_ms.saturating_sub(self.held.begun_ms))
    }

    pub(crate) fn view(&self) -> &View {
        &self.held.view
    }

    /// The indexes of a namespace, which is checked.
    fn state_of(&self, namespace: &Namespace) -> Result<Arc<NamespaceState>> {
        self.check(namespace)?;
        Ok(namespace.state_in(&self.held.engine))
    }

    /// Refuses a namespace of another store, or that was dropped at that moment.
    fn check(&self, namespace: &Namespace) -> Result<()> {
        let held = &*self.held;
        held.engine.context.check_open()?;
        if !std::ptr::eq(Arc::as_ptr(&namespace.store.inner), held.store.as_ptr()) {
            return Err(Error::invalid(
                "the namespace belongs to another store; open it in the store that the snapshot is of",
            ));
        }
        match namespace.store.is_read_only() {
            true => held.view.check(&namespace.state_in(&held.engine)),
            false => held.view.check(&namespace.state),
        }
    }

    fn hashed<'a>(&self, namespace: &Namespace, key: &'a [u8]) -> HashedKey<'a> {
        self.held.engine.state.hashed(namespace.state.number, key)
    }

    /// The value that a key had; `None` if it was absent, or has expired by now.
    ///
    /// # Errors
    ///
    /// Those of [`Namespace::get`]. [`Error::NamespaceNotFound`] if the namespace had been dropped
    /// at that moment; of one that was dropped later everything is still there.
    pub fn get(&self, namespace: &Namespace, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.check(namespace)?;
        let held = &*self.held;
        let value = held.view.value(&self.hashed(namespace, key.as_ref()))?;
        Ok(value.filter(|value| {
            value.expiry_ms().is_none() || {
                let now = held.engine.context.time.now();
                !now.is_expired(value.expiry_ms(), value.sequence())
            }
        }))
    }

    /// The values that many keys had, in the order of the keys.
    pub fn get_many<K: AsRef<[u8]>>(&self, namespace: &Namespace, keys: &[K]) -> Result<Vec<Option<Value>>> {
        let state = self.state_of(namespace)?;
        self.held.engine.state.get_many(Some(&self.held.view), &state, keys)
    }

    /// Whether a key was present, and has not expired. The value is neither read nor checked.
    pub fn contains(&self, namespace: &Namespace, key: impl AsRef<[u8]>) -> Result<bool> {
        self.check(namespace)?;
        let held = &*self.held;
        let header = held.view.header(&self.hashed(namespace, key.as_ref()))?;
        Ok(header.is_some_and(|header| {
            let now = held.engine.context.time.now();
            !now.is_expired(header.expiry, header.sequence)
        }))
    }

    /// The keys that a namespace had, in byte order, but for those that have expired since. All
    /// pages are of one moment. A listing holds what the snapshot holds, and may outlive it.
    ///
    /// A key costs a look-up, unless no key of the namespace has come or gone since.
    pub fn list(&self, namespace: &Namespace) -> Result<List> {
        let state = self.state_of(namespace)?;
        let moment = Moment::Past(self.clone());
        let source = Source::new(self.held.engine.clone(), state, moment);
        Ok(List::new(source))
    }

    /// Number of keys that a namespace had, but for those that have expired since.
    pub fn count(&self, namespace: &Namespace) -> Result<u64> {
        self.list(namespace)?.count()
    }

    /// The namespaces of that moment, sorted by the names that they had.
    pub fn namespaces(&self) -> Result<Vec<NamespaceInfo>> {
        self.held.engine.context.check_open()?;
        let infos = self.held.namespaces.iter().map(|(name, state)| NamespaceInfo {
            name: name.to_string(),
            id: state.stable_id,
        });
        Ok(infos.collect())
    }

    /// The namespace that had this name at that moment; [`Error::NamespaceNotFound`] if there was
    /// none. What the handle reads and writes by itself is the present: pass it to the reading
    /// functions of the snapshot.
    pub fn open_namespace(&self, name: &str) -> Result<Namespace> {
        self.held.engine.context.check_open()?;
        let inner = self.held.store.upgrade().ok_or(Error::Closed)?;
        let state = self.held.namespaces.get(name);
        let state = state.ok_or_else(|| Error::NamespaceNotFound { name: name.to_owned() })?;
        Ok(Store { inner }.handle(state.clone()))
    }
}
