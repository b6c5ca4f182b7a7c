//! What stands in the log: [`Entry`], its parts, and its encoding, which `docs/replication.md`
//! specifies byte by byte.

mod decode;
mod encode;

use bytes::Bytes;

pub use self::decode::{Malformed, operations as decode_operations};
pub use self::encode::{TooLong, entry_of_operations, operations as encode_operations, upload};
pub(crate) use self::encode::{digest_of, first_half};

/// The first bytes of every entry.
pub const MAGIC: [u8; 4] = *b"EMBL";

/// The version of the format.
pub const VERSION: u8 = 1;

/// Bytes before the body.
pub const HEADER_BYTES: usize = 56;

/// Bytes of the checksum, after the body.
pub const CHECKSUM_BYTES: usize = 4;

/// Most bytes of an entry.
pub const ENTRY_BYTES_MAX: usize = 512 << 10;

/// Most bytes of a body, operations among them. Operations that take more go as parts.
pub const BODY_BYTES_MAX: usize = ENTRY_BYTES_MAX - HEADER_BYTES - CHECKSUM_BYTES;

/// Bytes of each part of an upload but the last.
pub const PART_BYTES: usize = 256 << 10;

/// Most parts of an upload: 128 MiB. As one batch of the store that is less than 256 MiB in its
/// log, which is the most that it takes.
pub const PARTS_MAX: u32 = 512;

/// Most operations of a body, so that reading one takes no more than some megabytes of memory
/// beside its bytes.
pub const OPERATIONS_MAX: u32 = 65_536;

/// A digest: the first 16 bytes of SHA-256.
pub type Digest = [u8; 16];

/// One message of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who says it.
    pub header: Header,
    /// What it says.
    pub body: Body,
}

/// Where an entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cluster whose log this is.
    pub cluster: u128,
    /// The writer: new at each start of a node.
    pub writer: u128,
    /// Counts the entries of this writer, from 1.
    pub counter: u64,
    /// The log time that the writer knew when it sent the entry for the first time. Entries that
    /// take longer than [`crate::writers::LATE_MS`] from there are not applied, so a writer must
    /// have heard of the log's time before it writes.
    pub sent_ms: u64,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Changes, all applied as one. At least one; those of namespaces are alone.
    Operations(Vec<Operation>),
    /// A part of the body of operations that is too long for one entry.
    Part {
        /// Number of the upload, unique for its writer.
        upload: u64,
        /// Index of the part, from 0.
        index: u32,
        /// Its bytes: [`PART_BYTES`], but for the last part, which may have fewer.
        bytes: Bytes,
    },
    /// Applies an upload, as if its joined parts were the body of this entry.
    Commit {
        /// Number of the upload.
        upload: u64,
        /// How many parts it has.
        parts: u32,
        /// Bytes of all of them.
        length: u64,
        /// Digest of all of them.
        digest: Digest,
    },
    /// Moves the log's time on, and says how far a node has come and what it has applied.
    Beat {
        /// The last position that it has applied.
        position: u64,
        /// Its digest of all entries until there.
        digest: Digest,
    },
    /// The first entry of a log.
    Genesis,
}

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

impl Operation {
    /// Whether it changes namespaces themselves. Such an operation is alone in its entry.
    pub fn is_of_namespaces(&self) -> bool {
        match self {
            Operation::Put { .. } | Operation::Delete { .. } => false,
            Operation::CreateNamespace { .. }
            | Operation::RenameNamespace { .. }
            | Operation::DropNamespace { .. }
            | Operation::SetDefaultTtl { .. } => true,
        }
    }

    /// Whether what it does depends on what is stored under its key.
    pub fn is_conditional(&self) -> bool {
        match self {
            Operation::Put { conditions, .. } | Operation::Delete { conditions, .. } => !conditions.is_empty(),
            _ => false,
        }
    }
}

impl Conditions {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }

    /// Whether they hold for a key with this tag; `None` if it is absent.
    pub fn hold(&self, found: Option<u128>) -> bool {
        let names = |tags: &Tags| match (found, tags) {
            (None, _) => false,
            (Some(_), Tags::Any) => true,
            (Some(found), Tags::These(tags)) => tags.contains(&found),
        };
        self.if_match.as_ref().is_none_or(names) && !self.if_none_match.as_ref().is_some_and(names)
    }
}

#[cfg(test)]
mod tests;
