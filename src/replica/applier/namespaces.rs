//! Operations of namespaces. The store has no batch for those: each is made by itself, before the
//! batch that holds its position. A node may die in between and make it again, so the second time
//! has to end as the first.

use std::time::Duration;

use embercask::Error;

use super::group::Group;
use super::{Applier, ApplyError};
use crate::entry::{Operation, Outcome};
use crate::state::{RESERVED_ID, RESERVED_NAME};

/// Under this key is the position of the entry that drops a namespace, from before the drop until
/// that entry is applied: the second time there is nothing left to drop.
const DROP_KEY: &str = "drop";

/// Longest name of a namespace that a store takes, in bytes.
const NAME_BYTES_MAX: usize = 2048;

impl Applier {
    pub(super) fn change_namespaces(
        &mut self,
        group: &mut Group,
        operation: Operation,
        position: u64,
    ) -> Result<Outcome, ApplyError> {
        match operation {
            Operation::CreateNamespace { id, name } => self.create(id, &name),
            Operation::RenameNamespace { id, name } => self.rename(id, &name),
            Operation::DropNamespace { id } => self.drop_namespace(group, id, position),
            Operation::SetDefaultTtl { namespace, ttl_ms } => self.set_default_ttl(namespace, ttl_ms),
            Operation::Put { .. } | Operation::Delete { .. } => Ok(Outcome::Invalid),
        }
    }

    fn create(&mut self, id: u128, name: &str) -> Result<Outcome, ApplyError> {
        if !is_name(name) {
            return Ok(Outcome::Invalid);
        }
        if id == RESERVED_ID {
            return Ok(Outcome::NameTaken);
        }
        if let Some(there) = self.store.namespace_by_id(id)? {
            return Ok(if there.name() == name { DONE } else { Outcome::NameTaken });
        }
        if self.is_taken(name)? {
            return Ok(Outcome::NameTaken);
        }
        self.store.create_namespace_with_id(name, id)?;
        Ok(DONE)
    }

    fn rename(&mut self, id: u128, name: &str) -> Result<Outcome, ApplyError> {
        if !is_name(name) {
            return Ok(Outcome::Invalid);
        }
        let Some(namespace) = self.namespace(id)? else {
            return Ok(Outcome::NoNamespace);
        };
        let old = namespace.name();
        if old == name {
            return Ok(DONE);
        }
        if self.is_taken(name)? {
            return Ok(Outcome::NameTaken);
        }
        self.store.rename_namespace(&old, name)?;
        Ok(DONE)
    }

    fn drop_namespace(&mut self, group: &mut Group, id: u128, position: u64) -> Result<Outcome, ApplyError> {
        let position = position.to_le_bytes();
        let noted = self.reserved.get(DROP_KEY)?;
        let is_second = noted.is_some_and(|noted| *noted == position);
        let Some(namespace) = self.namespace(id)? else {
            group.batch.try_delete(&self.reserved, DROP_KEY)?;
            return Ok(if is_second { DONE } else { Outcome::NoNamespace });
        };
        // The store's log keeps the order: if the drop survives a crash, so does this.
        self.reserved.put(DROP_KEY, position)?;
        self.namespaces.remove(&id);
        self.store.drop_namespace(&namespace.name())?;
        group.batch.try_delete(&self.reserved, DROP_KEY)?;
        Ok(DONE)
    }

    fn set_default_ttl(&mut self, id: u128, ttl_ms: Option<u64>) -> Result<Outcome, ApplyError> {
        if ttl_ms == Some(0) {
            return Ok(Outcome::Invalid);
        }
        let Some(namespace) = self.namespace(id)? else {
            return Ok(Outcome::NoNamespace);
        };
        namespace.set_default_ttl(ttl_ms.map(Duration::from_millis))?;
        Ok(DONE)
    }

    fn is_taken(&self, name: &str) -> Result<bool, ApplyError> {
        match self.store.open_namespace(name) {
            Ok(_) => Ok(true),
            Err(Error::NamespaceNotFound { .. }) => Ok(name == RESERVED_NAME),
            Err(error) => Err(error.into()),
        }
    }
}

const DONE: Outcome = Outcome::Done { expiry_ms: None };

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
}
