//! What opening a store found and did.

use std::time::Duration;

/// What opening a store found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Whether the store was newly created.
    pub created: bool,
    /// Whether the store had been closed, or nothing was written since: nothing had to be
    /// recovered.
    pub clean: bool,
    /// Live segments.
    pub segments: u64,
    /// Keys in the indexes.
    pub keys: u64,
    /// Whether the indexes were loaded from the file written at the last close.
    pub index_file_used: bool,
    /// Segments whose hints were used.
    pub hints_used: u64,
    /// Segments whose hints were missing or unfit and are rewritten. With background threads the
    /// rewriting happens in the background, and hints that opening did not need are not counted.
    /// In a store that was opened for reading only they are not rewritten.
    pub hints_rebuilt: u64,
    /// Segments that had no seal.
    pub unsealed_segments: u64,
    /// Bytes of records that were not, or no longer, sound in their segment's file, but in the ring
    /// (see [`Options::ring`](crate::Options::ring)).
    pub ring_bytes: u64,
    /// Valid bytes that were not known to be durable, copied and synced.
    pub rewritten_bytes: u64,
    /// Bytes beyond the end of the log that were discarded as a torn tail; zeros at the end of a
    /// file are none.
    pub discarded_bytes: u64,
    /// Left-over files of interrupted work that were removed.
    pub removed_files: u64,
    /// Time that opening took.
    pub duration: Duration,
}
