//! The limits of namespaces, [`Namespace::set_max_bytes`](crate::Namespace::set_max_bytes).

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::log::NewRecord;
use crate::planted::{Planted, planted};
use crate::state::Current;

/// What one write, under the writer lock, adds to the namespaces that have a limit.
#[derive(Default)]
pub(super) struct Growth<'a> {
    /// Bytes that the write has replaced and added so far, by the number of the namespace.
    by_namespace: HashMap<u32, (u64, u64)>,
    /// What earlier records of the write leave of a key, by the namespace and the key.
    lengths: HashMap<(u32, &'a [u8]), u64>,
}

impl<'a> Growth<'a> {
    /// Adds a record; `before` is what the keydir points at before the write. An error if it would
    /// make the namespace larger than its limit.
    pub(super) fn add(&mut self, record: &NewRecord<'a>, before: Option<&Current>) -> Result<()> {
        let (namespace, header) = (record.namespace, &record.header);
        let length = if header.kind.is_put() { header.record_len() } else { 0 };
        let earlier = self.lengths.insert((namespace.number, record.key()), length);
        let replaced = earlier.unwrap_or_else(|| before.map_or(0, Current::length));
        let (replaced_bytes, added_bytes) = self.by_namespace.entry(namespace.number).or_default();
        *replaced_bytes += replaced;
        *added_bytes += length;
        let bytes = (namespace.live_bytes() + *added_bytes).saturating_sub(*replaced_bytes);
        match namespace.max_bytes() {
            Some(max_bytes) if length > replaced && bytes > max_bytes && !planted(Planted::IgnoreNamespaceLimit) => {
                Err(Error::NamespaceFull {
                    name: namespace.name().to_string(),
                    bytes,
                    max_bytes,
                })
            }
            _ => Ok(()),
        }
    }
}
