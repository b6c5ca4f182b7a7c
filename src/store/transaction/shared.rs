//! What a transaction and its listings share: the moment that they read, and the writes over it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use crate::clock::Now;
use crate::engine::Engine;
use crate::engine::operation::{Action, Operation};
use crate::engine::transaction::{Attempt, Reads};
use crate::error::{Error, Result};
use crate::format::record::Header;
use crate::index::namespaces::NamespaceState;
use crate::index::order::{KeyPage, bounded};
use crate::planted::{Planted, planted};
use crate::segment::Value;
use crate::state::HashedKey;
use crate::sync::lock;

/// See the module.
#[derive(Debug)]
pub(in crate::store) struct Shared {
    pub(super) engine: Arc<Engine>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// None once the transaction has ended.
    attempt: Option<Attempt>,
    writes: Writes,
}

#[derive(Debug)]
pub(super) struct Write {
    namespace: Arc<NamespaceState>,
    /// None if the key is deleted.
    value: Option<Value>,
}

/// By number of the namespace, and key.
pub(super) type Writes = BTreeMap<(u32, Vec<u8>), Write>;

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

fn ended() -> Error {
    Error::invalid("the transaction has ended; list within its closure")
}

impl Inner {
    fn attempt(&mut self) -> Result<&mut Attempt> {
        self.attempt.as_mut().ok_or_else(ended)
    }

    /// What the transaction itself has written under a key, and nothing if it has not.
    fn own(&self, number: u32, key: &[u8]) -> Option<&Write> {
        if planted(Planted::ForgetOwnWrites) || self.writes.is_empty() {
            return None;
        }
        self.writes.get(&(number, key.to_vec()))
    }

    /// Keys between the bounds that the transaction has written.
    fn own_keys<'a>(&'a self, number: u32, (lower, upper): Bounds<'a>) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let is_none = planted(Planted::ForgetOwnWrites) || bounded::is_empty((lower, upper));
        let lower = match lower {
            Bound::Included(key) => Bound::Included((number, key.to_vec())),
            Bound::Excluded(key) => Bound::Excluded((number, key.to_vec())),
            Bound::Unbounded => Bound::Included((number, Vec::new())),
        };
        let upper = match upper {
            Bound::Included(key) => Bound::Included((number, key.to_vec())),
            Bound::Excluded(key) => Bound::Excluded((number, key.to_vec())),
            Bound::Unbounded => number
                .checked_add(1)
                .map_or(Bound::Unbounded, |next| Bound::Excluded((next, Vec::new()))),
        };
        let range = (!is_none).then(|| self.writes.range((lower, upper)));
        range.into_iter().flatten().map(|((_, key), _)| key.as_slice())
    }
}

impl Shared {
    pub(super) fn new(engine: Arc<Engine>, attempt: Attempt) -> Shared {
        let inner = Inner {
            attempt: Some(attempt),
            writes: Writes::new(),
        };
        Shared {
            engine,
            inner: Mutex::new(inner),
        }
    }

    /// Ends reading and writing; None if that has happened.
    pub(super) fn end(&self) -> Option<(Reads, Writes)> {
        let mut inner = lock(&self.inner);
        let attempt = inner.attempt.take()?;
        Some((attempt.into_reads(), std::mem::take(&mut inner.writes)))
    }

    pub(super) fn get(&self, namespace: &Arc<NamespaceState>, key: &[u8]) -> Result<Option<Value>> {
        let key = self.engine.state.hashed(namespace.number, key);
        self.get_hashed(namespace, &key)
    }

    fn get_hashed(&self, namespace: &Arc<NamespaceState>, key: &HashedKey<'_>) -> Result<Option<Value>> {
        self.engine.context.check_open()?;
        let mut inner = lock(&self.inner);
        inner.attempt()?.check(namespace)?;
        if let Some(write) = inner.own(namespace.number, key.key) {
            return Ok(write.value.clone());
        }
        inner.attempt()?.get(namespace, key)
    }

    pub(super) fn get_many<K: AsRef<[u8]>>(
        &self,
        namespace: &Arc<NamespaceState>,
        keys: &[K],
    ) -> Result<Vec<Option<Value>>> {
        let mut values = Vec::with_capacity(keys.len());
        self.engine.state.look_up_many(None, namespace, keys, |key, _| {
            values.push(self.get_hashed(namespace, key)?);
            Ok(())
        })?;
        Ok(values)
    }

    pub(super) fn write(&self, namespace: &Arc<NamespaceState>, key: &[u8], value: Option<Value>) -> Result<()> {
        self.engine.context.check_open()?;
        let mut inner = lock(&self.inner);
        inner.attempt()?.check(namespace)?;
        let write = Write {
            namespace: namespace.clone(),
            value,
        };
        inner.writes.insert((namespace.number, key.to_vec()), write);
        Ok(())
    }

    /// An error if a listing of this namespace cannot go on.
    pub(in crate::store) fn check(&self, namespace: &Arc<NamespaceState>) -> Result<()> {
        self.engine.context.check_open()?;
        lock(&self.inner).attempt()?.check(namespace)
    }

    /// When the attempt began; now if it has ended.
    pub(in crate::store) fn now(&self) -> Now {
        let inner = lock(&self.inner);
        let begun = inner.attempt.as_ref().map(|attempt| attempt.now.clone());
        begun.unwrap_or_else(|| self.engine.context.time.now())
    }

    /// As [`View::keys`](crate::state::View::keys), with the keys that the transaction has written.
    /// Nothing if it has ended.
    pub(in crate::store) fn keys(
        &self,
        namespace: &NamespaceState,
        bounds: Bounds<'_>,
        reverse: bool,
        most: usize,
    ) -> (KeyPage, bool) {
        let mut inner = lock(&self.inner);
        let Some(attempt) = &mut inner.attempt else {
            return (KeyPage::default(), true);
        };
        let (mut keys, mut is_exact) = attempt.view.keys(namespace, bounds, reverse, most);
        let mut own: Vec<Box<[u8]>> = Vec::new();
        match reverse {
            false => own.extend(inner.own_keys(namespace.number, bounds).take(most).map(Box::from)),
            true => own.extend(inner.own_keys(namespace.number, bounds).rev().take(most).map(Box::from)),
        }
        if !own.is_empty() {
            (keys, is_exact) = (keys.merged(&own, reverse, most), false);
        }
        if let Some(attempt) = &mut inner.attempt {
            attempt.note_range(namespace, keys.answered(bounds, reverse, most));
        }
        (keys, is_exact)
    }

    /// As [`View::count`](crate::state::View::count).
    pub(in crate::store) fn count(&self, namespace: &NamespaceState, bounds: Bounds<'_>) -> Option<u64> {
        let mut inner = lock(&self.inner);
        if inner.own_keys(namespace.number, bounds).next().is_some() {
            return None;
        }
        let attempt = inner.attempt.as_mut()?;
        attempt.note_range(namespace, bounds);
        attempt.view.count(namespace, bounds)
    }

    /// The value of a listed key.
    pub(in crate::store) fn value(&self, key: &HashedKey<'_>) -> Result<Option<Value>> {
        let mut inner = lock(&self.inner);
        if let Some(write) = inner.own(key.namespace, key.key) {
            return Ok(write.value.clone());
        }
        let attempt = inner.attempt()?;
        let value = attempt.view.get(key, &attempt.now)?;
        if let Some(value) = &value {
            attempt.note_expiry(value.expiry_ms(), value.sequence());
        }
        Ok(value)
    }

    /// The header of a listed key, expired or not.
    pub(in crate::store) fn header(&self, key: &HashedKey<'_>) -> Result<Option<Header>> {
        let mut inner = lock(&self.inner);
        if let Some(write) = inner.own(key.namespace, key.key) {
            // It is newer than all records, so no earlier setting of the clock concerns it.
            return Ok(write.value.as_ref().map(|value| Header {
                sequence: if planted(Planted::BackdateOwnWrites) {
                    0
                } else {
                    u64::MAX
                },
                ..value.header(key.namespace, key.key)
            }));
        }
        let attempt = inner.attempt()?;
        let header = attempt.view.header(key)?;
        if let Some(header) = &header
            && !attempt.now.is_expired(header.expiry, header.sequence)
        {
            attempt.note_expiry(header.expiry, header.sequence);
        }
        Ok(header)
    }
}

/// The operations of these writes.
pub(super) fn operations(writes: &Writes) -> Vec<Operation<'_>> {
    let operations = writes.iter().map(|((_, key), write)| Operation {
        namespace: &write.namespace,
        key,
        action: match &write.value {
            Some(value) => Action::Put {
                value: value.as_bytes(),
                metadata: value.metadata(),
                expiry: value.expiry_ms(),
            },
            None => Action::Delete,
        },
        condition: None,
    });
    operations.collect()
}
