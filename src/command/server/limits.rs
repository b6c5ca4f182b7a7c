//! How large namespaces may become, as the owner of the server has set by their names.

use std::collections::BTreeMap;

use embercask::{Error, Namespace, Store};

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

    /// The namespaces with a limit, as far as they exist.
    pub(super) fn limited(&self, store: &Store) -> Vec<Namespace> {
        let names = self.0.keys();
        names.filter_map(|name| store.open_namespace(name).ok()).collect()
    }

    /// Sets the limits of those that exist.
    pub(super) fn apply_to_all(&self, store: &Store) -> Outcome {
        for (name, max_bytes) in &self.0 {
            match store.open_namespace(name) {
                Ok(namespace) => namespace.set_max_bytes(Some(*max_bytes)),
                // It may be created later, or the name may be wrong.
                Err(Error::NamespaceNotFound { .. }) => {
                    tracing::warn!(%name, "there is a limit for a namespace that does not exist");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
