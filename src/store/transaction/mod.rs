//! Transactions: reads that decide writes, as if no one else wrote meanwhile.

mod run;
mod shared;

use std::borrow::Borrow;
use std::sync::Arc;

use super::checks::checked_put;
use super::list::{Moment, Source};
use super::{List, Namespace};
use crate::error::{Error, Result};
use crate::options::PutOptions;
use crate::segment::Value;

pub use run::{Committed, TransactionOptions};
pub(in crate::store) use shared::Shared;

/// One attempt of a transaction; see [`Store::transaction`](super::Store::transaction).
///
/// It reads the store as it was when the attempt began, with its own writes over it, in gets, lists
/// and counts alike. No other thread sees its writes before it is committed.
#[derive(Debug)]
pub struct Transaction {
    shared: Arc<Shared>,
    attempt: u32,
}

impl Transaction {
    /// The number of this attempt, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Refuses namespaces of other stores.
    fn check(&self, namespace: &Namespace) -> Result<()> {
        let own = namespace.store.writer();
        if own.is_ok_and(|engine| Arc::ptr_eq(engine, &self.shared.engine)) {
            return Ok(());
        }
        Err(Error::invalid(
            "the namespace belongs to another store; a transaction is of one store",
        ))
    }

    /// The value of a key; `None` if it is absent or has expired. The value of a key that this
    /// transaction has put has sequence 0.
    ///
    /// # Errors
    ///
    /// Those of [`Namespace::get`].
    pub fn get(&mut self, namespace: &Namespace, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.check(namespace)?;
        self.shared.get(&namespace.state, key.as_ref())
    }

    /// The values of many keys, in the order of the keys.
    pub fn get_many<K: AsRef<[u8]>>(&mut self, namespace: &Namespace, keys: &[K]) -> Result<Vec<Option<Value>>> {
        self.check(namespace)?;
        self.shared.get_many(&namespace.state, keys)
    }

    /// Whether a key is present and has not expired.
    pub fn contains(&mut self, namespace: &Namespace, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(namespace, key)?.is_some())
    }

    /// Puts a value, without expiry or metadata.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] if key or value are outside the store's limits.
    pub fn put(&mut self, namespace: &Namespace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_with(namespace, key, value, PutOptions::new())
    }

    /// Puts a value with these options. Their durability is ignored: the transaction has its own.
    /// A condition is checked at once; if it does not hold, this is [`Error::Conflict`].
    pub fn put_with(
        &mut self,
        namespace: &Namespace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: impl Borrow<PutOptions>,
    ) -> Result<()> {
        self.check(namespace)?;
        let (key, value, options) = (key.as_ref(), value.as_ref(), options.borrow());
        self.shared.check(&namespace.state)?;
        let expiry = checked_put(&self.shared.engine, &namespace.state, [key, value], options)?;
        if let Some(condition) = options.condition {
            let found = self.shared.get(&namespace.state, key)?;
            condition.check(found.map(|value| value.sequence()))?;
        }
        let value = Value::of_parts(options.metadata.as_deref(), value, expiry);
        self.shared.write(&namespace.state, key, Some(value))
    }

    /// Deletes a key; does nothing if it is absent.
    pub fn delete(&mut self, namespace: &Namespace, key: impl AsRef<[u8]>) -> Result<()> {
        self.check(namespace)?;
        let key = key.as_ref();
        if !self.shared.engine.context.options.limits.may_be_there(key) {
            return self.shared.check(&namespace.state);
        }
        self.shared.write(&namespace.state, key, None)
    }

    /// The keys of a namespace, in byte order, with what this transaction has put and without what
    /// it has deleted. Each page is read when it is asked for, and once the transaction has ended
    /// there are no more.
    ///
    /// What is listed is protected from the first key to the last that was read: keys that others
    /// put there meanwhile are a conflict.
    pub fn list(&mut self, namespace: &Namespace) -> Result<List> {
        self.check(namespace)?;
        let moment = Moment::Transaction(self.shared.clone());
        let source = Source::new(self.shared.engine.clone(), namespace.state.clone(), moment);
        Ok(List::new(source))
    }

    /// Number of keys of a namespace that have not expired.
    pub fn count(&mut self, namespace: &Namespace) -> Result<u64> {
        self.list(namespace)?.count()
    }
}
