//! What opening a store found and did.

use std::time::Duration;

/// What opening a store found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The store was created just now.
    pub created: bool,
    /// The store had been closed, or nothing had been written since: nothing had to be found out.
    pub clean: bool,
    /// Segments that are live.
    pub segments: u64,
    /// Keys in the indexes.
    pub keys: u64,
    /// The indexes were taken from the file that closing the store had written.
    pub index_file_used: bool,
    /// Segments whose hints were used.
    pub hints_used: u64,
    /// Segments whose hints were found missing or unfit, and are rewritten: in the background, if
    /// the store has threads for that, and then those that opening had no need of are not
    /// counted.
    pub hints_rebuilt: u64,
    /// Segments that had no seal.
    pub unsealed_segments: u64,
    /// Valid bytes that were not known to be durable, copied and synced.
    pub rewritten_bytes: u64,
    /// Bytes beyond the end of the log that were discarded as a torn tail.
    pub discarded_bytes: u64,
    /// Left-over files of interrupted work that were removed.
    pub removed_files: u64,
    /// How long opening took.
    pub duration: Duration,
}
