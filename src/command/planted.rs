//! Breakages planted on purpose in the command and its server; the engine's `src/planted.rs` tells
//! how they are chosen, and which tests must notice them. The same variable chooses from both
//! lists, so a name that is not here may be there.

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
    /// The server takes any number of connections.
    AnyConnections,
    /// The server sets no memory apart for bodies.
    AnyBodyMemory,
    /// The server lists keys that are no text, under names that are none of theirs.
    ListNoText,
    /// A page on which nothing is shown is the last one through a binding.
    EndAtEmptyPage,
    /// The server accepts any token.
    AcceptAnyToken,
    /// The server lets in web pages from elsewhere.
    AcceptPages,
    /// A token for reading may write.
    IgnoreReadOnly,
    /// A token for some namespaces is good for all.
    IgnoreTokenNamespaces,
    /// A token for some namespaces may change the list of them and read all numbers.
    IgnoreTokenScope,
    /// The server takes keys that Workers KV does not.
    AcceptAnyKey,
    /// The server takes lifetimes of less than a minute.
    AcceptShortLifetimes,
    /// The server takes metadata of any length that are no JSON.
    AcceptAnyMetadata,
    /// The server takes values of any length.
    AcceptLargeValues,
    /// The server takes a body that was cut off for the whole.
    HalfBulk,
    /// A server that stops does not finish the requests that have come.
    DropRequests,
    /// Names and values may command the terminal.
    ObeyNames,
    /// Work that expects a signal goes on whatever comes.
    IgnoreSignals,
    /// A signal that ended one piece of work ends the next as well.
    RememberSignal,
    /// A command that has told of damage ends as if there were none.
    HideDamage,
    /// A script goes on behind a command that failed.
    GoOnAfterFailure,
    /// What needs a yes is done without one.
    DeleteUnasked,
    /// An import of absent keys writes over those that are there.
    ImportOverPresent,
    /// A write that is wrong keeps those before it from being done.
    StopAtWrong,
    /// An import goes on in a file that does not begin with what was imported before.
    ImportAnotherInput,
    /// An export that was cut off is imported as if it were whole.
    ImportCutOff,
    /// An export goes on in the file of another.
    ResumeAnotherExport,
    /// An import goes on in an older copy of the store.
    ImportIntoOlderCopy,
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
