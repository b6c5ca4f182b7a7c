//! How large namespaces may become, as the owner of the server has set by their names.

use std::collections::BTreeMap;

use embercask::{Error, Namespace, NamespaceStats, Store};

use crate::common::failure::Outcome;
use crate::planted::{Planted, planted};

/// Most bytes of namespaces, by name.
#[derive(Debug, Default)]
pub(super) struct NamespaceLimits(BTreeMap<String, u64>);

impl NamespaceLimits {
    pub(super) fn new(max_bytes: BTreeMap<String, u64>) -> NamespaceLimits {
        NamespaceLimits(max_bytes)
    }

    /// Sets the limit of a namespace that was created or renamed.
    pub(super) fn apply(&self, namespace: &Namespace) {
        if !planted(Planted::ForgetNewLimit) {
            namespace.set_max_bytes(self.0.get(&namespace.name()).copied());
        }
    }

    /// What the namespaces with a limit hold, as far as they exist.
    pub(super) fn stats(&self, store: &Store) -> Vec<NamespaceStats> {
        let existing = self.0.keys().filter_map(|name| store.open_namespace(name).ok());
        existing.filter_map(|namespace| namespace.stats().ok()).collect()
    }

    /// Sets the limits of those that exist.
    pub(super) fn apply_to_all(&self, store: &Store) -> Outcome {
        for (name, max_bytes) in &self.0 {
            match store.open_namespace(name) {
                Ok(namespace) => namespace.set_max_bytes(Some(*max_bytes)),
                Err(Error::NamespaceNotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
