//! The namespaces of a store: by name for opening one, by number for records.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::order::{Change, KeyOrder};
use crate::format::{Damage, Stored};
use crate::planted::{Planted, planted};

/// The keyspace in which the store keeps its namespaces: key = number (big-endian), value = stable
/// id and name. It is read and written like any other, so creating, renaming and dropping need no
/// special record kinds.
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
    /// Set, under the writer lock, once the drop is in the log. The namespace takes no writes
    /// afterwards.
    dropped: AtomicBool,
}

impl NamespaceState {
    pub(crate) fn new(number: u32, stable_id: u128, name: &str, order: KeyOrder) -> NamespaceState {
        NamespaceState {
            number,
            stable_id,
            name: RwLock::new(name.into()),
            order,
            has_expiring: AtomicBool::new(false),
            dropped: AtomicBool::new(false),
        }
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

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
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

    /// Marks the namespace dropped, once the drop is in the log; it takes no writes afterwards. The
    /// caller holds the writer lock. Name and id are free from here on; the number stays known
    /// until the namespace's keys have left the indexes.
    pub(crate) fn set_dropped(&self, namespace: &Arc<NamespaceState>) {
        let mut inner = self.write();
        namespace.dropped.store(true, Ordering::Release);
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
    fn capacity(&self) -> usize {
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

    /// Namespaces whose key orders have changed since the last call. The caller checks each,
    /// between [`KeyOrder::begin_look`] and [`KeyOrder::look_again`].
    pub(crate) fn take_changed(&self) -> Vec<Arc<NamespaceState>> {
        let changed = std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner));
        let inner = self.read();
        let known = changed.iter().filter_map(|number| inner.by_number.get(number));
        known.cloned().collect()
    }
}

/// Key of a namespace's record.
pub(crate) fn encode_number(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// Value of a namespace's record.
pub(crate) fn encode_entry(stable_id: u128, name: &str) -> Vec<u8> {
    [&stable_id.to_stored(), name.as_bytes()].concat()
}

/// Number, stable id and name from a namespace's record.
pub(crate) fn decode_entry<'a>(key: &[u8], value: &'a [u8]) -> Result<(u32, u128, &'a str), Damage> {
    let wrong = Damage::Field("namespace record");
    let number = u32::from_be_bytes(key.try_into().map_err(|_| wrong)?);
    let (id, name) = value.split_first_chunk().ok_or(wrong)?;
    let name = std::str::from_utf8(name).map_err(|_| wrong)?;
    if number == SYSTEM_NAMESPACE || name.is_empty() || name.len() > NAME_LEN_MAX {
        return Err(wrong);
    }
    Ok((number, u128::from_stored(*id), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the fuzz target `namespace_record`.
    #[test]
    fn a_record_with_a_name_that_no_namespace_can_have_is_refused() {
        let key = encode_number(1);
        for (name, refused) in [(0, true), (1, false), (NAME_LEN_MAX, false), (NAME_LEN_MAX + 1, true)] {
            let value = encode_entry(7, &"n".repeat(name));
            assert_eq!(decode_entry(&key, &value).is_err(), refused, "{name} bytes");
        }
        assert!(decode_entry(&encode_number(SYSTEM_NAMESPACE), &encode_entry(7, "n")).is_err());
    }

    #[test]
    fn a_dropped_namespace_is_listed_as_such_until_its_keys_are_gone_and_its_name_is_free_at_once() {
        let namespaces = Namespaces::default();
        let named = |number| {
            let state = NamespaceState::new(number, u128::from(number), &format!("{number:02}"), KeyOrder::new());
            Arc::new(state)
        };
        for number in [3, 1, 2] {
            namespaces.insert(named(number));
        }
        let numbers = |states: Vec<Arc<NamespaceState>>| states.iter().map(|state| state.number).collect::<Vec<_>>();
        assert_eq!(numbers(namespaces.all()), [1, 2, 3]);
        let second = namespaces.by_name("02").unwrap();
        assert!(!namespaces.any_dropped());
        namespaces.set_dropped(&second);
        assert!(second.is_dropped() && namespaces.any_dropped());
        assert_eq!(numbers(namespaces.dropped()), [2]);
        assert_eq!((numbers(namespaces.all()), namespaces.len()), (vec![1, 3], 2));
        assert!(namespaces.by_name("02").is_none() && namespaces.by_stable_id(2).is_none());
        assert!(namespaces.by_number(2).is_some());
        namespaces.forget_number(2);
        assert!(namespaces.by_number(2).is_none() && !namespaces.any_dropped());
    }

    #[test]
    fn only_orders_that_have_changed_are_looked_at_and_each_is_named_once() {
        let namespaces = Namespaces::default();
        for number in 1..=1_000 {
            let state = NamespaceState::new(number, u128::from(number), &number.to_string(), KeyOrder::new());
            namespaces.insert(Arc::new(state));
        }
        assert!(namespaces.take_changed().is_empty());
        let changed = namespaces.by_number(7).unwrap();
        for _ in 0..100 {
            namespaces.change_order(&changed, [Change::Insert(b"key", crate::index::order::KeyFlags::NONE)]);
            // Listing merges; that must not note the same namespace again and again.
            assert_eq!(changed.order.len(), 1);
        }
        let named = namespaces.take_changed();
        assert_eq!(named.len(), 1);
        assert_eq!(named[0].number, 7);
        changed.order.begin_look();
        assert!(!changed.order.look_again());
        // Changes made during a look, or left for later, are not forgotten.
        changed.order.begin_look();
        namespaces.change_order(&changed, [Change::Remove(b"key")]);
        assert!(!changed.order.look_again());
        assert_eq!(namespaces.take_changed().len(), 1);
        changed.order.begin_look();
        assert!(changed.order.look_again());
    }
    #[test]
    fn namespaces_that_are_gone_take_no_room() {
        let namespaces = Namespaces::default();
        let numbers = 1..=10_000;
        for number in numbers.clone() {
            let state = NamespaceState::new(number, u128::from(number), &number.to_string(), KeyOrder::new());
            namespaces.insert(Arc::new(state));
        }
        assert!(namespaces.capacity() >= 10_000);
        for number in numbers.skip(5) {
            namespaces.set_dropped(&namespaces.by_number(number).unwrap());
            namespaces.forget_number(number);
        }
        assert!(
            namespaces.capacity() < 4 * Inner::CAPACITY_MIN,
            "{}",
            namespaces.capacity()
        );
        for number in 1..=5 {
            let (by_number, by_id) = (
                namespaces.by_number(number),
                namespaces.by_stable_id(u128::from(number)),
            );
            assert_eq!((by_number.unwrap().number, by_id.unwrap().number), (number, number));
        }
        assert!(namespaces.by_number(6).is_none() && namespaces.by_stable_id(6).is_none());
    }

    #[test]
    fn keys_expire_only_in_namespaces_of_which_that_is_known() {
        let state = NamespaceState::new(7, 7, "N", KeyOrder::new());
        assert!(!state.has_expiring());
        state.set_has_expiring();
        assert!(state.has_expiring());
    }
}
