//! Several writes as one.

use super::namespace::checked_put;
use super::{Namespace, Store};
use crate::error::{Error, Result};
use crate::log::write::{Action, Operation};
use crate::options::{Condition, Durability, PutOptions};

/// Writes to any namespaces of one store, of which all are done or none: after a crash of any kind, and for every reader. Built up
/// in memory, then committed; dropped without that, it does nothing.
///
/// A later write to a key replaces an earlier one in the same batch. Conditions are checked against what stands before the
/// batch; if one does not hold, nothing is written. At most 256 MiB can be written as one.
#[derive(Debug)]
#[must_use = "a batch does nothing until it is committed"]
pub struct Batch {
    store: Store,
    durability: Option<Durability>,
    writes: Vec<Write>,
    /// A namespace of another store was used.
    stranger: bool,
}

#[derive(Debug)]
struct Write {
    namespace: Namespace,
    key: Vec<u8>,
    change: Change,
    condition: Option<Condition>,
}

#[derive(Debug)]
enum Change {
    Put { value: Vec<u8>, options: PutOptions },
    Delete,
}

impl Batch {
    pub(super) fn new(store: &Store) -> Batch {
        Batch {
            store: store.clone(),
            durability: None,
            writes: Vec::new(),
            stranger: false,
        }
    }

    /// Puts a value, without expiry or metadata.
    pub fn put(self, namespace: &Namespace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Batch {
        self.put_with(namespace, key, value, PutOptions::new())
    }

    /// Puts a value with what the options say. A durability in them is ignored: the batch has one of its own.
    pub fn put_with(
        self,
        namespace: &Namespace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: PutOptions,
    ) -> Batch {
        let condition = options.condition;
        self.push(
            namespace,
            key.as_ref(),
            Change::Put {
                value: value.as_ref().to_vec(),
                options,
            },
            condition,
        )
    }

    /// Deletes a key; nothing if it is absent.
    pub fn delete(self, namespace: &Namespace, key: impl AsRef<[u8]>) -> Batch {
        self.push(namespace, key.as_ref(), Change::Delete, None)
    }

    /// Deletes a key, and lets the batch be written only if the condition holds.
    pub fn delete_if(self, namespace: &Namespace, key: impl AsRef<[u8]>, condition: Condition) -> Batch {
        self.push(namespace, key.as_ref(), Change::Delete, Some(condition))
    }

    /// Another durability than the store's.
    pub fn durability(mut self, durability: Durability) -> Batch {
        self.durability = Some(durability);
        self
    }

    fn push(mut self, namespace: &Namespace, key: &[u8], change: Change, condition: Option<Condition>) -> Batch {
        self.stranger |= !std::sync::Arc::ptr_eq(&namespace.store().inner, &self.store.inner);
        self.writes.push(Write {
            namespace: namespace.clone(),
            key: key.to_vec(),
            change,
            condition,
        });
        self
    }

    /// Writes in it so far.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Writes all of it, or nothing. Returns the sequence of its last write.
    ///
    /// # Errors
    ///
    /// Those of [`Namespace::put_with`] for any of its writes; nothing is written then. [`Error::InvalidInput`] if it is too large, or a
    /// namespace belongs to another store.
    pub fn commit(self) -> Result<u64> {
        if self.stranger {
            return Err(Error::invalid(
                "a namespace of another store was used in the batch; use one batch for each store",
            ));
        }
        let engine = self.store.engine();
        let mut operations = Vec::with_capacity(self.writes.len());
        for write in &self.writes {
            let action = match &write.change {
                Change::Put { value, options } => {
                    let expiry = checked_put(engine, &write.key, value, options)?;
                    Action::Put {
                        value,
                        metadata: options.metadata.as_deref(),
                        expiry,
                    }
                }
                Change::Delete => {
                    engine.options.limits.check_key(&write.key)?;
                    Action::Delete
                }
            };
            operations.push(Operation {
                namespace: &write.namespace.state,
                key: &write.key,
                action,
                condition: write.condition,
            });
        }
        let sequence = engine.write_batch(&operations, engine.durability(self.durability))?;
        for write in &self.writes {
            write.namespace.state.order.relieve();
        }
        Ok(sequence)
    }
}
