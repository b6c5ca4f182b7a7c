//! Breakages planted on purpose: what keeps a promise is left out, to see that the tests notice. A suite that cannot fail is
//! no suite.
//!
//! Only in builds with `--cfg planted`, and there only the one that the environment variable `EMBERCASK_PLANTED` names; in
//! any other build [`planted`] is a constant `false`. `.ci/planted` plants one after the other and demands that a
//! test fails.

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// A segment of the log is not synced.
    SkipDataSync,
    /// Outputs of compaction and recovery are not synced before the manifest names them.
    SkipOutputSync,
    /// The rename of the manifest is not made durable.
    SkipDirectorySync,
    /// A write of class `Os` or `Sync` returns before it is written out.
    AcknowledgeUnwritten,
    /// Compaction unlinks its inputs before the manifest names the outputs.
    UnlinkBeforePublish,
    /// Compaction drops every shadow.
    DropShadowEarly,
    /// Compaction drops expired puts as if they hid nothing.
    DropExpiredShadow,
    /// Compaction drops what has only just expired.
    IgnoreGrace,
    /// Compaction moves an index entry although it no longer points at what was copied.
    MoveBlindly,
    /// A hint is believed whatever segment it belongs to and whatever keys it lists.
    TrustHint,
    /// An index file is believed whatever manifest it was written with.
    TrustIndexFile,
    /// Recovery takes what it finds in the page cache for durable.
    TrustTail,
    /// A batch that is not whole is taken for as much as there is of it.
    HalfBatch,
    /// The bodies of records are not checked when they are read.
    SkipBodyCheck,
    /// A failed sync poisons nothing, and is tried again.
    SyncAgainAfterFailure,
    /// A failed write-out is neither cut back nor undone.
    KeepFailedAppend,
    /// Store time follows the wall clock backwards.
    ClockStepsBack,
    /// A failed read in recovery counts as the end of the log.
    ReadErrorIsEnd,
    /// Damage before the durable point counts as a torn tail.
    DamageIsEnd,
    /// A write whose records stay pending is run again.
    RunPendingAgain,
    /// Indexes of segments that no manifest lists yet count as free.
    IgnoreIdsInFlight,
    /// A manifest is written whatever it says.
    WriteAnyManifest,
    /// A damaged record header keeps its key from being overwritten and deleted.
    DamagedHeaderBlocks,
}

/// Whether this is broken in this build and this process.
#[cfg(not(planted))]
#[inline(always)]
pub(crate) const fn planted(_: Planted) -> bool {
    false
}

/// Whether this is broken in this build and this process.
#[cfg(planted)]
pub(crate) fn planted(bug: Planted) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var("EMBERCASK_PLANTED").ok());
    chosen.as_deref().is_some_and(|chosen| chosen == format!("{bug:?}"))
}
