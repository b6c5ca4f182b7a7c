//! Performs writes on the store.

use std::time::Duration;

use embercask::{Namespace, PutOptions, Result};

use super::Driver;
use crate::model::Item;
use crate::ops::{BatchItem, FOREVER, NAMES, Put, Write};

/// What a write returned.
#[derive(Debug)]
pub(super) enum Done {
    Sequence(u64),
    Answer(Answer),
    Committed { attempts: u32, sequence: u64 },
}

#[derive(Debug)]
pub(super) enum Answer {
    Nothing,
    Existed(bool),
    /// Number of keys.
    Count(u64),
    /// The value before.
    Old(Option<Item>),
    Sum(i64),
    Popped(Option<(Vec<u8>, Item)>),
}

impl Answer {
    /// Whether this, which was expected, is what was found.
    pub(super) fn is(&self, found: &Answer) -> bool {
        match (self, found) {
            (Answer::Nothing, Answer::Nothing) => true,
            (Answer::Existed(expected), Answer::Existed(found)) => expected == found,
            (Answer::Count(expected), Answer::Count(found)) => expected == found,
            (Answer::Sum(expected), Answer::Sum(found)) => expected == found,
            (Answer::Old(expected), Answer::Old(found)) => match (expected, found) {
                (Some(expected), Some(found)) => is_same(expected, found),
                (expected, found) => expected.is_none() && found.is_none(),
            },
            (Answer::Popped(expected), Answer::Popped(found)) => match (expected, found) {
                (Some((key, expected)), Some((found_key, found))) => key == found_key && is_same(expected, found),
                (expected, found) => expected.is_none() && found.is_none(),
            },
            _ => false,
        }
    }
}

/// Whether they are the same record.
pub(super) fn is_same(expected: &Item, found: &Item) -> bool {
    expected.looks_like(found) && (expected.sequence == 0 || expected.sequence == found.sequence)
}

impl Driver {
    pub(super) fn handle(&self, namespace: usize) -> Result<&Namespace> {
        match (self.handles.get(NAMES[namespace]), self.stale.get(&namespace)) {
            (Some(handle), _) | (None, Some(handle)) => Ok(handle),
            (None, None) => Err(self.store.open_namespace(NAMES[namespace]).unwrap_err()),
        }
    }

    pub(super) fn put_options(&self, put: &Put) -> PutOptions {
        let mut options = PutOptions::new();
        match put.ttl {
            None => {}
            Some(FOREVER) => options = options.forever(),
            Some(ttl) => options = options.ttl(Duration::from_millis(ttl)),
        }
        if let Some(length) = put.metadata {
            options = options.metadata(&*self.metadata(length));
        }
        options
    }

    /// Performs the write.
    pub(super) fn perform(&mut self, write: &Write) -> Result<Done> {
        let existed = |existed| Done::Answer(Answer::Existed(existed));
        match write {
            Write::Put {
                namespace,
                key,
                put,
                guard,
                durability,
            } => {
                let mut options = self.put_options(put);
                if let Some(durability) = durability {
                    options = options.durability(*durability);
                }
                if let Some(guard) = guard {
                    options = options.condition(self.condition(*guard, *namespace, *key));
                }
                let handle = self.handle(*namespace)?;
                handle
                    .put_with(&self.keys[*key], self.value(put.length, 0), options)
                    .map(Done::Sequence)
            }
            Write::Delete {
                namespace,
                key,
                guard,
                durability,
            } => {
                let condition = guard.map(|guard| self.condition(guard, *namespace, *key));
                let deleted = self
                    .handle(*namespace)?
                    .delete_with(&self.keys[*key], condition, *durability)?;
                Ok(existed(deleted.existed))
            }
            Write::Batch { items, durability } => self.perform_batch(items, *durability),
            Write::SetTtl { namespace, key, ttl } => {
                let handle = self.handle(*namespace)?;
                let ttl = Duration::from_millis(*ttl);
                handle.set_ttl(&self.keys[*key], ttl).map(existed)
            }
            Write::RemoveExpiry { namespace, key } => {
                self.handle(*namespace)?.remove_expiry(&self.keys[*key]).map(existed)
            }
            Write::SetMetadata {
                namespace,
                key,
                metadata,
            } => {
                let metadata = metadata.map(|length| self.metadata(length));
                self.handle(*namespace)?
                    .set_metadata(&self.keys[*key], metadata.as_deref())
                    .map(existed)
            }
            Write::Change { namespace, key, change } => self.perform_change(*namespace, *key, change),
            Write::Pop {
                namespace,
                prefix,
                last,
            } => self.perform_pop(*namespace, *prefix, *last),
            Write::DeleteRange { .. } => self.perform_delete_range(write),
            Write::Transaction(transaction) => self.perform_transaction(transaction),
            Write::SetDefaultTtl { .. }
            | Write::CreateNamespace { .. }
            | Write::RenameNamespace { .. }
            | Write::DropNamespace { .. } => {
                self.perform_namespace(write)?;
                Ok(Done::Answer(Answer::Nothing))
            }
        }
    }

    fn perform_batch(&self, items: &[BatchItem], durability: Option<embercask::Durability>) -> Result<Done> {
        let mut batch = self.store.batch();
        for (part, item) in self.batch_items(items).enumerate() {
            let (handle, key) = (self.handle(item.namespace)?, &self.keys[item.key]);
            let condition = item.guard.map(|guard| self.condition(guard, item.namespace, item.key));
            match (&item.put, condition) {
                (Some(put), condition) => {
                    let mut options = self.put_options(put);
                    if let Some(condition) = condition {
                        options = options.condition(condition);
                    }
                    batch.put_with(handle, key, self.value(put.length, part), options)
                }
                (None, Some(condition)) => batch.delete_if(handle, key, condition),
                (None, None) => batch.delete(handle, key),
            };
        }
        if let Some(durability) = durability {
            batch.durability(durability);
        }
        batch.commit().map(Done::Sequence)
    }

    fn perform_namespace(&mut self, write: &Write) -> Result<()> {
        match write {
            Write::SetDefaultTtl { namespace, ttl } => {
                let ttl = ttl.map(Duration::from_millis);
                self.handle(*namespace)?.set_default_ttl(ttl)
            }
            Write::CreateNamespace { name } => {
                let handle = self.store.create_namespace_with_id(NAMES[*name], self.new_id())?;
                self.handles.insert(NAMES[*name].to_owned(), handle);
                Ok(())
            }
            Write::RenameNamespace { from, to } => {
                self.store.rename_namespace(NAMES[*from], NAMES[*to])?;
                let handle = self.handles.remove(NAMES[*from]).unwrap();
                self.handles.insert(NAMES[*to].to_owned(), handle);
                Ok(())
            }
            Write::DropNamespace { name } => {
                self.store.drop_namespace(NAMES[*name])?;
                self.was_dropped(*name);
                Ok(())
            }
            write => unreachable!("{write:?}"),
        }
    }

    /// A namespace was dropped.
    pub(super) fn was_dropped(&mut self, name: usize) {
        let handle = self.handles.remove(NAMES[name]).unwrap();
        self.stale.insert(name, handle);
    }
}
