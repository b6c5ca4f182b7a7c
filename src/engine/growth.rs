//! The limits of namespaces, [`Namespace::set_max_bytes`](crate::Namespace::set_max_bytes).

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::index::namespaces::NamespaceState;
use crate::log::NewRecord;
use crate::planted::{Planted, planted};
use crate::state::Current;

/// What one write, under the writer lock, adds to the namespaces that have a limit.
#[derive(Default)]
pub(super) struct Growth<'a> {
    /// Bytes that the write replaces and adds, by the number of the namespace.
    by_namespace: HashMap<u32, (&'a NamespaceState, u64, u64)>,
    /// What earlier records of the write leave of a key, by the namespace and the key.
    lengths: HashMap<(u32, &'a [u8]), u64>,
}

impl<'a> Growth<'a> {
    /// Adds a record; `before` is what the keydir points at before the write.
    pub(super) fn add(&mut self, record: &NewRecord<'a>, before: Option<&Current>) {
        let (namespace, header) = (record.namespace, &record.header);
        if namespace.max_bytes().is_none() {
            return;
        }
        let length = if header.kind.is_put() { header.record_len() } else { 0 };
        let earlier = self.lengths.insert((namespace.number, record.key()), length);
        let (_, replaced_bytes, added_bytes) = self.by_namespace.entry(namespace.number).or_insert((namespace, 0, 0));
        *replaced_bytes += earlier.unwrap_or_else(|| before.map_or(0, Current::length));
        *added_bytes += length;
    }

    /// An error if the write would make a namespace larger than its limit.
    pub(super) fn check(&self) -> Result<()> {
        for (namespace, replaced_bytes, added_bytes) in self.by_namespace.values() {
            let bytes = namespace.live_bytes().saturating_add(*added_bytes);
            let bytes = bytes.saturating_sub(*replaced_bytes);
            // It may have been set, or removed, since.
            let max_bytes = namespace.max_bytes().unwrap_or(u64::MAX);
            if added_bytes > replaced_bytes && bytes > max_bytes && !planted(Planted::IgnoreNamespaceLimit) {
                return Err(Error::NamespaceFull {
                    name: namespace.name().to_string(),
                    bytes,
                    max_bytes,
                });
            }
        }
        Ok(())
    }
}
