//! What is to be written.

use crate::format::record::FIXED_HEADER_LEN;
use crate::index::namespaces::NamespaceState;
use crate::options::Condition;

/// One change of one key, with sizes checked against the limits.
#[derive(Debug)]
pub(crate) struct Operation<'a> {
    pub(crate) namespace: &'a NamespaceState,
    pub(crate) key: &'a [u8],
    pub(crate) action: Action<'a>,
    pub(crate) condition: Option<Condition>,
}

/// What the operation does to the key.
#[derive(Debug)]
pub(crate) enum Action<'a> {
    Put {
        value: &'a [u8],
        metadata: Option<&'a [u8]>,
        expiry: Option<u64>,
    },
    Delete,
}

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Sequence of the record; of the newest record in the log if there was nothing to write.
    pub(crate) sequence: u64,
    /// Whether the key had a live record before.
    pub(crate) existed: bool,
}

impl Operation<'_> {
    pub(super) fn is_delete(&self) -> bool {
        matches!(self.action, Action::Delete)
    }

    /// About as many bytes as its record takes.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        let body = match self.action {
            Action::Put { value, metadata, .. } => value.len() + metadata.map_or(0, <[u8]>::len),
            Action::Delete => 0,
        };
        (FIXED_HEADER_LEN + self.key.len() + body) as u64
    }
}
