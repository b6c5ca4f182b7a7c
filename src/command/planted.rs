//! Breakages planted on purpose in the command and its server. The engine's `src/planted.rs`
//! describes how one is chosen, and which tests must notice it. One variable chooses from both
//! lists, so a name that is unknown here may be known there.

/// Declares the enum and the list of its members, so that the list is complete.
macro_rules! breakages {
    ($($(#[$attribute:meta])* $name:ident,)*) => {
        /// A breakage.
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
    /// An export leaves out the settings of namespaces.
    ExportNoSettings,
    /// An export lists the present, not the moment at which it began.
    ExportThePresent,
    /// An import lets keys without an expiry have the default lifetime of the namespace.
    ImportByDefaultTtl,
    /// An import of a local state follows names of values out of its directory.
    #[cfg_attr(not(feature = "miniflare"), allow(dead_code, reason = "it is in that feature"))]
    FollowBlobs,
    /// An import of a local state reads databases without their write-ahead logs.
    #[cfg_attr(not(feature = "miniflare"), allow(dead_code, reason = "it is in that feature"))]
    IgnoreLogOfState,
    /// The server accepts any number of connections.
    AnyConnections,
    /// A namespace that is created or renamed does not get the limit set for its name.
    ForgetNewLimit,
    /// The server does not bound the memory for bodies.
    AnyBodyMemory,
    /// A client may keep others waiting for memory by what it holds.
    AnyShare,
    /// The responses of a client may take all memory, until it has read them.
    AnyResponses,
    /// The server keeps the body of a request that is not permitted.
    MemoryBeforeRights,
    /// The head of a request may take any time.
    AnySlowHead,
    /// When all connections are in use, the server does not answer for its health either.
    NoSparePlaces,
    /// A server that stops waits for heads of which a part has come.
    WaitForHeads,
    /// The server lists keys that are not text, under wrong names.
    ListNoText,
    /// A binding reports an empty page as the last one.
    EndAtEmptyPage,
    /// The server accepts any token.
    AcceptAnyToken,
    /// The server accepts requests of web pages from other sites.
    AcceptPages,
    /// The server does not check for which host a request is.
    AcceptAnyHost,
    /// The server stores bodies in whatever coding they come.
    AcceptAnyCoding,
    /// The server stores a form, with its framing, as a value.
    StoreFraming,
    /// The server accepts times in milliseconds as seconds.
    AcceptMilliseconds,
    /// A token for some namespaces is told of others whether they exist.
    TellAbsent,
    /// The server does not know HEAD.
    RefuseHead,
    /// A read-only token may write.
    IgnoreReadOnly,
    /// A token for some namespaces grants access to all.
    IgnoreTokenNamespaces,
    /// A token for some namespaces may change the list of namespaces and read all statistics.
    IgnoreTokenScope,
    /// The policy of the web page lets any inline script run.
    AnyScript,
    /// An error of the store is logged for each request that meets it.
    LogEachError,
    /// An unknown log level is taken for the name of a target.
    AnyLogLevel,
    /// A server that stops removes the socket of another one.
    RemoveAnySocket,
    /// A newline at the end of a token belongs to it.
    KeepTokenNewline,
    /// A server whose store has no space for writes is ready.
    ReadyWhenFull,
    /// Any token may administer the server.
    AnyAdmin,
    /// A checkpoint may be made outside its directory.
    CheckpointAnywhere,
    /// A file without tokens makes a running server open to everybody.
    ReloadToNone,
    /// The server accepts keys that Workers KV does not.
    AcceptAnyKey,
    /// The server accepts lifetimes of less than a minute.
    AcceptShortLifetimes,
    /// The server accepts metadata of any length, and without checking that it is JSON.
    AcceptAnyMetadata,
    /// The server accepts values of any length.
    AcceptLargeValues,
    /// The server does not check the conditions of a write.
    IgnoreConditions,
    /// The server judges the conditions of a put before the put, not in one step with it.
    JudgeConditionsFirst,
    /// Watching does not end when the server stops.
    WatchOn,
    /// The server treats a body that was cut off as complete.
    HalfBulk,
    /// A server that stops does not finish the requests under way.
    DropRequests,
    /// Names and values can control the terminal.
    ObeyNames,
    /// Work that expects a signal ignores it.
    IgnoreSignals,
    /// A signal that stopped one piece of work stops the next as well.
    RememberSignal,
    /// A command that reported damage exits as if there were none.
    HideDamage,
    /// A script continues after a command that failed.
    GoOnAfterFailure,
    /// Deletions that need confirmation are done without.
    DeleteUnasked,
    /// Renaming a key replaces another one, and loses writes that come in between.
    RenameBlindly,
    /// An import with `--if-absent` overwrites keys that are there.
    ImportOverPresent,
    /// An invalid write prevents those before it in its batch.
    StopAtWrong,
    /// An import resumes from a file that does not begin with what was imported before.
    ImportAnotherInput,
    /// An export that was cut off is imported as if it were complete.
    ImportCutOff,
    /// An export resumes the file of another export.
    ResumeAnotherExport,
    /// An import resumes in an older copy of the store.
    ImportIntoOlderCopy,
    /// A command on a server accepts any certificate.
    TrustAnyCertificate,
    /// A conditional put is sent again although the first one may have been done.
    RepeatConditionalPut,
    /// A conditional put is sent to a server that ignores conditions.
    OverwriteUnjudged,
    /// A page of a proxy counts as the server's answer to a write.
    TrustAnyAnswer,
    /// An import into a server sets the default lifetime of a namespace before its keys, which then
    /// expire by it.
    DefaultTtlBeforeKeys,
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
