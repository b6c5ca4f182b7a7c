//! (Over 400 lines: one list of all breakages.)
//!
//! Planted breakages: each leaves out code that a guarantee depends on, to see that the tests
//! notice. A suite that cannot fail is no suite.
//!
//! Only in builds with `--cfg planted`, and there only the one named by the environment variable
//! `EMBERCASK_PLANTED`; in any other build [`planted`] is a constant `false`. The command has a
//! separate list in `src/command/planted.rs`: a name that is not here may be there.
//! `tests/planted.table` says which tests must notice which breakage,
//! `tests/engine/documents/planted.rs` keeps that table in step with both lists, and `.ci/planted`
//! plants one after the other and requires those tests to fail.

/// Declares the enum and a list of its members, so that none can be missing from the list.
macro_rules! breakages {
    ($($(#[$attribute:meta])* $name:ident,)*) => {
        /// What is broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Planted {
            $($(#[$attribute])* $name,)*
        }

        #[cfg(planted)]
        impl Planted {
            /// All breakages.
            const ALL: &[Planted] = &[$(Planted::$name,)*];
        }
    };
}

breakages! {
    /// A segment is sealed with the zeros that its file was extended by.
    KeepLengthAhead,
    /// An asynchronous write waits on the thread that polls it.
    WaitInPoll,
    /// An asynchronous write of class `Sync` is acknowledged without a sync.
    ForgetAsyncSync,
    /// A look at the lock of a store is taken for its holder.
    TakeLookForHolder,
    /// Verify believes the damage that it finds first, though another process may be at work.
    VerifyAtOnce,
    /// A call that waits for a checkpoint is not refused to the progress function of the
    /// checkpoint.
    WaitForItself,
    /// Functions of the program may call the store that has called them.
    LetCallBack,
    /// Nothing is kept for views.
    KeepNothing,
    /// A view takes what the keydir points at, however new.
    SeeNewer,
    /// A view lists the keys of the present.
    ListPresent,
    /// A namespace that is dropped after a view began is not there for it.
    ForgetDroppedInView,
    /// A view shows what can still be rolled back.
    ViewUnwritten,
    /// A transaction does not check the keys that it has read.
    SkipKeyCheck,
    /// A transaction does not check the ranges that it has read.
    SkipRangeCheck,
    /// A transaction does not check whether what it has seen has expired.
    SkipExpiryCheck,
    /// A transaction does not check whether a namespace that it has read was dropped.
    SkipDropCheck,
    /// A transaction relies on what was rolled back.
    TrustRolledBackReads,
    /// Of writes that were forgotten a transaction believes that there were none.
    TrustOldWindow,
    /// A transaction does not see what it has written itself.
    ForgetOwnWrites,
    /// A transaction lists what it has put as if that had been there when the clock was set back.
    BackdateOwnWrites,
    /// Listings do not ask for batches that are not in the indexes yet.
    ListWithoutGroup,
    /// A look at many keys uses a place that was found beside a batch that is in the indexes since.
    TrustUnsettled,
    /// A batch's record is shown although a newer one was written.
    ForgetSettled,
    /// A key is written although a batch's record of it is not in the indexes yet.
    WriteBeforeSettled,
    /// A run of compaction takes what a batch hides, and is not in the indexes yet, for as new as
    /// its beginning.
    BeginUnsettled,
    /// A segment is sealed although a batch in it is not in the indexes yet.
    SealBeforeSettled,
    /// Keys that leave by themselves are not noted by looks under way.
    SweepUnderLooks,
    /// A kept record is visible also to views of moments after it was replaced.
    ForgetReplaced,
    /// Files held for views are closed as others are.
    CloseHeldFiles,
    /// Watchers are told of a record as soon as it is appended.
    TellUnfirm,
    /// Watchers are told of what has expired without waiting for what comes before it in the log.
    TellOutOfOrder,
    /// Watchers are told that a record has expired that was rolled back.
    TellRolledBackExpiry,
    /// A watcher is not told that it has missed something.
    ForgetMissed,
    /// A watcher that waits is not woken.
    LoseWakeup,
    /// Watchers are not woken when the store is closed.
    ForgetWatchersAtClosing,
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
    /// Compaction drops records that have only just expired.
    IgnoreGrace,
    /// Compaction moves an index entry although it no longer points at the copied record.
    MoveBlindly,
    /// A hint is trusted whatever segment it belongs to and whatever keys it lists.
    TrustHint,
    /// An index file is trusted whatever manifest it was written with.
    TrustIndexFile,
    /// Recovery treats everything it finds in the page cache as durable.
    TrustTail,
    /// The records present of an incomplete batch are used.
    HalfBatch,
    /// The bodies of records are not checked when they are read.
    SkipBodyCheck,
    /// A failed sync poisons nothing, and is tried again.
    SyncAgainAfterFailure,
    /// A failed write-out is neither cut back nor undone.
    KeepFailedAppend,
    /// Store time follows the wall clock backwards.
    ClockStepsBack,
    /// After a step back of the wall clock all records are judged by the highest time seen,
    /// including new ones.
    TimeStandsStill,
    /// The sweep does not wait for a jump of the wall clock to be put right.
    SweepAtOnce,
    /// Entries taken out of the expiry queue for a while do not count as in it.
    ForgetTakenOut,
    /// The index file is written from the indexes as they are, even if keys were expired too early.
    KeepWrongIndexFile,
    /// Compaction picks segments for the space of records that it will not drop yet.
    PickWhatStays,
    /// A failed read in recovery counts as the end of the log.
    ReadErrorIsEnd,
    /// Damage before the durable point counts as a torn tail.
    DamageIsEnd,
    /// A sync is trusted although another sync of the store has failed.
    ForgetFailedSyncs,
    /// A sync is trusted without a request that needs the file system's journal.
    BelieveSyncs,
    /// That request is made once, although the first to make it is not told of a failure.
    AskJournalOnce,
    /// Writes into a directory that was removed are acknowledged.
    WriteIntoRemoved,
    /// A forked child that drops a store unlocks its parent's.
    UnlockInChild,
    /// A forked child may use the store of its parent.
    ServeForkedChild,
    /// Closing a second time returns Ok whatever the first close returned.
    ForgetFailedClose,
    /// A file that is listed and cannot be found when it is opened counts as absent.
    UnreadableIsAbsent,
    /// Files are written into a directory whose manifest belongs to another store.
    WriteBesideStranger,
    /// In pread mode every segment keeps its file open.
    KeepFilesOpen,
    /// Compaction leaves a segment that it found damaged in place for good, even with no live
    /// records.
    KeepDamagedForGood,
    /// Compaction ends at the first damaged segment.
    StopAtDamage,
    /// A version field is trusted although only that field can be wrong.
    TrustVersionField,
    /// A listing fails as a whole where one record is damaged.
    FailPageOnDamage,
    /// A delete requires a key that the limits allow.
    LimitDeletes,
    /// Hints that are being renewed are not on the list meanwhile.
    ForgetHintsInHand,
    /// A write whose records stay pending is run again.
    RunPendingAgain,
    /// Indexes of segments that no manifest lists yet count as free.
    IgnoreIdsInFlight,
    /// A manifest is written whatever its content.
    WriteAnyManifest,
    /// A damaged record header keeps its key from being overwritten and deleted.
    DamagedHeaderBlocks,
    /// A new manifest is not synced before it is renamed.
    SkipManifestSync,
    /// The manifest is replaced although another program has replaced it before.
    PublishBesideStranger,
    /// Segments are created in a directory whose manifest belongs to another store.
    CreateBesideStranger,
    /// The header of a new segment is not synced before the manifest lists the segment.
    SkipSegmentSync,
    /// A failed write rolls back the start record of its segment too.
    RollBackStart,
    /// An index file is written although the manifest belongs to another store.
    IndexBesideStranger,
    /// The index file of another store is trusted.
    IgnoreIndexStore,
    /// An index file is trusted whatever generation of the manifest it was written with.
    IgnoreIndexGeneration,
    /// An index file is trusted whatever the checksum of the manifest it was written with.
    IgnoreIndexManifest,
    /// An index file of a program with another hash function is trusted.
    IgnoreHashProbe,
    /// An index file is trusted though it is longer or shorter than its head says.
    IgnoreIndexLength,
    /// The sections of an index file are not checked.
    IgnoreIndexChecksums,
    /// The live counts in an index file are not compared with its locations.
    IgnoreIndexCounts,
    /// An index file is trusted although a record missing from it as expired has not expired by the
    /// current clock.
    IgnoreIndexTime,
    /// Opening does not make the names that it found durable.
    SkipOpeningSync,
    /// After an unclean end the sequences continue where the log was found to end.
    SkipSequenceGap,
    /// Records that recovery could not copy on a full disk count as durable.
    ForgetUnrecovered,
    /// A sealed segment is opened whatever its length.
    TrustLength,
    /// A sealed segment is opened whatever its seal says.
    TrustSeal,
    /// A segment is opened whatever store and id its header has.
    TrustOwner,
    /// Left-overs of interrupted steps are not removed.
    KeepJunk,
    /// The log continues after a segment whose end is missing.
    IgnoreChain,
    /// The name of a new store's directory is not made durable.
    SkipCreationSync,
    /// A store is created where there are segments and no manifest.
    CreateOverSegments,
    /// A store is created in a directory with foreign files.
    CreateBesideOthers,
    /// A store is opened although its lock is held.
    IgnoreLock,
    /// A sync leaves out segments that were rotated out and not sealed yet.
    SkipRotatedSync,
    /// A sync counts for writes that were written out while it ran.
    ClaimUnsynced,
    /// A mark that was rolled back is not written again.
    ForgetMark,
    /// After a failed write-out the file is not cut back.
    SkipCut,
    /// A seal is not synced before the manifest lists its segment as sealed.
    SkipSealSync,
    /// Tombstones that dead puts elsewhere hold are never freed.
    ForgetPins,
    /// It is forgotten when the records of a segment began to die, so that newer shadows go too
    /// early.
    ForgetDeaths,
    /// The store grows beyond its own limit.
    IgnoreLimit,
    /// A namespace grows beyond its limit.
    IgnoreNamespaceLimit,
    /// The bytes of a namespace are not counted.
    ForgetUsage,
    /// On a full disk deletes fail although compaction could make room.
    RefuseDeletes,
    /// On a full disk deletes may take the whole reserve.
    DeletesTakeAll,
    /// On a full disk puts may take the reserve.
    PutsTakeReserve,
    /// A disk that was full once counts as full until the store is opened again.
    StayFull,
    /// No space is held back for a full disk.
    ForgetReserve,
    /// On a full disk puts are accepted although the reserve is not whole.
    RefuseNothing,
    /// A write is done whatever its condition.
    IgnoreCondition,
    /// For a condition an expired record counts as present.
    ConditionSeesExpired,
    /// Overwritten and deleted records count as live.
    ForgetDead,
    /// A batch does not take into account what its earlier operations did to a key.
    ForgetEarlierInBatch,
    /// A write that is rolled back does not restore what was there before.
    RollBackToNothing,
    /// Records that were rolled back are still counted.
    CountRolledBack,
    /// Writes to a dropped namespace are accepted.
    WriteToDropped,
    /// A key that is deleted stays in the listing.
    ListDeleted,
    /// A delete that finds nothing does not wait for the earlier deletion to be durable.
    ForgetAbsence,
    /// The log contains no marks of how far it is durable.
    SkipMarks,
    /// Unsynced records wait until there are many, however long that takes.
    SyncBytesOnly,
    /// No mark follows a sync in the background.
    SkipMarkBehind,
    /// A key whose record is damaged counts as absent.
    DamageIsAbsence,
    /// A get shows expired records until they leave the indexes.
    ShowExpired,
    /// A read of several keys is not repeated if a batch comes in between.
    TornLook,
    /// Readers do not ask for batches that are not in the indexes yet.
    BatchInSteps,
    /// Opening ignores tombstones.
    IgnoreTombstones,
    /// Opening loads the records of namespaces that were dropped.
    LoadDropped,
    /// Opening treats the record that it reads last as the newest.
    LoadInAnyOrder,
    /// Opening lists and counts records although newer ones in other segments have replaced them.
    ListReplaced,
    /// Opening treats the name that it reads last as the name of a namespace.
    NameInAnyOrder,
    /// Opening queues no expiry.
    ForgetLoadedExpiry,
    /// Compaction publishes its outputs although records that it relied on were rolled back.
    SkipRollbackCheck,
    /// Compaction publishes its outputs before the records it relied on are durable.
    PublishUndurable,
    /// Pending records that are rolled back after a compaction uncover records that it has removed.
    ForgetPending,
    /// Compaction drops every segment without live records, whatever it hides.
    DropUnread,
    /// Compaction treats damage in a segment as its end.
    CompactBesideDamage,
    /// The expiry of a record that compaction has moved is not queued.
    ForgetMovedExpiry,
    /// Records that compaction has moved are counted twice in their new segment.
    CountMovedTwice,
    /// Expired records that compaction keeps are not counted as expired.
    ForgetCopiedExpired,
    /// Background compaction continues although it was paused.
    IgnorePause,
    /// Compaction continues although it was cancelled.
    IgnoreCancel,
    /// Background compaction ignores its rate limit.
    IgnoreRate,
    /// The sweep removes a key although its record is no longer the newest.
    SweepBlindly,
    /// Records of keys that leave the indexes are read under the writer lock.
    ReadUnderLock,
    /// The sweep acts on a record that may have been rolled back since it was read.
    TrustRolledBack,
    /// A key of a dropped namespace leaves its key order although compaction has moved its record.
    ForgetMoved,
    /// Tables and queues stay as large as they were, however few keys are left.
    KeepTables,
    /// Nothing waits for a jump of the wall clock to be put right.
    SkipPause,
    /// A record is still present at the millisecond of its expiry.
    ExpireLate,
    /// A seal that no manifest lists is ignored in finding how far the log is durable.
    IgnoreSeals,
    /// Marks after damage are ignored in finding how far the log is durable.
    IgnoreMarksBehind,
    /// Keys, values and metadata may be longer than the limits say.
    IgnoreLimits,
    /// An expiry may be in the past.
    AcceptPastExpiry,
    /// A cursor may point outside its listing.
    TrustCursor,
    /// A cursor is valid for every listing.
    IgnoreCursorListing,
    /// A cursor is trusted although its checksum is wrong.
    IgnoreCursorChecksum,
    /// A page begins with the key at which the page before ended.
    RepeatLastKey,
    /// A number that is not finite is put as `null`.
    #[cfg_attr(not(feature = "json"), allow(dead_code, reason = "only JSON has it"))]
    NullForNumber,
    /// A directory with nothing but files of the system counts as another program's.
    StrangerBySystem,
    /// Input that is not accepted is told before a closed store or a dropped namespace.
    InputFirst,
    /// The two ends of a walk do not see each other.
    CrossEnds,
    /// A batch is committed without the writes that were refused.
    CommitTheRest,
    /// A page counts as followed by another if any key follows, even an expired one.
    LastByKeys,
    /// The limit of a listing does not end a walk.
    LimitNoWalk,
    /// A listing continues past its prefix.
    ListAcrossPrefix,
    /// A checkpoint omits segments that are not sealed yet.
    CopyWithoutActive,
    /// Files that are copied into a checkpoint are not synced.
    SkipCopySync,
    /// The name of a finished copy is not made durable.
    SkipPublishSync,
    /// An unfinished copy is not removed.
    KeepPartialCopy,
    /// A copy is built in a directory that is a store.
    BuildOverStore,
    /// Verify does not check seals.
    VerifyPassesSeals,
    /// Verify does not check hints.
    VerifyPassesHints,
    /// Verify does not report damaged records.
    VerifyPassesRecords,
    /// Verify treats all damage in a log that was not closed as a torn end.
    VerifyTakesDamageForTorn,
    /// Salvage treats the record that it reads last as the newest.
    SalvageInAnyOrder,
    /// Salvage keeps the records present of a torn batch.
    SalvageTorn,
    /// Salvage keeps expired records.
    SalvageExpired,
    /// Salvage keeps the keys of dropped namespaces.
    SalvageDropped,
    /// Salvage and verify ignore the lock of an open store.
    SalvageLock,
    /// Salvage and verify read segments that the manifest does not list.
    SalvageUnlisted,
    /// Salvage trusts the manifest of another store.
    SalvageByStranger,
    /// Inspect skips damaged ranges.
    InspectPassesDamage,
    /// Inspect does not check the sections of an index file.
    InspectTrustsSections,
    /// A map is kept until the process ends.
    KeepMaps,
    /// Closing does not sync.
    CloseWithoutSync,
    /// A closed store still serves calls.
    ServeClosed,
    /// Two namespaces may have one name.
    AnyNameTwice,
    /// Segments waiting to be sealed pile up in memory.
    PileUp,
    /// The store continues although it is unknown which manifest is on disk.
    BelieveUnknownManifest,
    /// A namespace whose drop could not be synced stays.
    DropAfterSync,
    /// Compaction fails if only a damaged record could tell whether a shadow counts.
    FailOnDoubt,
    /// Scrubbing forgets what it finds.
    ForgetScrubbed,
    /// Scrubbing reads a whole pass whenever it is called.
    ScrubWithoutRate,
    /// The sum of an increment wraps round.
    IncrementUnchecked,
    /// An update is written although the key has changed since it was read.
    TakeTwice,
    /// A condition of the program counts as it was judged before the writer lock was taken.
    JudgeBeforeLock,
    /// A queue counts as empty although all that was found in it was only overwritten meanwhile.
    PassOvertaken,
    /// Deleting a range goes on although it was told to stop.
    DeleteOn,
    /// A store is opened although a new one was asked for.
    OpenExisting,
    /// Destroying a store removes its segments while its manifest still lists them.
    DestroySegmentsFirst,
    /// Writes to a store in memory are written out and synced.
    SyncMemory,
    /// A store counts as idle although there is something to compact.
    IdleTooEarly,
    /// Puts without a lifetime do not expire, whatever the namespace says.
    IgnoreDefaultTtl,
    /// Nothing is said of what happens in the background.
    SayNothing,
    /// A reader takes the lock of the store.
    LockWhileReading,
    /// A reader does not ask whether an open segment was shortened while it was read.
    ReadWhatIsShortened,
    /// A reader overlooks a segment that was created before one that it knows.
    SkipCreated,
    /// A reader takes a torn end of the log for damage.
    TornTailIsDamage,
    /// A reader takes what it finds at first for damage, though a writer is at work.
    BelieveFirstLook,
    /// A reader does not look again for a file that is gone.
    TrustVanished,
    /// A reader takes a segment of the same length for an unchanged one.
    ForgetCutTail,
    /// A reader never loads the store again.
    NeverRefresh,
    /// A reader does not ask whether the ring was overwritten while it was read.
    ReadRingOnce,
    /// What is only in the ring is not found.
    IgnoreRing,
    /// Records in the ring count although their headers do not belong in this place.
    TrustStaleRing,
    /// What was found in the ring counts as durable.
    TrustRing,
    /// A write is acknowledged although it was not copied into the ring.
    AcknowledgeBeforeCopy,
    /// Compaction uses the part of the reserve that is for what the ring has.
    SpendRingReserve,
    /// Closing does not wait for a thread that makes the ring.
    CloseBesideRing,
    /// What was made of a ring is removed although a manifest may name it.
    RemoveNamedRing,
    /// A write is acknowledged by the ring although it would overwrite what is not written out.
    OverwriteRing,
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
