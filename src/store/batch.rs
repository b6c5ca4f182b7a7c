//! Several writes as one.

use std::borrow::Borrow;
use std::ops::Range;
use std::sync::Arc;

use super::checks::{check_namespace, checked_put, expiry_of};
use super::{Namespace, Store};
use crate::engine::Engine;
use crate::engine::operation::{Action, Operation};
use crate::error::{Error, Result};
use crate::index::namespaces::NamespaceState;
use crate::options::{Condition, Durability, Lifetime, PutOptions};
use crate::planted::{Planted, planted};

/// Writes to any namespaces of one store, all applied or none, after any crash and for every
/// reader. A batch is built up in memory, then committed; dropping it uncommitted does nothing. It
/// does not keep the store open: once the last handle is gone, committing is [`Error::Closed`].
///
/// A later write to a key replaces an earlier one in the same batch. Conditions are checked against
/// the store as it was before the batch; if one does not hold, nothing is written. A batch takes at
/// most 256 MiB in the log.
///
/// Writes are added one by one, in a chain or in a loop, and checked as they are. [`Batch::put`]
/// and [`Batch::delete`] keep the first error for [`Batch::commit`]; [`Batch::try_put`] and
/// [`Batch::try_delete`] return it and leave the batch as it was.
///
/// ```
/// # fn main() -> embercask::Result<()> {
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let store = embercask::Store::open(directory.path().join("data"))?;
/// # let users = store.namespace("USERS")?;
/// let mut batch = store.batch();
/// for name in ["ada", "grace"] {
///     batch.put(&users, name, "new");
/// }
/// batch.commit()?; // now it is empty, and can be filled again
/// store.batch().delete(&users, "ada").put(&users, "edith", "new").commit()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a batch does nothing until it is committed"]
pub struct Batch {
    engine: Arc<Engine>,
    /// Then nothing can be written.
    read_only: bool,
    durability: Option<Durability>,
    /// Namespaces written to, in the order of the writes; consecutive writes to the same one share
    /// an entry.
    namespaces: Vec<Arc<NamespaceState>>,
    writes: Vec<Write>,
    /// Key, metadata and value of each write, one after the other.
    bytes: Vec<u8>,
    /// Why the first write that was refused was.
    refused: Option<Error>,
}

#[derive(Debug)]
struct Write {
    /// Index into the batch's namespaces.
    namespace: usize,
    /// The bytes of the key; those of the metadata and the value follow.
    key: Range<usize>,
    /// None if there is no metadata.
    metadata_end: Option<usize>,
    value_end: usize,
    /// None if the key is deleted.
    put: Option<Lifetime>,
    condition: Option<Condition>,
}

impl Batch {
    pub(super) fn new(store: &Store) -> Batch {
        Batch {
            engine: store.engine_now(),
            read_only: store.is_read_only(),
            durability: None,
            namespaces: Vec::new(),
            writes: Vec::new(),
            bytes: Vec::new(),
            refused: None,
        }
    }

    /// Puts a value, without expiry or metadata.
    pub fn put(&mut self, namespace: &Namespace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Batch {
        let added = self.try_put(namespace, key, value);
        self.keep_error(added)
    }

    /// Puts a value with these options. Their durability is ignored: the batch has its own. A
    /// lifetime begins with the commit.
    pub fn put_with(
        &mut self,
        namespace: &Namespace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: impl Borrow<PutOptions>,
    ) -> &mut Batch {
        let added = self.try_put_with(namespace, key, value, options);
        self.keep_error(added)
    }

    /// Deletes a key; does nothing if it is absent.
    pub fn delete(&mut self, namespace: &Namespace, key: impl AsRef<[u8]>) -> &mut Batch {
        let added = self.try_delete(namespace, key);
        self.keep_error(added)
    }

    /// Deletes a key, and makes the batch conditional on this condition.
    pub fn delete_if(&mut self, namespace: &Namespace, key: impl AsRef<[u8]>, condition: Condition) -> &mut Batch {
        let added = self.add_delete(namespace, key.as_ref(), Some(condition));
        self.keep_error(added)
    }

    /// As [`Batch::put`], but returns an error at once, and the batch stays as it was.
    pub fn try_put(&mut self, namespace: &Namespace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.try_put_with(namespace, key, value, PutOptions::new())
    }

    /// As [`Batch::put_with`], but returns an error at once, and the batch stays as it was.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] if key, value, metadata or lifetime are outside the store's
    /// [`Limits`](crate::Limits), or the namespace belongs to another store. It names the key and
    /// the index of the write. [`Error::NamespaceNotFound`] or [`Error::Closed`] instead if the
    /// namespace was dropped or the store was closed; without such an input, only the commit tells
    /// that.
    pub fn try_put_with(
        &mut self,
        namespace: &Namespace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: impl Borrow<PutOptions>,
    ) -> Result<()> {
        let (key, value, options) = (key.as_ref(), value.as_ref(), options.borrow());
        let checked = self
            .check_store(namespace)
            .and_then(|()| checked_put(&self.engine, &namespace.state, [key, value], options));
        if let Err(error) = checked {
            return Err(self.refusal(namespace, key, error));
        }
        let parts = (key, options.metadata.as_deref(), value);
        self.push(namespace, parts, Some(options.lifetime), options.condition);
        Ok(())
    }

    /// As [`Batch::delete`], but returns an error at once, and the batch stays as it was.
    pub fn try_delete(&mut self, namespace: &Namespace, key: impl AsRef<[u8]>) -> Result<()> {
        self.add_delete(namespace, key.as_ref(), None)
    }

    /// Overrides the store's durability.
    pub fn durability(&mut self, durability: Durability) -> &mut Batch {
        self.durability = Some(durability);
        self
    }

    fn add_delete(&mut self, namespace: &Namespace, key: &[u8], condition: Option<Condition>) -> Result<()> {
        if let Err(error) = self.check_store(namespace) {
            return Err(self.refusal(namespace, key, error));
        }
        self.push(namespace, (key, None, &[]), None, condition);
        Ok(())
    }

    /// Refuses a namespace of another store.
    fn check_store(&self, namespace: &Namespace) -> Result<()> {
        if self.read_only {
            self.engine.context.check_open()?;
            return Err(Error::ReadOnly);
        }
        if namespace
            .store
            .writer()
            .is_ok_and(|engine| Arc::ptr_eq(engine, &self.engine))
        {
            return Ok(());
        }
        Err(Error::invalid(
            "the namespace belongs to another store; use one batch for each store",
        ))
    }

    /// Why the write that would come next is refused.
    fn refusal(&self, namespace: &Namespace, key: &[u8], error: Error) -> Error {
        match check_namespace(&self.engine, &namespace.state) {
            Err(error) => error,
            Ok(()) => error.of_write(self.writes.len(), key),
        }
    }

    fn keep_error(&mut self, added: Result<()>) -> &mut Batch {
        if let Err(error) = added {
            self.refused.get_or_insert(error);
        }
        self
    }

    fn push(
        &mut self,
        namespace: &Namespace,
        (key, metadata, value): (&[u8], Option<&[u8]>, &[u8]),
        put: Option<Lifetime>,
        condition: Option<Condition>,
    ) {
        let last = self.namespaces.last();
        if last.is_none_or(|last| !Arc::ptr_eq(last, &namespace.state)) {
            self.namespaces.push(namespace.state.clone());
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(metadata.unwrap_or_default());
        let metadata_end = metadata.map(|_| self.bytes.len());
        self.bytes.extend_from_slice(value);
        self.writes.push(Write {
            namespace: self.namespaces.len() - 1,
            key: start..start + key.len(),
            metadata_end,
            value_end: self.bytes.len(),
            put,
            condition,
        });
    }

    /// The operation of a write. An expiry is computed from the time now.
    #[expect(clippy::indexing_slicing, reason = "`push` put there what it says of each write")]
    fn operation(&self, index: usize, write: &Write) -> Result<Operation<'_>> {
        let key = &self.bytes[write.key.clone()];
        let value_start = write.metadata_end.unwrap_or(write.key.end);
        let action = match write.put {
            Some(lifetime) => Action::Put {
                value: &self.bytes[value_start..write.value_end],
                metadata: write.metadata_end.map(|end| &self.bytes[write.key.end..end]),
                expiry: expiry_of(&self.engine, &self.namespaces[write.namespace], lifetime)
                    .map_err(|error| error.of_write(index, key))?,
            },
            None => Action::Delete,
        };
        Ok(Operation {
            namespace: &self.namespaces[write.namespace],
            key,
            action,
            condition: write.condition,
        })
    }

    /// Number of writes so far.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether the batch has no writes.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Why the first write that was refused was: what [`Batch::commit`] will return. It names the
    /// key and the index of the write.
    pub fn error(&self) -> Option<&Error> {
        self.refused.as_ref()
    }

    /// Forgets all writes, and the error if one was refused. Keeps the durability, and the memory
    /// for as many writes again.
    pub fn clear(&mut self) {
        self.namespaces.clear();
        self.writes.clear();
        self.bytes.clear();
        self.refused = None;
    }

    /// Applies all writes, or none. Returns the sequence of the last one. Then the batch is empty,
    /// as after [`Batch::clear`]; after an error it is as it was.
    ///
    /// # Errors
    ///
    /// Those of [`Namespace::put_with`] for any of the writes; the first that was refused when it
    /// was added. [`Error::InvalidInput`] if the batch is too large. Unless the error is
    /// [`Error::Pending`] or leaves the outcome unknown (see [`Namespace::put`]), nothing was
    /// written.
    pub fn commit(&mut self) -> Result<u64> {
        let sequence = self.write(self.class())?;
        self.clear();
        Ok(sequence)
    }

    /// Applies all writes, or none, with this class.
    pub(super) fn write(&self, durability: Durability) -> Result<u64> {
        let engine = &self.engine;
        engine.context.check_open()?;
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        if let Some(error) = self.refused.as_ref().filter(|_| !planted(Planted::CommitTheRest)) {
            return Err(error.clone());
        }
        let mut operations = Vec::with_capacity(self.writes.len());
        for (index, write) in self.writes.iter().enumerate() {
            let operation = self.operation(index, write)?;
            if write.put.is_none() && !engine.context.options.limits.may_be_there(operation.key) {
                // There is nothing to delete.
                check_namespace(engine, operation.namespace)?;
                write.condition.map_or(Ok(()), |condition| condition.check(None))?;
                continue;
            }
            operations.push(operation);
        }
        let sequence = engine.write_batch(&operations, durability)?;
        for operation in &operations {
            engine.housekeeping.relieve_order(operation.namespace);
        }
        Ok(sequence)
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The class that the batch is written with.
    pub(super) fn class(&self) -> Durability {
        self.engine.durability(self.durability)
    }

    /// What is in the batch; leaves it empty, with its durability.
    pub(super) fn take(&mut self) -> Batch {
        Batch {
            engine: self.engine.clone(),
            read_only: self.read_only,
            durability: self.durability,
            namespaces: std::mem::take(&mut self.namespaces),
            writes: std::mem::take(&mut self.writes),
            bytes: std::mem::take(&mut self.bytes),
            refused: self.refused.take(),
        }
    }
}
