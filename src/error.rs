//! (Over 400 lines: every error, with its message.)
//!
//! The one error type, and the few kinds that say what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::Damage;

/// Bytes of a key that was refused, and so may be of any length, in a message.
const QUOTED_BYTES_MAX: usize = 100;

/// Result of the fallible functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Every call checks in the same order: the process ([`Error::Forked`]), the store
/// ([`Error::Closed`]), the namespace ([`Error::NamespaceNotFound`]), what was passed
/// ([`Error::InvalidInput`]), and only then whether something is absent. Match on [`Error::kind`]
/// to decide what to do; the message is for people.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key, value, metadata, lifetime, limit or name outside what the store accepts.
    #[error("{what}")]
    InvalidInput {
        /// What is wrong, and what is accepted.
        what: String,
    },
    /// A condition of a conditional write does not hold; nothing was written.
    #[error(
        "the condition does not hold: {}; read the key again before you retry",
        match found { Some(sequence) => format!("the key is there with sequence {sequence}"), None => "the key is absent".to_owned() }
    )]
    Conflict {
        /// Sequence of the live record that was found; `None` if the key is absent (or expired).
        found: Option<u64>,
    },
    /// What a transaction has read was written by others before it could be committed, in every
    /// attempt. Nothing was written.
    #[error(
        "the transaction met a conflict in each of {attempts} attempts; run it again, or make it read and write less"
    )]
    TransactionConflict {
        /// Attempts that were made.
        attempts: u32,
    },
    /// So much was written while the transaction was open that it is no longer known whether a
    /// range that it has listed was among that. Nothing was written.
    #[error("the transaction was open for too long beside other writes; list less in it, or take less time")]
    TransactionTooOld,
    /// Other writes of the key came in between each time that it was read and was to be written.
    /// Nothing was written.
    #[error("other writes of the key came in between {attempts} times; write it less often, or try again later")]
    TooManyConflicts {
        /// How often it was tried.
        attempts: usize,
    },
    /// The namespace does not exist, or was dropped since this handle was opened.
    #[error("namespace {name:?} does not exist; create it, or open it again if it was dropped")]
    NamespaceNotFound {
        /// Its name.
        name: String,
    },
    /// A namespace of this name already exists.
    #[error("namespace {name:?} exists already; choose another name")]
    NamespaceExists {
        /// Its name.
        name: String,
    },
    /// There is a store already, and [`Options::create_new`](crate::Options::create_new) asked for
    /// a new one. Nothing was changed.
    #[error("there is a store already; open it without `create_new`, or name another directory: {}", path.display())]
    StoreExists {
        /// Directory of the store.
        path: PathBuf,
    },
    /// The cursor belongs to another listing, or was damaged in transit.
    #[error("the cursor does not belong to this listing; start again without one")]
    InvalidCursor,
    /// Another process, or another handle in this one, has the store open.
    #[error("the store is in use by {holder}; close it there first: {}", path.display())]
    InUse {
        /// Directory of the store.
        path: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// The directory holds no store and cannot become one.
    #[error("not a store: {what}: {}", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// What was found, and what to do.
        what: String,
    },
    /// The file was written by a later version.
    #[error("format version {version} is newer than this program; open the store with a newer embercask: {}", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// Stored data fail a check in a place where no crash could have caused it. Nothing was
    /// changed.
    #[error("stored data are damaged: {cause}; restore a checkpoint, or salvage the sound records: {} at offset {offset}", path.display())]
    Corruption {
        /// The damaged file.
        path: PathBuf,
        /// Offset in the file, in bytes.
        offset: u64,
        /// Which check failed.
        cause: String,
    },
    /// No space is left on the device. Reads still work, and so do deletes while the reserve lasts;
    /// puts work again once there is room.
    #[error("no space left on the device; free some, delete keys or compact, then write again: {}", path.display())]
    NoSpace {
        /// The file that did not fit.
        path: PathBuf,
    },
    /// The store has reached [`Options::max_disk_bytes`](crate::Options::max_disk_bytes). Reads and
    /// deletes still work; puts work again once compaction has reclaimed the space of what was
    /// deleted.
    #[error("the store takes as much of its limit of {limit_bytes} bytes as puts may; delete keys, or raise the limit: {}", path.display())]
    LimitReached {
        /// The store.
        path: PathBuf,
        /// The limit.
        limit_bytes: u64,
    },
    /// The namespace has reached the limit set with
    /// [`Namespace::set_max_bytes`](crate::Namespace::set_max_bytes). Nothing was written. Deletes
    /// still work, and so do puts that replace a record with one that is no larger.
    #[error(
        "namespace {name:?} would take {bytes} bytes, more than its limit of {max_bytes}; delete keys, or raise the limit"
    )]
    NamespaceFull {
        /// Its name.
        name: String,
        /// Bytes that its records would take.
        bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// The system failed an operation on a file.
    #[error("cannot {action}: {source}; {}: {}", advice(source), path.display())]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// The write was applied and every reader sees it, but it could not be written out, nor rolled
    /// back, since writes of class `Buffered` or `Os` that came after it were acknowledged. It is
    /// written out with them as soon as there is room or the device works again. It may be lost if
    /// the process ends first, or another failure poisons the store ([`Error::Poisoned`]). Do not
    /// repeat the write; [`crate::Store::sync`] tells when it is durable.
    #[error(
        "the write is applied but not written out yet; it will be, unless the process ends or the store is poisoned first; do not repeat it, call sync: {cause}"
    )]
    Pending {
        /// Why it could not be written out. [`Error::kind`] returns the kind of this cause.
        #[source]
        cause: Arc<Error>,
    },
    /// After an earlier failure it is unknown what is on the disk. Reads still work; writes are
    /// refused until the store is opened again.
    #[error("writes are refused after an earlier failure; close and open the store again: {cause}")]
    Poisoned {
        /// The failure.
        cause: String,
    },
    /// The store was closed.
    #[error("the store is closed; open it again")]
    Closed,
    /// The store was opened with [`Options::read_only`](crate::Options::read_only), and this call
    /// would write. Nothing was written.
    #[error(
        "the store was opened for reading only; write through the process that has it open, or open it without `read_only`"
    )]
    ReadOnly,
    /// The store was opened by the process that this one was forked from, and only that process may
    /// use it.
    #[error(
        "the store belongs to the process that this one was forked from; open it again here once it is closed there"
    )]
    Forked,
    /// The work was stopped on request; the store is unharmed.
    #[error("stopped on request; the store is unharmed")]
    Cancelled,
    /// The bytes are not the text or JSON that was asked for.
    #[error("the value is not {expected}; read it as bytes: {cause}")]
    Decode {
        /// `UTF-8` or `JSON of this type`.
        expected: &'static str,
        /// Where it goes wrong.
        cause: String,
    },
}

/// What to do about an error from the system.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "let this process read and write there",
        io::ErrorKind::ReadOnlyFilesystem => "mount the file system writable",
        io::ErrorKind::NotFound => "check whether another program removed it",
        _ => "check the device and the limits of the process, then try again",
    }
}

/// Errors, grouped by what a program can do about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Fix the call: the input is not accepted.
    InvalidInput,
    /// Read again before retrying: another write came in between.
    Conflict,
    /// The namespace does not exist.
    NotFound,
    /// The namespace or store to create, or the new name of a namespace, already exists.
    AlreadyExists,
    /// Another handle has the store open: retry later, or close it there.
    InUse,
    /// The directory is not a store, or its format is newer than this program.
    NotAStore,
    /// Data are damaged: restore from a checkpoint, or salvage.
    Corruption,
    /// Free space, then retry on the same handle.
    NoSpace,
    /// The system failed an operation: see the source.
    Io,
    /// Close and open the store again.
    Poisoned,
    /// The store was closed by this program, or belongs to the process that this one was forked
    /// from.
    Closed,
    /// The store was opened for reading only: write through a handle that may.
    ReadOnly,
    /// Stopped on request.
    Cancelled,
}

impl Error {
    /// What a program can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::InvalidInput { .. } | Error::InvalidCursor | Error::Decode { .. } => ErrorKind::InvalidInput,
            Error::Conflict { .. }
            | Error::TooManyConflicts { .. }
            | Error::TransactionConflict { .. }
            | Error::TransactionTooOld => ErrorKind::Conflict,
            Error::NamespaceNotFound { .. } => ErrorKind::NotFound,
            Error::NamespaceExists { .. } | Error::StoreExists { .. } => ErrorKind::AlreadyExists,
            Error::InUse { .. } => ErrorKind::InUse,
            Error::NotAStore { .. } | Error::NewerFormat { .. } => ErrorKind::NotAStore,
            Error::Corruption { .. } => ErrorKind::Corruption,
            Error::NoSpace { .. } | Error::LimitReached { .. } | Error::NamespaceFull { .. } => ErrorKind::NoSpace,
            Error::Io { .. } => ErrorKind::Io,
            Error::Pending { cause } => cause.kind(),
            Error::Poisoned { .. } => ErrorKind::Poisoned,
            Error::Closed | Error::Forked => ErrorKind::Closed,
            Error::ReadOnly => ErrorKind::ReadOnly,
            Error::Cancelled => ErrorKind::Cancelled,
        }
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Error {
        Error::InvalidInput { what: what.into() }
    }

    /// The store was called from a function that it has called itself.
    #[cold]
    pub(crate) fn in_callback() -> Error {
        Error::invalid(
            "a store is called from within the function of a condition, an update, a clock, a waker or the progress of \
             opening; decide by what that is given, and call the store before or after",
        )
    }

    /// A call that waits for a checkpoint was made from its own progress function.
    #[cold]
    pub(crate) fn in_progress() -> Error {
        Error::invalid(
            "the call would wait for the checkpoint whose progress function makes it; make it when that has returned",
        )
    }

    /// An I/O error on `path`; a full disk becomes [`Error::NoSpace`].
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace { path: path.to_owned() },
            _ => Error::unsure(action, path, source),
        }
    }

    /// An I/O error on `path` that leaves it unknown what is on the disk. Always [`Error::Io`],
    /// since [`Error::NoSpace`] would mean that nothing was written.
    pub(crate) fn unsure(action: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io {
            action,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    /// Damage at an offset of a file; a newer version becomes [`Error::NewerFormat`].
    pub(crate) fn damage(path: &Path, offset: u64, damage: Damage) -> Error {
        match damage {
            Damage::Version(version) => Error::NewerFormat {
                path: path.to_owned(),
                version,
            },
            _ => Error::Corruption {
                path: path.to_owned(),
                offset,
                cause: damage.to_string(),
            },
        }
    }

    /// Whether the disk, or the store by its own limit, has no room. A namespace that is full is
    /// another matter: nothing that frees disk space helps it.
    pub(crate) fn is_no_space(&self) -> bool {
        self.kind() == ErrorKind::NoSpace && !matches!(self, Error::NamespaceFull { .. })
    }

    /// The cause of [`Error::Pending`], for a call that applied nothing itself.
    pub(crate) fn without_pending(self) -> Error {
        match self {
            Error::Pending { cause } => Arc::unwrap_or_clone(cause),
            other => other,
        }
    }

    /// Whether stored bytes in one place are damaged, or the device could not read them: data
    /// elsewhere are unaffected.
    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self, Error::Corruption { .. } | Error::Io { action: "read", .. })
    }

    /// Whether a file is not there, or not all of it. Beside a process that writes, it may have
    /// been replaced by another since its name was read.
    pub(crate) fn is_vanished(&self) -> bool {
        let is_gone = |kind| matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof);
        matches!(self, Error::Io { source, .. } if is_gone(source.kind()))
    }

    /// Names the key whose record could not be read. Other errors are unchanged.
    pub(crate) fn of_key(self, key: &[u8]) -> Error {
        if self.is_unreadable() {
            self.noting(&format!(", in the record of key {}", quoted(key)))
        } else {
            self
        }
    }

    /// Names the write of a batch that is not accepted. Other errors are unchanged.
    pub(crate) fn of_write(self, index: usize, key: &[u8]) -> Error {
        match self {
            Error::InvalidInput { what } => Error::InvalidInput {
                what: format!("write {index} of the batch, of key {}: {what}", quoted_start(key)),
            },
            other => other,
        }
    }

    /// Several read errors as one: the first damage (else the first error), with a note of the
    /// others. None if there are none.
    pub(crate) fn together(mut errors: Vec<Error>) -> Option<Error> {
        errors.sort_by_key(|error| !matches!(error, Error::Corruption { .. }));
        let mut errors = errors.into_iter();
        let first = errors.next()?;
        let note: String = errors
            .map(|other| match other {
                Error::Corruption { path, offset, cause } => {
                    format!("; and in {} at offset {offset}: {cause}", path.display())
                }
                other => format!("; and {other}"),
            })
            .collect();
        Some(first.noting(&note))
    }

    /// Appends a note to the cause.
    fn noting(mut self, note: &str) -> Error {
        match &mut self {
            Error::Corruption { cause, .. } => cause.push_str(note),
            Error::Io { source, .. } => {
                let noted = Noted {
                    source: source.clone(),
                    note: note.to_owned(),
                };
                *source = Arc::new(io::Error::new(source.kind(), noted));
            }
            _ => {}
        }
        self
    }
}

/// An error from the system, with a note of what it was about.
#[derive(Debug)]
struct Noted {
    source: Arc<io::Error>,
    note: String,
}

impl std::fmt::Display for Noted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.source, self.note)
    }
}

impl std::error::Error for Noted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Any key in quotes: as text if it is UTF-8, and escaped so that it cannot upset a terminal or a
/// log.
fn quoted(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("\"{}\"", key.escape_ascii()),
    }
}

/// The start of a key that may be of any length, in quotes.
fn quoted_start(key: &[u8]) -> String {
    match key.get(..QUOTED_BYTES_MAX) {
        Some(start) if start.len() < key.len() => format!("{}...", quoted(start)),
        _ => quoted(key),
    }
}

#[cfg(test)]
mod tests;
