//! What is under a key while the operations of one entry are decided.

use std::collections::HashMap;

use bytes::Bytes;
use embercask::{Error, Namespace};

use super::EtagFunction;
use crate::entry::{Conditions, Tags};

/// What a put stores.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) value: Bytes,
    pub(super) metadata: Option<Bytes>,
    pub(super) expiry_ms: Option<u64>,
}

/// What earlier operations of the same entry have put or deleted, which is not in the store yet.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    /// None if no operation of the entry has conditions.
    changed: Option<HashMap<(u128, Bytes), Option<Content>>>,
}

impl Earlier {
    pub(super) fn remembering() -> Earlier {
        Earlier {
            changed: Some(HashMap::new()),
        }
    }

    /// Notes a put, or a delete.
    pub(super) fn note(&mut self, namespace: u128, key: Bytes, content: Option<Content>) {
        if let Some(changed) = &mut self.changed {
            changed.insert((namespace, key), content);
        }
    }

    /// The tag of what is under a key; `None` if it is absent. Any tag if the conditions do not
    /// name one, since a digest of the value takes time.
    pub(super) fn tag(
        &self,
        namespace: &Namespace,
        key: &Bytes,
        conditions: &Conditions,
        etag: EtagFunction,
    ) -> Result<Option<u128>, Error> {
        let lists = [&conditions.if_match, &conditions.if_none_match];
        let is_named = lists.into_iter().flatten().any(|tags| matches!(tags, Tags::These(_)));
        let changed = self.changed.as_ref();
        if let Some(content) = changed.and_then(|changed| changed.get(&(namespace.id(), key.clone()))) {
            let tag = |content: &Content| etag(&content.value, content.metadata.as_deref(), content.expiry_ms);
            return Ok(content.as_ref().map(|content| if is_named { tag(content) } else { 0 }));
        }
        if !is_named {
            return Ok(namespace.contains(key)?.then_some(0));
        }
        let found = namespace.get(key)?;
        Ok(found.map(|value| etag(&value, value.metadata(), value.expiry_ms())))
    }
}
