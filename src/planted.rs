//! Breakages planted on purpose: what keeps a promise is left out, to see that the tests notice. A
//! suite that cannot fail is no suite.
//!
//! Only in builds with `--cfg planted`, and there only the one that the environment variable
//! `EMBERCASK_PLANTED` names; in any other build [`planted`] is a constant `false`. The command has
//! a list of its own, in `src/command/planted.rs`: a name that is not here may be there.
//! `tests/planted.table` says which tests must notice which breakage,
//! `tests/engine/documents/planted.rs` holds that table equal to both lists, and `.ci/planted`
//! plants one after the other and demands that those tests fail.
//! Only in builds with `--cfg planted`, and there only the one that the environment variable
//! `EMBERCASK_PLANTED` names; in any other build [`planted`] is a constant `false`.
//! `tests/planted.table` says which tests must notice which breakage, `tests/engine/documents/
//! planted.rs` holds that table and this list equal, and `.ci/planted` plants one after the other
//! and demands that those tests fail.

/// Declares the enum and a list of its members, so that none can be left out of the list.
macro_rules! breakages {
    ($($(#[$attribute:meta])* $name:ident,)*) => {
        /// What is broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Planted {
            $($(#[$attribute])* $name,)*
        }

        #[cfg(planted)]
        impl Planted {
            /// All of them.
            const ALL: &[Planted] = &[$(Planted::$name,)*];
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
    /// A new manifest is not synced before it gets its name.
    SkipManifestSync,
    /// The manifest is replaced although another program has put its own in its place.
    PublishBesideStranger,
    /// Segments are created in a directory whose manifest is another's.
    CreateBesideStranger,
    /// The header of a new segment is not synced before the manifest lists the segment.
    SkipSegmentSync,
    /// A failed write takes back the start record of its segment too.
    TakeStartBack,
    /// An index file is written beside a manifest that is another's.
    IndexBesideStranger,
    /// The index file of another store is believed.
    IgnoreIndexStore,
    /// An index file is believed whatever generation of the manifest it was written with.
    IgnoreIndexGeneration,
    /// An index file is believed whatever checksum the manifest had with which it was written.
    IgnoreIndexManifest,
    /// An index file of a program that hashes in another way is believed.
    IgnoreHashProbe,
    /// An index file is believed though it is longer or shorter than its head says.
    IgnoreIndexLength,
    /// The sections of an index file are not checked.
    IgnoreIndexChecksums,
    /// The live records that an index file counts are not compared with the locations in it.
    IgnoreIndexCounts,
    /// An index file is believed although what it took for expired has not expired by the clock as it is now.
    IgnoreIndexTime,
    /// Opening does not make the names durable that it has found.
    SkipOpeningSync,
    /// After an unclean end the sequences go on where the log was found to end.
    SkipSequenceGap,
    /// What a full disk keeps recovery from writing again counts as durable.
    ForgetUnrecovered,
    /// A sealed segment is opened whatever its length.
    TrustLength,
    /// A sealed segment is opened whatever its seal says.
    TrustSeal,
    /// A segment is opened whatever store and place it belongs to.
    TrustOwner,
    /// What interrupted steps have left stays where it is.
    KeepJunk,
    /// The log goes on behind a segment whose end is missing.
    IgnoreChain,
    /// The name of a new store's directory is not made durable.
    SkipCreationSync,
    /// A store is created where there are segments and no manifest.
    CreateOverSegments,
    /// A store is created in a directory with files of others.
    CreateBesideOthers,
    /// A store is opened although its lock is held.
    IgnoreLock,
    /// A sync leaves out the segments that were rotated out and not sealed yet.
    SkipRotatedSync,
    /// A sync counts for what was written out while it was under way.
    ClaimUnsynced,
    /// A mark that was taken back is not written again.
    ForgetMark,
    /// After a failed write-out the file is not cut back.
    SkipCut,
    /// A seal is not synced before the manifest says that it stands.
    SkipSealSync,
    /// On a full disk deletes may take the whole reserve.
    DeletesTakeAll,
    /// On a full disk puts may take the reserve.
    PutsTakeReserve,
    /// A disk that was full once counts as full until the store is opened again.
    StayFull,
    /// No space is held back for a full disk.
    ForgetReserve,
    /// On a full disk puts go on although the reserve is not whole.
    RefuseNothing,
    /// A write goes on whatever its condition.
    IgnoreCondition,
    /// For a condition a record is there after it has expired.
    ConditionSeesExpired,
    /// What is overwritten or deleted counts as live.
    ForgetDead,
    /// A batch does not know what its earlier operations have made of a key.
    ForgetEarlierInBatch,
    /// A write that is taken back leaves nothing in the place of what was there before.
    TakeBackToNothing,
    /// Records that were taken back go on being counted.
    CountTakenBack,
    /// Writes to a namespace that was dropped are taken.
    WriteToDropped,
    /// A key that is deleted stays in the listing.
    ListDeleted,
    /// A delete that finds nothing does not wait for the deletion that it has seen.
    ForgetAbsence,
    /// The log never says how far it is durable.
    SkipMarks,
    /// A key whose record is damaged counts as absent.
    DamageIsAbsence,
    /// A get shows what has expired until it leaves the indexes.
    ShowExpired,
    /// A look at several keys is not repeated when a batch comes between.
    TornLook,
    /// Readers do not wait for a batch that is being applied.
    BatchInSteps,
    /// Opening passes over tombstones.
    IgnoreTombstones,
    /// Opening loads the records of namespaces that were dropped.
    LoadDropped,
    /// Opening takes the record that it reads last for the newest.
    LoadInAnyOrder,
    /// Opening takes the name that it reads last for the name of a namespace.
    NameInAnyOrder,
    /// Opening queues no expiry.
    ForgetLoadedExpiry,
    /// Compaction publishes its outputs although records that it relied on were taken back.
    SkipRollbackCheck,
    /// Compaction publishes its outputs before what it relied on is durable.
    PublishUndurable,
    /// Pending records that are taken back after a compaction uncover what it has removed.
    ForgetPending,
    /// Compaction drops every segment in which nothing is live, whatever it hides.
    DropUnread,
    /// Compaction takes damage in a segment for its end.
    CompactBesideDamage,
    /// The expiry of a record that compaction has moved is not queued.
    ForgetMovedExpiry,
    /// What compaction has moved is counted twice where it is now.
    CountMovedTwice,
    /// Expired records that compaction carries on are not counted as expired.
    ForgetCopiedExpired,
    /// Compaction goes on in the background although it was paused.
    IgnorePause,
    /// Compaction goes on although it was cancelled.
    IgnoreCancel,
    /// Background compaction copies as fast as it can, whatever the options say.
    IgnoreRate,
    /// The sweep removes a key although its record is no longer the newest.
    SweepBlindly,
    /// Nothing waits for a jump of the wall clock to be put right.
    SkipPause,
    /// A record is there at the millisecond of its expiry.
    ExpireLate,
    /// A seal that no manifest knows says nothing of how far the log is durable.
    IgnoreSeals,
    /// Marks behind damage say nothing of how far the log is durable.
    IgnoreMarksBehind,
    /// Keys, values and metadata may be longer than the limits say.
    IgnoreLimits,
    /// An expiry may lie in the past.
    AcceptPastExpiry,
    /// A cursor may lead out of its listing.
    TrustCursor,
    /// A cursor is good for every listing.
    IgnoreCursorListing,
    /// A cursor is believed although its checksum is wrong.
    IgnoreCursorChecksum,
    /// A page begins with the key at which the page before has ended.
    RepeatLastKey,
    /// A listing goes on behind its prefix.
    ListAcrossPrefix,
    /// A checkpoint leaves out what is not sealed yet.
    CopyWithoutActive,
    /// Files that are copied into a checkpoint are not synced.
    SkipCopySync,
    /// The name of a finished copy is not made durable.
    SkipPublishSync,
    /// A copy that is not finished stays where it is.
    KeepPartialCopy,
    /// A copy is built where a store is.
    BuildOverStore,
    /// Verify does not look at seals.
    VerifyPassesSeals,
    /// Verify does not look at hints.
    VerifyPassesHints,
    /// Verify does not tell of damaged records.
    VerifyPassesRecords,
    /// Verify takes all damage in a log that was not closed for a torn end.
    VerifyTakesDamageForTorn,
    /// Salvage takes the record that it reads last for the newest.
    SalvageInAnyOrder,
    /// Salvage takes what is there of a torn batch.
    SalvageTorn,
    /// Salvage saves what has expired.
    SalvageExpired,
    /// Salvage saves the keys of namespaces that were dropped.
    SalvageDropped,
    /// Salvage and verify ignore the lock of an open store.
    SalvageLock,
    /// Salvage and verify take segments that the manifest does not list.
    SalvageUnlisted,
    /// Salvage believes the manifest of another store.
    SalvageByStranger,
    /// Inspect passes over what it cannot read.
    InspectPassesDamage,
    /// Inspect does not check the sections of an index file.
    InspectTrustsSections,
    /// A map that was made stays until the process ends.
    KeepMaps,
    /// Closing does not sync.
    CloseWithoutSync,
    /// A store that was closed goes on answering.
    ServeClosed,
    /// Two namespaces may have one name.
    AnyNameTwice,
    /// Segments that wait to be sealed pile up in memory.
    PileUp,
    /// The store goes on although it is unknown which manifest is on disk.
    BelieveUnknownManifest,
    /// A namespace whose drop could not be synced stays.
    DropAfterSync,
    /// Compaction fails where only a damaged record could tell whether a shadow counts.
    FailOnDoubt,
}

/// Whether this is broken in this build and this process.
#[cfg(not(planted))]
#[inline(always)]
pub(crate) const fn planted(_: Planted) -> bool {
    false
}

/// Whether this is broken in this build and this process.
#[cfg(planted)]
pub(crate) fn planted(breakage: Planted) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<Planted>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("EMBERCASK_PLANTED").ok()?;
        let mut all = Planted::ALL.iter().copied();
        all.find(|breakage| format!("{breakage:?}") == name)
    });
    *chosen == Some(breakage)
}
