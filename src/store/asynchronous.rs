//! Asynchronous writes: futures for any runtime, which never wait on the thread that polls them.

use std::borrow::Borrow;

use super::checks::checked_put;
use super::namespace::Deleted;
use super::{Batch, Namespace, Store};
use crate::engine::offload::before_sync;
use crate::engine::operation::{Action, Operation, Written};
use crate::error::Result;
use crate::options::{Condition, Durability, PutOptions};

impl Namespace {
    /// As [`Namespace::put`], but waits asynchronously. See [`Namespace::put_with_async`].
    pub async fn put_async(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<u64> {
        self.put_with_async(key, value, PutOptions::new()).await
    }

    /// As [`Namespace::put_with`], but waits asynchronously; for any runtime.
    ///
    /// The thread that polls it neither writes to a file nor syncs nor sleeps, and does not wait
    /// for other writers for longer than they need to append a small record. A put that can be
    /// appended at once is done by the first poll, and is ready then, too, unless its class is
    /// [`Durability::Sync`](crate::Durability::Sync). Everything else is done by two threads of the
    /// store that exist while they are needed: for that, key, value and options are copied. All
    /// puts that wait to be synced at the same time share one sync.
    ///
    /// Nothing is done before the first poll. If the future is dropped after it, the put is done or
    /// not done, as a whole. Puts whose futures wait at the same time take effect in any order.
    pub async fn put_with_async(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: impl Borrow<PutOptions>,
    ) -> Result<u64> {
        let engine = self.store.writer()?;
        let durability = engine.durability(options.borrow().durability);
        let written = {
            let operation = self.put_operation(key.as_ref(), value.as_ref(), options.borrow())?;
            engine.write_at_once(&operation, before_sync(durability))?
        };
        if let Some(Written { sequence, .. }) = written {
            engine.housekeeping.relieve_order(&self.state);
            if durability == Durability::Sync {
                engine.sync_elsewhere(Some(sequence)).await??;
            }
            return Ok(sequence);
        }
        let (namespace, key, value) = (self.state.clone(), key.as_ref().to_vec(), value.as_ref().to_vec());
        let options = options.borrow().clone();
        let put = engine.write_elsewhere(durability, move |engine, durability| {
            let put = || {
                let operation = Operation {
                    namespace: &namespace,
                    key: &key,
                    action: Action::Put {
                        value: &value,
                        metadata: options.metadata.as_deref(),
                        expiry: checked_put(engine, &namespace, [&key, &value], &options)?,
                    },
                    condition: options.condition,
                };
                engine.write(&operation, durability)
            };
            let written = put().map(|written| written.sequence);
            engine.housekeeping.relieve_order(&namespace);
            (written, ())
        });
        let (written, ()) = put.await?;
        written
    }

    /// As [`Namespace::delete`], but waits asynchronously. See [`Namespace::put_with_async`].
    pub async fn delete_async(&self, key: impl AsRef<[u8]>) -> Result<Deleted> {
        self.delete_with_async(key, None, None).await
    }

    /// As [`Namespace::delete_with`], but waits asynchronously, as [`Namespace::put_with_async`]
    /// does.
    pub async fn delete_with_async(
        &self,
        key: impl AsRef<[u8]>,
        condition: Option<Condition>,
        durability: Option<Durability>,
    ) -> Result<Deleted> {
        let engine = self.store.writer()?;
        let durability = engine.durability(durability);
        let written = match self.delete_operation(key.as_ref(), condition)? {
            Some(operation) => engine.write_at_once(&operation, before_sync(durability))?,
            None => return Ok(Deleted::default()),
        };
        if let Some(written) = written {
            engine.housekeeping.relieve_order(&self.state);
            if durability == Durability::Sync {
                engine.sync_elsewhere(Some(written.sequence)).await??;
            }
            return Ok(Deleted::of(&written));
        }
        let (namespace, key) = (self.state.clone(), key.as_ref().to_vec());
        let delete = engine.write_elsewhere(durability, move |engine, durability| {
            let operation = Operation {
                namespace: &namespace,
                key: &key,
                action: Action::Delete,
                condition,
            };
            let written = engine.write(&operation, durability);
            engine.housekeeping.relieve_order(&namespace);
            let deleted = written.as_ref().map(Deleted::of).unwrap_or_default();
            (written.map(|written| written.sequence), deleted)
        });
        let (written, deleted) = delete.await?;
        written.map(|_| deleted)
    }
}

impl Batch {
    /// As [`Batch::commit`], but waits asynchronously. It is always done by the store's threads,
    /// see [`Namespace::put_with_async`]. Meanwhile, and if the future is dropped before it is
    /// ready, the batch is empty.
    pub async fn commit_async(&mut self) -> Result<u64> {
        let engine = self.engine().clone();
        engine.context.check_open()?;
        let (class, batch) = (self.class(), self.take());
        let commit = engine.write_elsewhere(class, move |_, class| (batch.write(class), batch));
        let (committed, batch) = commit.await?;
        *self = batch;
        if committed.is_ok() {
            self.clear();
        }
        committed
    }
}

impl Store {
    /// As [`Store::sync`], but waits asynchronously; for any runtime. It is done by a thread of the
    /// store, and shared by all calls that wait at the same time. If the future is dropped, it may
    /// be done all the same.
    pub async fn sync_async(&self) -> Result<()> {
        let engine = self.writer()?;
        engine.context.check_open()?;
        engine.sync_elsewhere(None).await?
    }
}
