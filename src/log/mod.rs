//! Many segments as one log, and the indexes over them: the engine below the store's surface.
//!
//! Who may do what:
//!
//! * Readers take no lock: hash, keydir, segment table, record. What they read may be replaced under them (a table grows, a
//!   segment is sealed, compacted, unlinked); then the location they hold fails to lead to its key, and they look again.
//! * Everything that changes what a reader finds happens under the one writer lock ([`Engine::lock_writer`]): appending,
//!   index updates, counters, the moves of compaction, expiry.
//! * Files are written and synced by one leader at a time, outside that lock (`commit`); within it only what is rare:
//!   the rest of a segment that is full, the record of a namespace, what recovery writes anew.
//! * Lock order: namespace changes, compaction, housekeeping, sealing, writer, manifest, then the locks inside indexes and of
//!   the clock.

mod active;
pub(crate) mod commit;
pub(crate) mod end;
pub(crate) mod hints;
mod index_file;
pub(crate) mod manifest;
pub(crate) mod opening;
pub(crate) mod output;
pub(crate) mod recovery;
pub(crate) mod reserve;
mod rotate;
pub(crate) mod seal;
pub(crate) mod snapshot;
pub(crate) mod sweep;
mod waiters;
pub(crate) mod write;
mod writer;

use std::sync::{Arc, Mutex};

use crate::context::Context;
use crate::error::Result;
use crate::segment::files::OpenFiles;
use crate::state::State;
use hints::DoubtfulHints;
use manifest::ManifestStore;
use reserve::Reserve;
use writer::LockedWriter;

/// An open store, below the handles that users hold.
pub(crate) struct Engine {
    pub(crate) context: Arc<Context>,
    pub(crate) state: State,
    /// Of segments that are not mapped.
    open_files: Arc<OpenFiles>,
    /// Held while a namespace is created, renamed or dropped.
    pub(crate) namespace_changes: Mutex<()>,
    pub(crate) manifest: ManifestStore,
    writer: Arc<LockedWriter>,
    /// Held by the one who seals.
    sealing: Mutex<()>,
    pub(crate) doubtful_hints: DoubtfulHints,
    /// See [`Engine::housekeeping`].
    housekeeping: Mutex<()>,
    pub(crate) compaction: crate::compact::Control,
    /// How closing went, once it has been tried.
    pub(crate) close_result: Mutex<Option<Result<()>>>,
    pub(crate) reserve: Reserve,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}
