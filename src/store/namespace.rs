//! Reading and writing the keys of one namespace.

use std::borrow::Borrow;
use std::ops::RangeBounds;
use std::sync::Arc;

use super::checks::checked_put;
use super::list::{Moment, Source};
use super::{List, NamespaceStats, Store};
use crate::engine::Engine;
use crate::engine::operation::{Action, Operation, Written};
use crate::error::{Error, Result};
use crate::index::namespaces::NamespaceState;
use crate::limits::Limits;
use crate::options::{Condition, Durability, PutOptions};
use crate::planted::{Planted, planted};
use crate::segment::Value;

/// A named keyspace of a store. Cheap to clone, and usable from any thread.
///
/// Every read sees every write, by any thread, that was acknowledged before the read began.
#[derive(Clone, Debug)]
pub struct Namespace {
    pub(super) store: Store,
    pub(crate) state: Arc<NamespaceState>,
}

/// Outcome of a delete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deleted {
    /// Whether the key was present (and had not expired); of several, whether any was.
    pub existed: bool,
    /// How many keys were present.
    pub count: u64,
}

impl Deleted {
    /// Of one key.
    pub(super) fn of(written: &Written) -> Deleted {
        Deleted {
            existed: written.existed,
            count: u64::from(written.existed),
        }
    }
}

impl Namespace {
    pub(super) fn new(store: Store, state: Arc<NamespaceState>) -> Namespace {
        Namespace { store, state }
    }

    /// The engine, for a call that writes.
    #[inline]
    pub(super) fn writer(&self) -> Result<&Arc<Engine>> {
        self.store.writer()
    }

    fn limits(&self) -> &Limits {
        &self.store.inner.context.options.limits
    }

    /// Its current name.
    pub fn name(&self) -> String {
        self.with_state(|state| state.name().to_string())
    }

    /// Its id: random, chosen at creation, kept through renames. Workers KV's 32 hexadecimal digits
    /// are `{:032x}` of it.
    pub fn id(&self) -> u128 {
        self.state.stable_id
    }

    /// The store it belongs to.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Limits the bytes of the namespace's records, as [`NamespaceStats::live_bytes`] counts them;
    /// `None` removes the limit. Writes that would exceed it fail with [`Error::NamespaceFull`],
    /// also those that only lengthen a record by an expiry or metadata; a batch counts by what it
    /// leaves. Deletes, and writes that do not make the namespace larger, go on. Keys that have
    /// expired count until they are swept. On disk the namespace may take more: what was
    /// overwritten or deleted counts no longer.
    ///
    /// Holds for all handles, from the next write on, until the store is closed: it is not stored.
    pub fn set_max_bytes(&self, max_bytes: Option<u64>) {
        self.state.set_max_bytes(max_bytes);
        if let Ok(engine) = self.writer() {
            // From now on its bytes are compared, and those of a batch may not be counted yet.
            engine.log.settle();
        }
    }

    /// Bytes of its records; see [`NamespaceStats::live_bytes`]. Takes no lock.
    pub fn live_bytes(&self) -> u64 {
        self.with_state(NamespaceState::live_bytes)
    }

    /// The limit set by [`Namespace::set_max_bytes`].
    pub fn max_bytes(&self) -> Option<u64> {
        self.state.max_bytes()
    }

    /// What it holds; [`Error::NamespaceNotFound`] if it was dropped. Merges what was queued for
    /// the key order, which the next listing would do otherwise.
    pub fn stats(&self) -> Result<NamespaceStats> {
        Ok(NamespaceStats::of(self.view()?.state()))
    }

    /// Refuses work on a namespace that was dropped, or whose store was closed.
    pub(super) fn check(&self) -> Result<()> {
        self.view().map(drop)
    }

    /// Why input that is not accepted is refused: a closed store or a dropped namespace is told
    /// first.
    pub(super) fn refusal(&self, error: Error) -> Error {
        if planted(Planted::InputFirst) {
            return error;
        }
        self.check().err().unwrap_or(error)
    }

    /// The value of a key, with its metadata, expiry and sequence; `None` if the key is absent or
    /// has expired.
    ///
    /// Makes no copy and takes no lock. A key that the format does not allow is absent.
    ///
    /// # Errors
    ///
    /// [`Error::Corruption`] if the stored bytes fail their checksums, [`Error::Io`] in
    /// [`crate::ReadMode::Pread`] if the system fails the read, [`Error::NamespaceNotFound`] if
    /// the namespace was dropped.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = key.as_ref();
        self.read(|view| {
            let found = view.engine.state.get(view.state(), key);
            if matches!(found, Ok(None)) {
                view.check()?;
            }
            found
        })
    }

    /// Whether a get of this key finds what it needs in memory, or in the system's page cache, so
    /// that it waits for no device: for programs that must not wait on some of their threads, and
    /// have others for it. Takes about as long as a get.
    ///
    /// Only a hint: the system may use the memory for something else at any time. False if it
    /// cannot be told, as in [`crate::ReadMode::Pread`], for a record of more than some 200 KiB,
    /// and except on Linux.
    ///
    /// # Errors
    ///
    /// As for [`Namespace::get`].
    pub fn is_cached(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.read(|view| {
            let is_cached = view.engine.state.is_cached(view.state(), key.as_ref());
            view.check()?;
            Ok(is_cached)
        })
    }

    /// A part of the value of a key, as [`Value::slice`] cuts it, such as
    /// `get_range("key", 0..100)`. The whole value is read, since its checksum covers all of it: no
    /// byte is returned unchecked.
    pub fn get_range(&self, key: impl AsRef<[u8]>, range: impl RangeBounds<usize>) -> Result<Option<Value>> {
        Ok(self.get(key)?.map(|value| value.slice(range)))
    }

    /// The value of a key, parsed as JSON; [`Error::Decode`] if it is not JSON of this type.
    #[cfg(feature = "json")]
    pub fn get_json<T: serde::de::DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        self.get(key)?.map(|value| value.to_json()).transpose()
    }

    /// The value of a key as text; [`Error::Decode`] if it is not UTF-8.
    pub fn get_text(&self, key: impl AsRef<[u8]>) -> Result<Option<String>> {
        self.get(key)?
            .map(|value| value.as_str().map(str::to_owned))
            .transpose()
    }

    /// The values of many keys, in the order of the keys. Faster than one call per key, since
    /// memory accesses overlap; and a concurrent batch is seen as a whole or not at all.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
        self.read(|namespace| {
            let (state, of_namespace) = (&namespace.engine.state, namespace.state());
            state.consistently(|view| {
                namespace.check()?;
                state.get_many(view.map(|view| &**view), of_namespace, keys)
            })
        })
    }

    /// Whether the key is present and has not expired. The value is neither read nor checked.
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        self.read(|view| {
            let engine = &view.engine;
            let found = engine.state.find_header(&engine.state.hashed(self.state.number, key))?;
            if found.is_none() {
                view.check()?;
            }
            Ok(found.is_some_and(|(_, header)| {
                header.expiry.is_none() || !engine.context.time.now().is_expired(header.expiry, header.sequence)
            }))
        })
    }

    /// Puts a value, without metadata, and without expiry unless [`Namespace::set_default_ttl`] has
    /// set one; replaces all three if the key is present. Returns the sequence of the write.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] if key or value are outside the store's [`Limits`],
    /// [`Error::NoSpace`] on a full disk, and [`Error::LimitReached`] and [`Error::NamespaceFull`]
    /// at a limit of the store or the namespace: then nothing was written. [`Error::Pending`] if
    /// the write was applied but will be written out later. [`Error::Poisoned`] after a failure
    /// that left it unknown what is on the disk. After it and any other error the write may or may
    /// not have happened, as a whole.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<u64> {
        self.put_with(key, value, PutOptions::new())
    }

    /// Puts a value with these options, by value or by reference: lifetime, metadata, durability,
    /// condition. Returns the sequence of the write. Fails like [`Namespace::put`], with
    /// [`Error::Conflict`] if the condition does not hold, and with [`Error::Corruption`] if there
    /// is a condition and the key's record is damaged.
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: impl Borrow<PutOptions>,
    ) -> Result<u64> {
        let options = options.borrow();
        let engine = self.writer()?;
        let operation = self.put_operation(key.as_ref(), value.as_ref(), options)?;
        let written = engine.write(&operation, engine.durability(options.durability))?;
        engine.housekeeping.relieve_order(&self.state);
        Ok(written.sequence)
    }

    /// The operation of a put, checked against the limits.
    #[inline]
    pub(super) fn put_operation<'a>(
        &'a self,
        key: &'a [u8],
        value: &'a [u8],
        options: &'a PutOptions,
    ) -> Result<Operation<'a>> {
        let expiry =
            checked_put(self.writer()?, &self.state, [key, value], options).map_err(|error| self.refusal(error))?;
        Ok(Operation {
            namespace: &self.state,
            key,
            action: Action::Put {
                value,
                metadata: options.metadata.as_deref(),
                expiry,
            },
            condition: options.condition,
        })
    }

    /// Puts a value only if the condition holds; else fails with [`Error::Conflict`], which carries
    /// the sequence that was found.
    pub fn put_if(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, condition: Condition) -> Result<u64> {
        self.put_with(key, value, PutOptions::new().condition(condition))
    }

    /// Puts a value as JSON. Fails like [`Namespace::put`], and with [`Error::InvalidInput`] if
    /// JSON cannot say the value: a number that is not finite, a map whose keys are no text.
    #[cfg(feature = "json")]
    pub fn put_json<T: serde::Serialize + ?Sized>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<u64> {
        self.put_json_with(key, value, PutOptions::new())
    }

    /// Puts a value as JSON, with these options.
    #[cfg(feature = "json")]
    pub fn put_json_with<T: serde::Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        options: impl Borrow<PutOptions>,
    ) -> Result<u64> {
        let bytes = super::json::to_json(value).map_err(|error| self.refusal(error))?;
        self.put_with(key, bytes, options)
    }

    /// Deletes a key; no error if it is absent, or if the format does not allow it. A key whose
    /// record is damaged counts as present. A key that the store's [`Limits`] no longer allow can
    /// still be deleted.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<Deleted> {
        self.delete_with(key, None, None)
    }

    /// Deletes a key only if the condition holds; else fails with [`Error::Conflict`], which
    /// carries the sequence that was found.
    pub fn delete_if(&self, key: impl AsRef<[u8]>, condition: Condition) -> Result<Deleted> {
        self.delete_with(key, Some(condition), None)
    }

    /// Deletes a key, optionally with a condition and another durability than the store's.
    pub fn delete_with(
        &self,
        key: impl AsRef<[u8]>,
        condition: Option<Condition>,
        durability: Option<Durability>,
    ) -> Result<Deleted> {
        let engine = self.writer()?;
        let Some(operation) = self.delete_operation(key.as_ref(), condition)? else {
            return Ok(Deleted::default());
        };
        let written = engine.write(&operation, engine.durability(durability))?;
        engine.housekeeping.relieve_order(&self.state);
        Ok(Deleted::of(&written))
    }

    /// The operation of a delete; None for a key that cannot be there.
    #[inline]
    pub(super) fn delete_operation<'a>(
        &'a self,
        key: &'a [u8],
        condition: Option<Condition>,
    ) -> Result<Option<Operation<'a>>> {
        if !self.limits().may_be_there(key) {
            self.check()?;
            condition.map_or(Ok(()), |condition| condition.check(None))?;
            return Ok(None);
        }
        Ok(Some(Operation {
            namespace: &self.state,
            key,
            action: Action::Delete,
            condition,
        }))
    }

    /// Begins a listing of keys, in byte order.
    pub fn list(&self) -> List {
        let engine = self.store.engine_now();
        let state = self.state_in(&engine);
        let moment = match self.store.is_read_only() {
            true => Moment::Loaded(Arc::downgrade(&self.store.inner)),
            false => Moment::Now,
        };
        List::new(Source::new(engine, state, moment))
    }

    /// Number of keys that have not expired. Reads the header of each key that has an expiry.
    pub fn count(&self) -> Result<u64> {
        self.list().count()
    }
}
