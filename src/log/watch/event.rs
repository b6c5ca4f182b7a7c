//! What a watcher is told.

use crate::segment::Value;

/// A change of a namespace, as [`Watch`](crate::Watch) tells it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A key was put, alone, in a batch or in a transaction.
    #[non_exhaustive]
    Put {
        /// The key.
        key: Vec<u8>,
        /// Sequence of the put.
        sequence: u64,
        /// When the key expires, in milliseconds since the Unix epoch; `None` if never.
        expiry_ms: Option<u64>,
        /// The value with its metadata, if [`WatchOptions::values`](crate::WatchOptions::values)
        /// asked for it.
        value: Option<Value>,
    },
    /// A key was deleted; by a batch perhaps one that was absent.
    #[non_exhaustive]
    Delete {
        /// The key.
        key: Vec<u8>,
        /// Sequence of the delete.
        sequence: u64,
    },
    /// A key has expired, and was removed from memory: some time after its expiry, and only if
    /// nothing has replaced it until then.
    #[non_exhaustive]
    Expired {
        /// The key.
        key: Vec<u8>,
        /// Sequence of the put that has expired, not of the expiry, which has none.
        sequence: u64,
    },
    /// The namespace was dropped, with all its keys. Nothing follows.
    #[non_exhaustive]
    Dropped {
        /// Sequence of the drop.
        sequence: u64,
    },
    /// The watcher was too slow: changes up to this sequence were left out here. Later ones follow.
    #[non_exhaustive]
    Missed {
        /// Sequence of the last change that was left out.
        up_to: u64,
    },
}

impl Event {
    /// The key that has changed; `None` if the event is not about one.
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Event::Put { key, .. } | Event::Delete { key, .. } | Event::Expired { key, .. } => Some(key),
            Event::Dropped { .. } | Event::Missed { .. } => None,
        }
    }

    /// The sequence that the event carries; see its variants.
    pub fn sequence(&self) -> u64 {
        match self {
            Event::Put { sequence, .. }
            | Event::Delete { sequence, .. }
            | Event::Expired { sequence, .. }
            | Event::Dropped { sequence } => *sequence,
            Event::Missed { up_to } => *up_to,
        }
    }
}
