//! The namespaces of a store: by name for opening one, by number for records.

mod settings;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::order::{Change, KeyOrder};
use crate::format::{Damage, Stored};
use crate::planted::{Planted, planted};
use crate::sync::ChangeRight;

pub(crate) use self::settings::{decode_settings, encode_settings};

/// The keyspace in which the store keeps its namespaces: key = number (big-endian), value = stable
/// id and name, metadata = settings. It is read and written like any other, so creating, renaming
/// and dropping need no special record kinds.
pub(crate) const SYSTEM_NAMESPACE: u32 = 0;

/// Longest name of a namespace, in bytes.
pub(crate) const NAME_LEN_MAX: usize = 2048;

/// One namespace of an open store.
#[derive(Debug)]
pub(crate) struct NamespaceState {
    /// Number in records; never reused.
    pub(crate) number: u32,
    /// Random and unchanged by renames: the namespace's id in the API.
    pub(crate) stable_id: u128,
    name: RwLock<Arc<str>>,
    pub(crate) order: KeyOrder,
    /// Whether a record with an expiry was ever put or loaded. If not, keys can be counted without
    /// looking them up.
    has_expiring: AtomicBool,
    /// Sequence of the drop; 0 until it is in the log. Set under the writer lock: the namespace
    /// takes no writes afterwards.
    dropped_at: AtomicU64,
    counts: Counts,
    /// What the owner lets them grow to; [`u64::MAX`] if there is no limit.
    max_bytes: AtomicU64,
    /// Lifetime of puts that name none, in milliseconds; 0 if they do not expire.
    default_ttl_ms: AtomicU64,
}

/// What puts change, in a cache line of its own, since readers look at what is beside it. Like the
/// counters of a segment it is changed by one thread at a time.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts {
    /// Bytes of the records that the keydir points at.
    live_bytes: AtomicU64,
    /// Sequence of what has changed the key order last since the store was opened.
    order_changed_at: AtomicU64,
}

impl NamespaceState {
    pub(crate) fn new(number: u32, stable_id: u128, name: &str, order: KeyOrder) -> NamespaceState {
        NamespaceState {
            number,
            stable_id,
            name: RwLock::new(name.into()),
            order,
            has_expiring: AtomicBool::new(false),
            dropped_at: AtomicU64::new(0),
            counts: Counts::default(),
            max_bytes: AtomicU64::new(u64::MAX),
            default_ttl_ms: AtomicU64::new(0),
        }
    }

    /// The same namespace with records of this many bytes.
    pub(crate) fn with_live_bytes(mut self, live_bytes: u64) -> NamespaceState {
        *self.counts.live_bytes.get_mut() = live_bytes;
        self
    }

    /// The same namespace, dropped before anything else.
    pub(crate) fn dropped_before(mut self) -> NamespaceState {
        *self.dropped_at.get_mut() = 1;
        self
    }

    pub(crate) fn name(&self) -> Arc<str> {
        self.name.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn has_expiring(&self) -> bool {
        self.has_expiring.load(Ordering::Acquire)
    }

    pub(crate) fn set_has_expiring(&self) {
        self.has_expiring.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped_at().is_some()
    }

    /// Sequence of the record that dropped it.
    #[inline]
    pub(crate) fn dropped_at(&self) -> Option<u64> {
        match self.dropped_at.load(Ordering::Acquire) {
            0 => None,
            sequence => Some(sequence),
        }
    }

    /// Notes a change of the key order by the record of this sequence, before it is made.
    #[inline]
    pub(crate) fn note_order_change(&self, _: &ChangeRight, sequence: u64) {
        // Batches are settled later than what was written after them.
        let newest = self.counts.order_changed_at.load(Ordering::Relaxed).max(sequence);
        self.counts.order_changed_at.store(newest, Ordering::Release);
    }

    /// Whether the key order is that of this moment. If so before and after it is read, what was
    /// read is.
    pub(crate) fn order_is_of(&self, sequence: u64) -> bool {
        self.counts.order_changed_at.load(Ordering::Acquire) <= sequence
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.counts.live_bytes.load(Ordering::Relaxed)
    }

    /// The keydir points at a record of `after` bytes in place of one of `before` bytes.
    #[inline]
    pub(crate) fn change_live_bytes(&self, _: &ChangeRight, before: u64, after: u64) {
        let live_bytes = self.live_bytes().saturating_sub(before).saturating_add(after);
        if !planted(Planted::ForgetUsage) {
            self.counts.live_bytes.store(live_bytes, Ordering::Relaxed);
        }
    }

    /// None if there is no limit.
    #[inline]
    pub(crate) fn max_bytes(&self) -> Option<u64> {
        match self.max_bytes.load(Ordering::Relaxed) {
            u64::MAX => None,
            max_bytes => Some(max_bytes),
        }
    }

    /// Lifetime of puts that name none.
    #[inline]
    pub(crate) fn default_ttl_ms(&self) -> Option<u64> {
        Some(self.default_ttl_ms.load(Ordering::Relaxed)).filter(|ttl_ms| *ttl_ms > 0)
    }

    pub(crate) fn set_default_ttl_ms(&self, ttl_ms: Option<u64>) {
        self.default_ttl_ms.store(ttl_ms.unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn set_max_bytes(&self, max_bytes: Option<u64>) {
        self.max_bytes.store(max_bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// All existing namespaces, and the dropped ones whose keys have not all left the indexes.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    inner: RwLock<Inner>,
    /// Numbers of namespaces whose key orders have queued changes, or had some since the last
    /// check; each is listed once.
    changed: Mutex<Vec<u32>>,
}

#[derive(Debug, Default)]
struct Inner {
    by_name: ByName,
    /// The same ones.
    by_stable_id: HashMap<u128, Arc<NamespaceState>>,
    /// The same namespaces, and those in `dropped`.
    by_number: HashMap<u32, Arc<NamespaceState>>,
    dropped: BTreeMap<u32, Arc<NamespaceState>>,
}

impl Inner {
    /// Below this capacity, unused room does not matter.
    const CAPACITY_MIN: usize = 1024;

    /// Gives back the room of namespaces that are gone, once it is most of it.
    fn shrink(&mut self) {
        let room = (self.by_number.len() * 2).max(Inner::CAPACITY_MIN);
        if self.by_number.capacity() / 2 > room && !planted(Planted::KeepTables) {
            self.by_number.shrink_to(room);
            self.by_stable_id.shrink_to(room);
        }
    }
}

use by_name::ByName;

mod by_name {
    //! A separate module, so that every iteration over all names is counted.

    use super::*;

    /// Existing namespaces, by name.
    #[derive(Debug, Default)]
    pub(super) struct ByName {
        namespaces: BTreeMap<Arc<str>, Arc<NamespaceState>>,
        /// How often all of them were gone through.
        #[cfg(test)]
        walks: std::sync::atomic::AtomicU64,
    }

    impl ByName {
        pub(super) fn get(&self, name: &str) -> Option<&Arc<NamespaceState>> {
            self.namespaces.get(name)
        }

        pub(super) fn insert(&mut self, name: Arc<str>, namespace: Arc<NamespaceState>) {
            self.namespaces.insert(name, namespace);
        }

        pub(super) fn remove(&mut self, name: &str) {
            self.namespaces.remove(name);
        }

        pub(super) fn len(&self) -> usize {
            self.namespaces.len()
        }

        /// All namespaces, in name order.
        pub(super) fn all(&self) -> impl Iterator<Item = &Arc<NamespaceState>> {
            #[cfg(test)]
            self.walks.fetch_add(1, Ordering::Relaxed);
            self.namespaces.values()
        }

        #[cfg(test)]
        pub(super) fn walks(&self) -> u64 {
            self.walks.load(Ordering::Relaxed)
        }
    }
}

impl Namespaces {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<NamespaceState>> {
        self.read().by_name.get(name).cloned()
    }

    pub(crate) fn by_stable_id(&self, stable_id: u128) -> Option<Arc<NamespaceState>> {
        self.read().by_stable_id.get(&stable_id).cloned()
    }

    pub(crate) fn by_number(&self, number: u32) -> Option<Arc<NamespaceState>> {
        self.read().by_number.get(&number).cloned()
    }

    pub(crate) fn insert(&self, namespace: Arc<NamespaceState>) {
        let mut inner = self.write();
        inner.by_name.insert(namespace.name(), namespace.clone());
        inner.by_stable_id.insert(namespace.stable_id, namespace.clone());
        inner.by_number.insert(namespace.number, namespace.clone());
        drop(inner);
        // Keys loaded out of order wait in its queue.
        self.change_order(&namespace, []);
    }

    pub(crate) fn rename(&self, namespace: &Arc<NamespaceState>, name: &str) {
        let mut inner = self.write();
        let new: Arc<str> = name.into();
        let old = std::mem::replace(
            &mut *namespace.name.write().unwrap_or_else(PoisonError::into_inner),
            new.clone(),
        );
        inner.by_name.remove(&old);
        inner.by_name.insert(new, namespace.clone());
    }

    /// Marks the namespace dropped by the record of this sequence, once that is in the log; the
    /// namespace takes no writes afterwards. The
    /// caller holds the writer lock. Name and id are free from here on; the number stays known
    /// until the namespace's keys have left the indexes.
    pub(crate) fn set_dropped(&self, namespace: &Arc<NamespaceState>, sequence: u64) {
        let mut inner = self.write();
        namespace.dropped_at.store(sequence, Ordering::Release);
        inner.by_name.remove(&namespace.name());
        inner.by_stable_id.remove(&namespace.stable_id);
        inner.dropped.insert(namespace.number, namespace.clone());
    }

    /// Forgets a dropped namespace, once its keys have left the indexes.
    pub(crate) fn forget_number(&self, number: u32) {
        let mut inner = self.write();
        inner.by_number.remove(&number);
        inner.dropped.remove(&number);
        inner.shrink();
    }

    /// Existing namespaces, in name order.
    pub(crate) fn all(&self) -> Vec<Arc<NamespaceState>> {
        self.read().by_name.all().cloned().collect()
    }

    /// How often all of them were gone through.
    #[cfg(test)]
    pub(crate) fn walks(&self) -> u64 {
        self.read().by_name.walks()
    }

    /// Number of existing namespaces.
    pub(crate) fn len(&self) -> usize {
        self.read().by_name.len()
    }

    /// Namespaces for which the tables have room.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        let inner = self.read();
        inner.by_number.capacity().max(inner.by_stable_id.capacity())
    }

    /// Dropped namespaces whose keys have not all left the indexes.
    pub(crate) fn dropped(&self) -> Vec<Arc<NamespaceState>> {
        self.read().dropped.values().cloned().collect()
    }

    /// Whether [`Namespaces::dropped`] has any.
    pub(crate) fn any_dropped(&self) -> bool {
        !self.read().dropped.is_empty()
    }

    /// Queues changes to a key order, and notes the namespace as changed.
    pub(crate) fn change_order<'a>(&self, namespace: &NamespaceState, changes: impl IntoIterator<Item = Change<'a>>) {
        if namespace.order.change(changes.into_iter()) {
            self.note_changed(namespace.number);
        }
    }

    /// Notes that the key order of this namespace has to be checked again.
    pub(crate) fn note_changed(&self, number: u32) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).push(number);
    }

    /// Number of key orders that are noted as changed.
    pub(crate) fn changed(&self) -> usize {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Namespaces whose key orders have changed since the last call. The caller checks each,
    /// between [`KeyOrder::begin_look`] and [`KeyOrder::look_again`].
    pub(crate) fn take_changed(&self) -> Vec<Arc<NamespaceState>> {
        let changed = std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner));
        let inner = self.read();
        let known = changed.iter().filter_map(|number| inner.by_number.get(number));
        known.cloned().collect()
    }
}

/// Key of a namespace's record. Big-endian, so that the order of the keys is that of the numbers.
pub(crate) fn encode_number(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// The number from that key.
pub(crate) fn decode_number(key: &[u8]) -> Result<u32, Damage> {
    let number = key.try_into().map_err(|_| Damage::Field("namespace record"))?;
    Ok(u32::from_be_bytes(number))
}

/// Value of a namespace's record.
pub(crate) fn encode_entry(stable_id: u128, name: &str) -> Vec<u8> {
    [&stable_id.to_stored(), name.as_bytes()].concat()
}

/// Number, stable id and name from a namespace's record.
pub(crate) fn decode_entry<'a>(key: &[u8], value: &'a [u8]) -> Result<(u32, u128, &'a str), Damage> {
    let wrong = Damage::Field("namespace record");
    let number = decode_number(key)?;
    let (id, name) = value.split_first_chunk().ok_or(wrong)?;
    let name = std::str::from_utf8(name).map_err(|_| wrong)?;
    if number == SYSTEM_NAMESPACE || name.is_empty() || name.len() > NAME_LEN_MAX {
        return Err(wrong);
    }
    Ok((number, u128::from_stored(*id), name))
}

#[cfg(test)]
mod tests;
