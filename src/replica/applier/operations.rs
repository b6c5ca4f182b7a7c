//! Puts and deletes.

use embercask::{Error, Limits, Namespace, PutOptions};

use super::conditions::{Content, Earlier};
use super::group::Group;
use super::{Applier, ApplyError};
use crate::entry::{Conditions, Operation, Outcome};

impl Applier {
    /// Adds the operations of one entry to its batch.
    pub(super) fn operations(
        &mut self,
        group: &mut Group,
        operations: Vec<Operation>,
        position: u64,
    ) -> Result<Vec<Outcome>, ApplyError> {
        // Of each entry that has conditions they are decided at its own time. Other groups are
        // written before the clock is set to their last entry, since the store refuses an expiry
        // that has passed.
        let mut earlier = Earlier::default();
        if operations.iter().any(Operation::is_conditional) {
            self.clock.set(self.next.time.ms());
            earlier = Earlier::remembering();
        }
        let mut outcomes = Vec::with_capacity(operations.len());
        for operation in operations {
            let outcome = if operation.is_of_namespaces() {
                self.change_namespaces(group, operation, position)?
            } else {
                self.change_key(group, operation, &mut earlier)?
            };
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    fn change_key(
        &mut self,
        group: &mut Group,
        operation: Operation,
        earlier: &mut Earlier,
    ) -> Result<Outcome, ApplyError> {
        let (id, key, conditions, content) = match operation {
            Operation::Put {
                namespace,
                key,
                value,
                metadata,
                lifetime,
                conditions,
            } => (namespace, key, conditions, Some((value, metadata, lifetime))),
            Operation::Delete {
                namespace,
                key,
                conditions,
            } => (namespace, key, conditions, None),
            _ => return Ok(Outcome::Invalid),
        };
        let Some(namespace) = self.namespace(id)? else {
            return Ok(Outcome::NoNamespace);
        };
        let content = content.map(|(value, metadata, lifetime)| Content {
            expiry_ms: self.next.time.expiry_ms(lifetime, default_ttl_ms(&namespace)),
            value,
            metadata,
        });
        if content.as_ref().is_some_and(|content| !is_storable(&key, content)) {
            return Ok(Outcome::Invalid);
        }
        if let Some(is_there) = self.unmet(&namespace, &key, &conditions, earlier)? {
            return Ok(Outcome::NotMet { is_there });
        }
        let expiry_ms = content.as_ref().and_then(|content| content.expiry_ms);
        let log_ms = self.next.time.ms();
        // What has expired when it is put is absent at once.
        let content = content.filter(|content| content.expiry_ms.is_none_or(|expiry_ms| expiry_ms > log_ms));
        match &content {
            Some(content) => put(group, &namespace, &key, content)?,
            None => group.batch.try_delete(&namespace, &key)?,
        }
        earlier.note(id, key, content);
        Ok(Outcome::Done { expiry_ms })
    }

    /// Whether the key exists, if conditions on it do not hold.
    fn unmet(
        &self,
        namespace: &Namespace,
        key: &bytes::Bytes,
        conditions: &Conditions,
        earlier: &Earlier,
    ) -> Result<Option<bool>, ApplyError> {
        if conditions.is_empty() {
            return Ok(None);
        }
        let found = earlier.tag(namespace, key, conditions, self.etag)?;
        Ok((!conditions.hold(found)).then_some(found.is_some()))
    }
}

fn put(group: &mut Group, namespace: &Namespace, key: &[u8], content: &Content) -> Result<(), Error> {
    let options = match content.expiry_ms {
        Some(expiry_ms) => PutOptions::new().expires_at_ms(expiry_ms),
        None => PutOptions::new().forever(),
    };
    let options = match &content.metadata {
        Some(metadata) => options.metadata(&**metadata),
        None => options,
    };
    group.batch.try_put_with(namespace, key, &content.value, options)
}

/// Whether the format of a store has room for it. The limits of one node do not count: others may
/// have different ones.
fn is_storable(key: &[u8], content: &Content) -> bool {
    let limits = Limits::ENGINE;
    let metadata_len = content.metadata.as_ref().map_or(0, bytes::Bytes::len);
    (1..=limits.key_bytes_max).contains(&key.len())
        && content.value.len() <= limits.value_bytes_max
        && metadata_len <= limits.metadata_bytes_max
}

fn default_ttl_ms(namespace: &Namespace) -> Option<u64> {
    let ttl = namespace.default_ttl()?;
    Some(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
}
