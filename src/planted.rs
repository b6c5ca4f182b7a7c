//! Breakages planted on purpose: what keeps a promise is left out, to see that the tests notice. A suite that cannot fail is
//! no suite.
//!
//! Only in builds with `--cfg planted`, and there only the one that the environment variable `EMBERCASK_PLANTED` names; in
//! any other build [`planted`] is a constant `false`. `tests/planted.table` says which tests must notice which breakage, `planted_table`
//! holds that table and this list equal, and `.ci/planted` plants one after the other and demands that those tests fail.

/// Declares the enum and a list of its members, so that none can be left out of the list.
macro_rules! breakages {
    ($($(#[$attribute:meta])* $name:ident,)*) => {
        /// What is broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(dead_code, reason = "some are the library's, and some the command's")]
        pub(crate) enum Planted {
            $($(#[$attribute])* $name,)*
        }

        #[cfg(any(test, planted))]
        impl Planted {
            /// All of them.
            #[allow(dead_code, reason = "the tests of the command have no need of it")]
            pub(crate) const ALL: &[Planted] = &[$(Planted::$name,)*];
        }
    };
}

breakages! {
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
    /// After a step back of the wall clock all records are judged by the highest time seen, new ones too.
    TimeStandsStill,
    /// The sweep does not wait for a jump of the wall clock to be put right.
    SweepAtOnce,
    /// What is taken out of the expiry queue for a while is not counted as in it.
    ForgetTakenOut,
    /// The index file is written as the indexes are, whatever was taken for expired too early.
    KeepWrongIndexFile,
    /// Compaction picks segments for the space of what it will not drop yet.
    PickWhatStays,
    /// A failed read in recovery counts as the end of the log.
    ReadErrorIsEnd,
    /// Damage before the durable point counts as a torn tail.
    DamageIsEnd,
    /// A sync is believed although another one of the store has failed.
    ForgetFailedSyncs,
    /// A sync is believed without a question that needs the file system's journal.
    BelieveSyncs,
    /// The question is asked once, although who asks first is not told.
    AskJournalOnce,
    /// What is written into a directory that was removed is acknowledged.
    WriteIntoRemoved,
    /// A forked child that drops a store unlocks its parent's.
    UnlockInChild,
    /// A forked child may use the store of its parent.
    ServeForkedChild,
    /// Closing a second time says Ok whatever the first time said.
    ForgetFailedClose,
    /// What is listed and cannot be found when it is opened counts as absent.
    UnreadableIsAbsent,
    /// Files are written into a directory whose manifest is another's.
    WriteBesideStranger,
    /// In pread mode every segment keeps its file open.
    KeepFilesOpen,
    /// Compaction leaves a segment that it found damaged where it is for good, though nothing is live in it.
    KeepDamagedForGood,
    /// Compaction ends at the first damaged segment.
    StopAtDamage,
    /// A version field is believed although nothing but it can be wrong.
    TrustVersionField,
    /// A listing fails as a whole where one record is damaged.
    FailPageOnDamage,
    /// A delete asks for a key that the limits allow.
    LimitDeletes,
    /// The hints that are being renewed are on no list meanwhile.
    ForgetHintsInHand,
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
#[allow(
    clippy::panic,
    reason = "a name that nothing has must not pass for a breakage that was not noticed"
)]
pub(crate) fn planted(breakage: Planted) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<Planted>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("EMBERCASK_PLANTED").ok()?;
        let named = |breakage: &&Planted| format!("{breakage:?}") == name;
        let found = Planted::ALL.iter().find(named);
        Some(*found.unwrap_or_else(|| panic!("EMBERCASK_PLANTED names {name}, which is no breakage")))
    });
    *chosen == Some(breakage)
}
