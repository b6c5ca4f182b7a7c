//! What stands in the log.

use bytes::Bytes;

/// A change of the replicated store, or of its namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Puts a value.
    Put {
        /// Id of the namespace.
        namespace: u128,
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// Metadata, in the encoding of the client.
        metadata: Option<Bytes>,
        /// When it expires.
        lifetime: Lifetime,
        /// What must hold when it is applied.
        conditions: Conditions,
    },
    /// Deletes a key, or nothing if it is absent.
    Delete {
        /// Id of the namespace.
        namespace: u128,
        /// The key.
        key: Bytes,
        /// What must hold when it is applied.
        conditions: Conditions,
    },
    /// Creates a namespace.
    CreateNamespace {
        /// Its id, chosen by the node that was asked.
        id: u128,
        /// Its name.
        name: String,
    },
    /// Gives a namespace another name.
    RenameNamespace {
        /// Its id.
        id: u128,
        /// The new name.
        name: String,
    },
    /// Removes a namespace with all its keys.
    DropNamespace {
        /// Its id.
        id: u128,
    },
    /// Sets how long keys of a namespace live that are put with [`Lifetime::Default`].
    SetDefaultTtl {
        /// Id of the namespace.
        namespace: u128,
        /// In milliseconds; `None` for ever.
        ttl_ms: Option<u64>,
    },
}

/// When a key expires. Times are those of the log, never of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// As the namespace says when the put is applied.
    Default,
    /// Never.
    Forever,
    /// This many milliseconds after the log took the entry.
    After(u64),
    /// At this time, in milliseconds since the Unix epoch.
    At(u64),
}

/// Conditions of RFC 9110 on what is stored under a key when an operation is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// `If-Match`: the key exists, with one of these tags.
    pub if_match: Option<Tags>,
    /// `If-None-Match`: the key is absent, or has none of these tags.
    pub if_none_match: Option<Tags>,
}

/// The entity tags that a condition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags {
    /// `*`: any.
    Any,
    /// These ones; none at all if empty.
    These(Vec<u128>),
}

/// What became of an operation, alike on all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done. A put tells the expiry that it has got, in milliseconds since the Unix epoch.
    Done {
        /// Expiry of the value that was put.
        expiry_ms: Option<u64>,
    },
    /// Its conditions did not hold.
    NotMet {
        /// Whether the key exists.
        is_there: bool,
    },
    /// There is no namespace of this id, or none any more.
    NoNamespace,
    /// Another namespace has this name or this id.
    NameTaken,
    /// The store takes no such key, value or name.
    Invalid,
}
