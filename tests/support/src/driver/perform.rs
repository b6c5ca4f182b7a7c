//! Performs writes on the store.

use std::time::Duration;

use embercask::{Namespace, PutOptions, Result};

use super::Driver;
use crate::ops::{NAMES, Put, Write};

/// What a write returned.
#[derive(Debug)]
pub(super) enum Done {
    Sequence(u64),
    Existed(bool),
    Nothing,
}

impl Driver {
    fn handle(&self, namespace: usize) -> Result<&Namespace> {
        match (self.handles.get(NAMES[namespace]), self.stale.get(&namespace)) {
            (Some(handle), _) | (None, Some(handle)) => Ok(handle),
            (None, None) => Err(self.store.open_namespace(NAMES[namespace]).unwrap_err()),
        }
    }

    fn put_options(&self, put: &Put) -> PutOptions {
        let mut options = PutOptions::new();
        if let Some(ttl) = put.ttl {
            options = options.ttl(Duration::from_millis(ttl));
        }
        if let Some(length) = put.metadata {
            options = options.metadata(&*self.metadata(length));
        }
        options
    }

    /// Performs the write.
    pub(super) fn perform(&mut self, write: &Write) -> Result<Done> {
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
                    .put_with(&self.keys[*key], self.value(put, 0), options)
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
                Ok(Done::Existed(deleted.existed))
            }
            Write::Batch { items, durability } => {
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
                            batch.put_with(handle, key, self.value(put, part), options)
                        }
                        (None, Some(condition)) => batch.delete_if(handle, key, condition),
                        (None, None) => batch.delete(handle, key),
                    };
                }
                if let Some(durability) = durability {
                    batch.durability(*durability);
                }
                batch.commit().map(Done::Sequence)
            }
            Write::SetTtl { namespace, key, ttl } => {
                let handle = self.handle(*namespace)?;
                handle
                    .set_ttl(&self.keys[*key], Duration::from_millis(*ttl))
                    .map(Done::Existed)
            }
            Write::RemoveExpiry { namespace, key } => self
                .handle(*namespace)?
                .remove_expiry(&self.keys[*key])
                .map(Done::Existed),
            Write::SetMetadata {
                namespace,
                key,
                metadata,
            } => {
                let metadata = metadata.map(|length| self.metadata(length));
                self.handle(*namespace)?
                    .set_metadata(&self.keys[*key], metadata.as_deref())
                    .map(Done::Existed)
            }
            Write::CreateNamespace { name } => {
                let handle = self.store.create_namespace_with_id(NAMES[*name], self.new_id())?;
                self.handles.insert(NAMES[*name].to_owned(), handle);
                Ok(Done::Nothing)
            }
            Write::RenameNamespace { from, to } => {
                self.store.rename_namespace(NAMES[*from], NAMES[*to])?;
                let handle = self.handles.remove(NAMES[*from]).unwrap();
                self.handles.insert(NAMES[*to].to_owned(), handle);
                Ok(Done::Nothing)
            }
            Write::DropNamespace { name } => {
                self.store.drop_namespace(NAMES[*name])?;
                let handle = self.handles.remove(NAMES[*name]).unwrap();
                self.stale.insert(*name, handle);
                Ok(Done::Nothing)
            }
        }
    }
}
