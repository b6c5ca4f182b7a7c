//! Several writes as one.

use std::ops::Range;
use std::sync::Arc;

use super::namespace::checked_put;
use super::{Namespace, Store};
use crate::engine::Engine;
use crate::engine::write::{Action, Operation};
use crate::error::{Error, Result};
use crate::index::namespaces::NamespaceState;
use crate::options::{Condition, Durability, PutOptions};

/// Writes to any namespaces of one store, all applied or none, after any crash and for every
/// reader. A batch is built up in memory, then committed; dropping it uncommitted does nothing. It
/// does not keep the store open: once the last handle is gone, committing is [`Error::Closed`].
///
/// A later write to a key replaces an earlier one in the same batch. Conditions are checked against
/// the store as it was before the batch; if one does not hold, nothing is written. A batch takes at
/// most 256 MiB in the log.
#[derive(Debug)]
#[must_use = "a batch does nothing until it is committed"]
pub struct Batch {
    engine: Arc<Engine>,
    durability: Option<Durability>,
    /// Namespaces written to, in the order of the writes; consecutive writes to the same one share
    /// an entry.
    namespaces: Vec<Arc<NamespaceState>>,
    writes: Vec<Write>,
    /// Key and value of each write, one after the other.
    bytes: Vec<u8>,
    /// A namespace of another store was used.
    stranger: bool,
}

#[derive(Debug)]
struct Write {
    /// Index into the batch's namespaces.
    namespace: usize,
    /// The bytes of the key; those of the value follow, up to `value_end`.
    key: Range<usize>,
    value_end: usize,
    /// None if the key is deleted.
    put: Option<PutOptions>,
    condition: Option<Condition>,
}

impl Batch {
    pub(super) fn new(store: &Store) -> Batch {
        Batch {
            engine: store.engine().clone(),
            durability: None,
            namespaces: Vec::new(),
            writes: Vec::new(),
            bytes: Vec::new(),
            stranger: false,
        }
    }

    /// Puts a value, without expiry or metadata.
    pub fn put(self, namespace: &Namespace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Batch {
        self.put_with(namespace, key, value, PutOptions::new())
    }

    /// Puts a value with these options. Their durability is ignored: the batch has its own.
    pub fn put_with(
        self,
        namespace: &Namespace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: PutOptions,
    ) -> Batch {
        let condition = options.condition;
        self.push(namespace, [key.as_ref(), value.as_ref()], Some(options), condition)
    }

    /// Deletes a key; does nothing if it is absent.
    pub fn delete(self, namespace: &Namespace, key: impl AsRef<[u8]>) -> Batch {
        self.push(namespace, [key.as_ref(), &[]], None, None)
    }

    /// Deletes a key, and makes the batch conditional on this condition.
    pub fn delete_if(self, namespace: &Namespace, key: impl AsRef<[u8]>, condition: Condition) -> Batch {
        self.push(namespace, [key.as_ref(), &[]], None, Some(condition))
    }

    /// Overrides the store's durability.
    pub fn durability(mut self, durability: Durability) -> Batch {
        self.durability = Some(durability);
        self
    }

    fn push(
        mut self,
        namespace: &Namespace,
        [key, value]: [&[u8]; 2],
        put: Option<PutOptions>,
        condition: Option<Condition>,
    ) -> Batch {
        let last = self.namespaces.last();
        if last.is_none_or(|last| !Arc::ptr_eq(last, &namespace.state)) {
            self.stranger |= !Arc::ptr_eq(namespace.store.engine(), &self.engine);
            self.namespaces.push(namespace.state.clone());
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.writes.push(Write {
            namespace: self.namespaces.len() - 1,
            key: start..start + key.len(),
            value_end: self.bytes.len(),
            put,
            condition,
        });
        self
    }

    /// Namespace, key and value of a write.
    #[expect(clippy::indexing_slicing, reason = "`push` put there what it says of each write")]
    fn parts(&self, write: &Write) -> (&NamespaceState, &[u8], &[u8]) {
        let value = &self.bytes[write.key.end..write.value_end];
        (&self.namespaces[write.namespace], &self.bytes[write.key.clone()], value)
    }

    /// Number of writes so far.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether the batch has no writes.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Applies all writes, or none. Returns the sequence of the last one.
    ///
    /// # Errors
    ///
    /// Those of [`Namespace::put_with`] for any of the writes. [`Error::InvalidInput`] if the batch
    /// is too large, or a namespace belongs to another store. Unless the error is
    /// [`Error::Pending`] or leaves the outcome unknown (see [`Namespace::put`]), nothing was
    /// written.
    pub fn commit(self) -> Result<u64> {
        if self.stranger {
            return Err(Error::invalid(
                "a namespace of another store was used in the batch; use one batch for each store",
            ));
        }
        let engine = &self.engine;
        let mut operations = Vec::with_capacity(self.writes.len());
        for write in &self.writes {
            let (namespace, key, value) = self.parts(write);
            let action = match &write.put {
                Some(options) => {
                    let expiry = checked_put(engine, key, value, options)?;
                    Action::Put {
                        value,
                        metadata: options.metadata.as_deref(),
                        expiry,
                    }
                }
                None => {
                    engine.context.options.limits.check_deleted_key(key)?;
                    Action::Delete
                }
            };
            operations.push(Operation {
                namespace,
                key,
                action,
                condition: write.condition,
            });
        }
        let sequence = engine.write_batch(&operations, engine.durability(self.durability))?;
        for operation in &operations {
            engine.housekeeping.relieve_order(operation.namespace);
        }
        Ok(sequence)
    }
}
