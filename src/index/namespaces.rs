//! The namespaces of a store: by name for those who open one, by number for those who read a record.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::order::KeyOrder;
use crate::format::Damage;

/// The keyspace in which the store keeps its namespaces: key = number (big-endian), value = stable id and name. It is read and
/// written like any other, so that creating, renaming and dropping need no record kinds of their own.
pub(crate) const SYSTEM_NAMESPACE: u32 = 0;

/// Longest name of a namespace, in bytes.
pub(crate) const NAME_LEN_MAX: usize = 2048;

/// One namespace of an open store.
#[derive(Debug)]
pub(crate) struct NamespaceState {
    /// Number in records; never reused.
    pub(crate) number: u32,
    /// Random, kept through renames: what the outside knows the namespace by.
    pub(crate) stable_id: u128,
    name: RwLock<Arc<str>>,
    pub(crate) order: KeyOrder,
    /// Whether a record with an expiry was ever put or loaded: if not, no key need be looked up to be counted.
    has_expiring: AtomicBool,
    /// Set, under the writer lock, once its dropping is in the log. Nothing is written to it afterwards.
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

    pub(crate) fn set_dropped(&self) {
        self.dropped.store(true, Ordering::Release);
    }
}

/// All namespaces that exist, and those dropped whose keys have not all left the indexes.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_name: HashMap<Arc<str>, Arc<NamespaceState>>,
    /// The same ones.
    by_stable_id: HashMap<u128, Arc<NamespaceState>>,
    by_number: HashMap<u32, Arc<NamespaceState>>,
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
        inner.by_number.insert(namespace.number, namespace);
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

    /// Name and id are free from here on; the number stays known until the namespace's keys have left the indexes.
    pub(crate) fn forget_name(&self, namespace: &NamespaceState) {
        let mut inner = self.write();
        inner.by_name.remove(&namespace.name());
        inner.by_stable_id.remove(&namespace.stable_id);
    }

    /// The keys have left the indexes.
    pub(crate) fn forget_number(&self, number: u32) {
        self.write().by_number.remove(&number);
    }

    /// Those that exist, by name.
    pub(crate) fn all(&self) -> Vec<Arc<NamespaceState>> {
        let mut all: Vec<_> = self.read().by_name.values().cloned().collect();
        all.sort_by_key(|namespace| namespace.name());
        all
    }

    /// Those dropped whose keys have not all left the indexes.
    pub(crate) fn dropped(&self) -> Vec<Arc<NamespaceState>> {
        self.read()
            .by_number
            .values()
            .filter(|namespace| namespace.is_dropped())
            .cloned()
            .collect()
    }
}

/// Key of a namespace's record.
pub(crate) fn encode_number(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// Value of a namespace's record.
pub(crate) fn encode_entry(stable_id: u128, name: &str) -> Vec<u8> {
    [&stable_id.to_le_bytes(), name.as_bytes()].concat()
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
    Ok((number, u128::from_le_bytes(*id), name))
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
}
